"""Faults on purpose. TRACK_RECORD: bugs these tests have found, each with the test that shows it.

- With a failing disk the first ephemeral write of a bucket was published, although its history would be believed after a crash:
  unit/store/test_sqlite, test_a_bucket_s_first_ephemeral_write_needs_the_disk.
- A database whose first page was lost was taken for somebody else's and not recovered:
  unit/store/test_salvage, test_a_lost_first_page_is_recovered_from.
- A full disk at start kept the store from opening: unit/store/test_sqlite, test_a_full_disk_at_start_still_shows_what_is_there.
- None so far in the store's commit path: test_store_crash (by hand besides: 120 random kills under load, 190,000 writes).
"""
