"""The store: keys, bytes and revisions; it knows nothing of kinds.

Context: etcd's guarantees on one small machine with an SD card. Decision: reads, indexes, compare-and-swap and watches live in memory;
SQLite is journal and snapshot only (a slot log, see sqlite.py); one writer thread commits whatever is queued as one synced transaction;
nothing is acknowledged or published before its commit. Consequences: reads never block, history for watches costs nothing extra,
and the file stays bounded without compaction.

Promises (each a test in tests/contract or tests/faults): an acknowledged durable write survives kill -9 and power cuts; a revision is
never used twice, also across crashes; events arrive once each, in revision order, nothing skipped; a failed commit changes nothing.
"""
