"""A database from rows of another life of the cluster, for restores and roll-backs.

Clients remember revisions of the life that is over; some of them are higher than anything in the rows. So the new life begins far above
whatever the old one can have given out (as etcd's --bump-revision), and no bucket offers its history: who watches from an old revision is
told that it has expired, lists again and finds what is there. Objects keep their own revisions.
"""

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from edgekube.store.protocol import StoreDamaged
from edgekube.store.slotlog import Row, SlotLog

BUMP = 1_000_000_000
_PER_SECOND = 1000  # revisions that a cluster may have given out in each second since
_BATCH = 500


def bumped(revision: int, *, elapsed: float) -> int:
    """Where a new life begins. `elapsed`: seconds since the rows were taken; two lives that begin from the same rows differ by it."""
    return revision + BUMP + int(max(0.0, elapsed) * _PER_SECOND)


def build(path: Path, rows: Iterable[Row], *, revision: int, database: int) -> int:
    """Make a database of format `database` at `path`, complete and closed, from rows in order of revisions; its life begins after
    `revision`. How many rows."""
    slots, count, waiting = SlotLog(path, 0), 0, list[Row]()
    buckets: set[str] = set()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        slots.open(connection, upto=database)
        for row in rows:
            buckets.add(row.key.partition("/")[0])
            waiting.append(row)
            count += 1
            if len(waiting) >= _BATCH:
                slots.commit(waiting, ())
                waiting.clear()
        slots.commit(waiting, _fresh(revision, buckets))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    path.chmod(0o600)
    return count


def raise_revision(path: Path, *, elapsed: float) -> None:
    """The same for a copy of a database: another life has gone on from it in the meantime. Raises StoreDamaged, sqlite3.Error."""
    slots = SlotLog(path, 0)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        slots.open(connection, upto=0)
        content = slots.load()
        if not content.rows:
            raise StoreDamaged(f"{path} holds nothing")
        newest = max(content.rows[-1].revision, int(content.meta.get("ceiling", "0")))
        buckets = {row.key.partition("/")[0] for row in content.rows}
        slots.commit((), _fresh(bumped(newest, elapsed=elapsed), buckets))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _fresh(revision: int, buckets: Iterable[str]) -> list[tuple[str, str]]:
    return [("ceiling", str(revision)), ("volatile", " ".join(sorted(buckets)))]
