"""The slot log: one row per revision, in a slot whose former row was superseded more than `history` revisions ago.

    slots(id, rev, key, create_rev, state, value)     state: 1 live raw, 2 live deflated, 3/4 the same for the last version of a deleted key
    meta(name, value)                                ceiling: no revision above it was ever given out; volatile: buckets with unsaved writes

Context: an SD card wears by bytes written. Decision: `INSERT OR REPLACE` into a fixed set of slots, no other index, no DELETE or VACUUM:
history for watches costs nothing, the file is bounded by objects + history rows, and a write is a third of what a table plus history writes
(measured: 8 KB at the device per 6 KB object in batches of 10, 108 KB for a kine-like table). Recovery: the highest revision of a key wins.
A tombstone's slot is queued right behind the row it deletes, so that an old row can never outlive it.

Everything here is synchronous and belongs to the database thread.
"""

import contextlib
import sqlite3
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from edgekube.lib import failpoint
from edgekube.store import migrations
from edgekube.store.protocol import StoreDamaged

T = TypeVar("T")
APPLICATION_ID = 0x656B7562  # "ekub"
FIRST_FORMAT = 1  # what a new database begins with; migrations take it from there
PAGE_SIZE = 4096
_SMALL = 200  # shorter values are not worth deflating
_PRAGMAS = (
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = FULL",
    "wal_autocheckpoint = 1000",
    "temp_store = MEMORY",
    "cache_size = -512",
)
_SCHEMA = (
    "CREATE TABLE slots(id INTEGER PRIMARY KEY, rev INTEGER NOT NULL, key TEXT NOT NULL, create_rev INTEGER NOT NULL, "
    "state INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
_PUT = "INSERT OR REPLACE INTO slots(id, rev, key, create_rev, state, value) VALUES(?, ?, ?, ?, ?, ?)"
_META = "INSERT OR REPLACE INTO meta(name, value) VALUES(?, ?)"


class Row(NamedTuple):
    """One version of a key; `value` is inflated."""

    revision: int
    key: str
    create_revision: int
    deleted: bool
    value: bytes


@dataclass(slots=True)
class Content:
    """What a database holds."""

    rows: list[Row] = field(default_factory=list)  # every row, in revision order
    meta: dict[str, str] = field(default_factory=dict)


class SlotLog:
    """An open database. Not thread-safe: one thread uses it."""

    def __init__(self, path: Path, history: int) -> None:
        self.path, self._history = path, history
        self._connection: sqlite3.Connection | None = None
        self._free: deque[tuple[int, int]] = deque()  # (revision that superseded it, slot), oldest first
        self._slots: dict[str, int] = {}  # key -> slot of its newest row
        self._next = 1
        self._suspect = False  # a commit failed: what the disk has is not known
        self._newest = 0
        self.format = 0  # of the database, once it is open

    def open(self, connection: sqlite3.Connection, *, upto: int | None = None) -> None:
        """Prepare `connection` and bring it to the format of this program (`upto`: to another one; 0: leave it as it is). Raises
        StoreDamaged if it is foreign, newer or in use, sqlite3.DatabaseError if it is broken."""
        self._connection = connection
        connection.isolation_level = None
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}").fetchall()
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise StoreDamaged(f"{self.path} is in use by another process") from error
            raise
        self.format = self._check_identity(connection, tables)
        wanted = migrations.newest() if upto is None else upto
        if self.format < wanted:
            migrations.migrate(connection, self.format, upto=wanted)
            self.format = wanted

    def _check_identity(self, connection: sqlite3.Connection, tables: int) -> int:
        """The format of the database, which is made if there is none."""
        identity = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if tables == 0 and identity == 0:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FIRST_FORMAT}")
            connection.execute("COMMIT")
            return FIRST_FORMAT
        if identity != APPLICATION_ID:
            raise StoreDamaged(f"{self.path} is not a database of edgekube; it was left as it is")
        if version > migrations.newest():
            raise StoreDamaged(f"{self.path} was written by a newer edgekube (format {version}, this one knows {migrations.newest()})")
        return int(version)

    def check(self) -> bool:
        """SQLite's own quick check."""
        return bool(self._open().execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")

    def load(self) -> Content:
        """Read everything and find the free slots."""
        connection = self._open()
        content = Content(meta=dict(connection.execute("SELECT name, value FROM meta")))
        slots = []
        for slot, revision, key, create, state, value in connection.execute("SELECT id, rev, key, create_rev, state, value FROM slots"):
            plain = zlib.decompress(value) if state in (2, 4) else bytes(value)
            slots.append((revision, slot, Row(revision, key, create, state > 2, plain)))
        slots.sort(key=lambda entry: entry[0])
        content.rows = [row for _, _, row in slots]
        self._rebuild([(revision, slot, row.key, row.deleted) for revision, slot, row in slots])
        return content

    def _rebuild(self, rows: Sequence[tuple[int, int, str, bool]]) -> None:
        """The queue of free slots, ordered by the revision that superseded each."""
        self._slots, free = {}, []
        for revision, slot, key, deleted in rows:
            before = self._slots.pop(key, None)
            if before is not None:
                free.append((revision, 0, before))
            if deleted:
                free.append((revision, 1, slot))
            else:
                self._slots[key] = slot
            self._newest = revision
        free.sort()
        self._free = deque((revision, slot) for revision, _, slot in free)
        self._next = max((slot for _, slot, _, _ in rows), default=0) + 1

    def commit(self, rows: Sequence[Row], meta: Iterable[tuple[str, str]]) -> None:
        """One transaction, synced. Raises sqlite3.Error or OSError: nothing of it counts then, and a later commit makes sure of that."""
        connection = self._open()
        if self._suspect:
            self._heal(connection)
        plan = _Plan(self)
        try:
            failpoint.hit("store.commit.begin")
            connection.execute("BEGIN IMMEDIATE")
            packed = [(plan.place(row), row.revision, row.key, row.create_revision, *_pack(row)) for row in rows]
            connection.executemany(_PUT, packed)
            connection.executemany(_META, meta)
            failpoint.hit("store.commit.written")
            failpoint.hit("store.commit.before-sync")
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError):
            self._suspect = True
            with contextlib.suppress(sqlite3.Error):
                self._heal(connection)
            raise
        failpoint.hit("store.commit.committed")
        plan.keep()
        if rows:
            self._newest = rows[-1].revision

    def _heal(self, connection: sqlite3.Connection) -> None:
        """After a failed commit: whatever of it reached the disk all the same is taken back.

        A commit whose sync failed may lie complete in the WAL, where the next start would find it: another one is written over it.
        """
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM slots WHERE rev > ?", (self._newest,))
        connection.execute(_META, ("healed", str(self._newest)))
        connection.execute("COMMIT")
        self._suspect = False

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the database is closed")
        return self._connection


