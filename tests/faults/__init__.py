"""Faults on purpose. TRACK_RECORD: bugs these tests have found, each with the test that shows it.

| bug | test |
|---|---|
| none so far in the store's commit path | test_store_crash |
"""
