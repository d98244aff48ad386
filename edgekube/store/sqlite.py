"""The store on disk: SQLite is journal and snapshot, everything is read from memory.

aiosqlite owns the database thread; a whole batch is one function call into it, so the thread is crossed once each way per batch.
Measured on a 2-core VM with an fdatasync of 80 us, values of 5.8 KB: one writer 180 us a write (118 us of it the commit), 10 writers
21,000 writes/s, 100 writers 32,000/s. A bare thread with a queue of our own measured the same within noise (178 us, 19,000/s,
29,000/s); one statement per call, as aiosqlite is usually driven, is 2 to 20 times slower.

Promises: acknowledged means committed and synced; a failed commit changes nothing that anybody can see, and the store goes on when the disk
does; revisions stay below a ceiling that is on the disk before they are used, so none is used twice, kill -9 included; buckets whose every
write was durable keep their history across restarts, the others make watchers list again.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import aiosqlite

from edgekube.lib.tasks import TaskScope
from edgekube.store import recovery
from edgekube.store.core import CoreStore, Write, tag_nothing
from edgekube.store.protocol import Event, EventType, Record, Tagger
from edgekube.store.slotlog import Content, Row, SlotLog, run_in_thread
from edgekube.store.state import State

log = logging.getLogger(__name__)

CEILING_STEP = 10_000
_CEILING, _VOLATILE = "ceiling", "volatile"


class SqliteStore(CoreStore):
    """See the module; made by `open_store`."""

    def __init__(
        self, state: State, slots: SlotLog, database: aiosqlite.Connection, *, ceiling: int, volatile: set[str], linger: float
    ) -> None:
        super().__init__(state)
        self._slots, self._database, self._linger = slots, database, linger
        self._ceiling, self._wanted_ceiling = ceiling, ceiling
        self._volatile, self._volatile_saved = volatile, set(volatile)  # buckets whose history must not outlive a crash
        self._scope = TaskScope("store")
        self._failing = False
        self._writer: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str:
        """Why writes are refused; empty while the disk takes them (or nothing was written since)."""
        return "the database does not take writes" if self._failing else ""

    def adopt(self, keys: Sequence[str]) -> None:
        """Keys that have a row already."""
        self._on_disk.update(keys)

    async def prepare(self, ceiling: int) -> None:
        """Raise the ceiling for this life. A full disk does not keep the store from being read: the first write tries again."""
        try:
            await self._call((), [(_CEILING, str(ceiling))])
        except (sqlite3.Error, OSError) as error:
            log.error("database does not take writes", extra={"error": str(error), "path": str(self._slots.path)})
            self._failing = True
            return
        self._ceiling = self._wanted_ceiling = ceiling

    def _before(self, write: Write) -> None:
        if not write.durable:
            self._volatile.add(write.key[: write.key.find("/")])
        if write.event.revision + CEILING_STEP // 2 > self._wanted_ceiling:
            self._wanted_ceiling = write.event.revision + CEILING_STEP
        if self._meta_due():
            self._kick()

    def _meta_due(self) -> bool:
        return self._wanted_ceiling > self._ceiling or len(self._volatile) > len(self._volatile_saved)

    def _safe(self, write: Write) -> bool:
        return write.event.revision <= self._ceiling and write.key[: write.key.find("/")] in self._volatile_saved

    def _kick(self) -> None:
        if not self._busy:
            self._busy = True
            self._writer = self._scope.spawn(self._drain(), name="writer")

    async def _drain(self) -> None:
        """Commit batch after batch until nothing waits; ends then, so that an idle store has no task and no wake-up."""
        try:
            while self._queue or self._meta_due():
                if self._linger:
                    await asyncio.sleep(self._linger)
                else:
                    await asyncio.sleep(0)  # whoever writes in this turn of the loop shares the sync
                if not await self._one_batch():
                    break
        finally:
            self._busy = False

    async def _one_batch(self) -> bool:
        batch = self._take()
        rows = [_row(write.event) for write in batch if write.durable]
        ceiling, volatile = self._wanted_ceiling, sorted(self._volatile)
        meta = [(_CEILING, str(ceiling)), (_VOLATILE, " ".join(volatile))] if self._meta_due() else []
        try:
            if rows or meta:
                await self._call(rows, meta)
        except (sqlite3.Error, OSError) as error:
            if not self._failing:
                log.error("database does not take writes", extra={"error": str(error), "path": str(self._slots.path)})
            self._failing = True
            self._fail(batch, f"the database does not take writes: {error}")
            return bool(self._queue)
        if self._failing:
            log.info("database takes writes again")
        self._failing = False
        if meta:
            self._ceiling, self._volatile_saved = ceiling, set(volatile)
        self._finish(batch)
        return True

    async def _call(self, rows: Sequence[Row], meta: Sequence[tuple[str, str]]) -> None:
        await run_in_thread(self._database, lambda: self._slots.commit(rows, meta))

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True  # from here on nothing new is queued, and the writer ends when all that is has been committed
        if self._writer is not None:
            await asyncio.wait([self._writer])
        unsaved = [record for key in self._unsaved if (record := self.get(key)) is not None]
        rows = [Row(r.revision, r.key, r.create_revision, False, r.value) for r in sorted(unsaved, key=lambda r: r.revision)]
        try:
            await self._call(rows, [(_CEILING, str(self._assigned))])
        except (sqlite3.Error, OSError) as error:
            log.warning("last state in memory not saved", extra={"error": str(error)})
        await self._scope.close()
        await self._database.close()


def _row(event: Event) -> Row:
    record = event.record
    return Row(record.revision, record.key, record.create_revision, event.type is EventType.DELETED, record.value)


async def open_store(path: Path, *, tagger: Tagger | None = None, history: int = 1000, linger_ms: int = 0) -> SqliteStore:
    """Open or make the database. A broken one is set aside and salvaged. Raises StoreDamaged with one clear line."""
    database, slots, content = await recovery.open_database(path, history)
    tag = tagger or tag_nothing
    newest = content.rows[-1].revision if content.rows else 0
    stored = int(content.meta.get(_CEILING, "0"))
    revision = max(newest, stored, 1)
    volatile = set(content.meta.get(_VOLATILE, "").split())
    state = State(history=history, revision=revision, floor=revision)
    oldest = max(newest - history, 0)  # older rows may have lost the versions between them
    records, events = _replay(content, tag, oldest)
    state.load(records.values())
    for bucket, found in events.items():
        if bucket not in volatile:
            state.resume(bucket, found, oldest)
    store = SqliteStore(state, slots, database, ceiling=revision, volatile=volatile, linger=linger_ms / 1000)
    store.adopt(list(records))
    await store.prepare(revision + CEILING_STEP)
    return store


def _replay(content: Content, tag: Tagger, oldest: int) -> tuple[dict[str, Record], dict[str, list[Event]]]:
    """Newest record per key, and the events after `oldest` that the rows tell, in order."""
    records: dict[str, Record] = {}
    events: dict[str, list[Event]] = {}
    for row in content.rows:
        record = Record(row.key, row.value, row.revision, row.create_revision, tag(row.key, row.value, row.revision))
        previous = records.pop(row.key, None)
        if row.deleted:
            kind = EventType.DELETED
        else:
            kind = EventType.UPDATED if row.create_revision != row.revision else EventType.CREATED
            records[row.key] = record
        if row.revision > oldest:
            events.setdefault(row.key[: row.key.find("/")], []).append(Event(kind, row.revision, record, previous))
    return records, events