class _Plan:
    """The slots of one transaction's rows; nothing of the log changes before `keep`."""

    def __init__(self, log: SlotLog) -> None:
        self._log = log
        self._taken = 0  # slots taken from the head of the queue
        self._freed: list[tuple[int, int]] = []
        self._placed: dict[str, int | None] = {}
        self._next = log._next

    def place(self, row: Row) -> int:
        """The slot for `row`: one superseded long enough ago, else a new one."""
        log = self._log
        if self._taken < len(log._free) and log._free[self._taken][0] < row.revision - log._history:
            slot = log._free[self._taken][1]
            self._taken += 1
        else:
            slot, self._next = self._next, self._next + 1
        before = self._placed[row.key] if row.key in self._placed else log._slots.get(row.key)
        if before is not None:
            self._freed.append((row.revision, before))
        if row.deleted:
            self._freed.append((row.revision, slot))
        self._placed[row.key] = None if row.deleted else slot
        return slot

    def keep(self) -> None:
        log = self._log
        for _ in range(self._taken):
            log._free.popleft()
        log._free.extend(self._freed)
        log._next = self._next
        for key, slot in self._placed.items():
            if slot is None:
                log._slots.pop(key, None)
            else:
                log._slots[key] = slot


def _pack(row: Row) -> tuple[int, bytes]:
    tombstone = 2 if row.deleted else 0
    if len(row.value) <= _SMALL:
        return 1 + tombstone, row.value
    return 2 + tombstone, zlib.compress(row.value, 1)


class _Thread(Protocol):
    """aiosqlite's own way to run a function in the database thread; all its methods are wrappers of it."""

    async def _execute(self, work: Callable[[], T], /) -> T: ...


async def run_in_thread(database: _Thread, work: Callable[[], T]) -> T:
    """Run one function in the thread that owns the database."""
    return await database._execute(work)
