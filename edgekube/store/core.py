"""The life of a write, shared by both backends: checked, given a revision, queued, committed, published in revision order.

    submit: compare against the newest version, in flight ones included -> revision -> encode -> queue
    idle:   nothing durable in flight: an ephemeral write is published at once, with no crossing to a thread
    batch:  the queue's durable writes (at most MAX_BATCH) go to `_commit` as one transaction, one batch at a time
    done:   published in order, callers answered; failed: its durable writes, and queued writes that build on them, raise
            StoreUnavailable, nothing of them becomes visible, their revisions are burned

`_overlay` knows the newest in-flight version of each key (a tombstone is None), so that compare-and-swap never waits for the disk.
A caller that is cancelled does not take its write back: the write, not the request, owns the event.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from edgekube.lib import failpoint
from edgekube.store.protocol import Encode, Event, EventType, Image, KeyExists, KeyMissing, Record, RevisionMismatch, StoreUnavailable
from edgekube.store.state import Notify, State

MAX_BATCH = 500


class Write:
    """One event on its way. `durable`: it must reach the disk before anybody sees it."""

    __slots__ = ("done", "durable", "event", "key")

    def __init__(self, event: Event, durable: bool) -> None:
        self.key = event.record.key
        self.event = event
        self.durable = durable
        self.done: asyncio.Future[Record] | None = None


class _InFlight:
    """The newest version of a key that is not published yet; `write` is the one that made it."""

    __slots__ = ("reached", "record", "write")

    def __init__(self, record: Record | None, reached: bool, write: Write) -> None:
        self.record, self.reached, self.write = record, reached, write


class CoreStore(ABC):
    """The Store protocol over a State; a backend says how a batch is committed."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._assigned = state.revision
        self._queue: deque[Write] = deque()
        self._overlay: dict[str, _InFlight] = {}
        self._on_disk: set[str] = set()  # keys that have a row; their deletion must be durable
        self._unsaved: set[str] = set()  # keys whose newest version is only in memory
        self._durable = state.revision  # newest published revision that is on the disk
        self._busy = False
        self._closing = False

    # reading ----------------------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        return self._state.revision

    def get(self, key: str) -> Record | None:
        return self._state.records.get(key)

    def latest(self, key: str) -> Record | None:
        flying = self._overlay.get(key)
        return flying.record if flying is not None else self._state.records.get(key)

    def range(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> tuple[Sequence[Record], int]:
        return self._state.range(prefix, after, limit, revision)

    def count(self, bucket: str) -> int:
        return self._state.count(bucket)

    def buckets(self) -> Sequence[str]:
        return self._state.buckets()

    def since(self, bucket: str, revision: int) -> Sequence[Event]:
        return self._state.since(bucket, revision)

    def oldest(self, bucket: str) -> int:
        return self._state.oldest(bucket)

    def subscribe(self, bucket: str, notify: Notify) -> Callable[[], None]:
        return self._state.subscribe(bucket, notify)

    def everything(self) -> Image:
        return Image(self._state.revision, self._durable, list(self._state.records.values()))

    # writing ----------------------------------------------------------------------------------------------------------

    async def create(self, key: str, encode: Encode, *, durable: bool = True) -> Record:
        self._check_open()
        current = self.latest(key)
        if current is not None:
            raise KeyExists(key, current)
        revision = self._assigned + 1
        value, tag = encode(revision)
        record = Record(key, value, revision, revision, tag)
        return await self._submit(Event(EventType.CREATED, revision, record, None), durable)

    async def update(self, key: str, expected: int, encode: Encode, *, durable: bool = True) -> Record:
        current = self._expect(key, expected)
        revision = self._assigned + 1
        value, tag = encode(revision)
        record = Record(key, value, revision, current.create_revision, tag)
        return await self._submit(Event(EventType.UPDATED, revision, record, current), durable)

    async def delete(self, key: str, expected: int, encode: Encode) -> Record:
        current = self._expect(key, expected)
        revision = self._assigned + 1
        value, tag = encode(revision)
        record = Record(key, value, revision, current.create_revision, tag)
        flying = self._overlay.get(key)
        reached = flying.reached if flying is not None else key in self._on_disk
        return await self._submit(Event(EventType.DELETED, revision, record, current), reached)

    def _check_open(self) -> None:
        if self._closing:
            raise StoreUnavailable("the store is closed")

    def _expect(self, key: str, expected: int) -> Record:
        self._check_open()
        current = self.latest(key)
        if current is None:
            raise KeyMissing(key)
        if current.revision != expected:
            raise RevisionMismatch(key, current)
        return current

    async def _submit(self, event: Event, durable: bool) -> Record:
        self._assigned = event.revision
        write = Write(event, durable)
        self._before(write)
        if not durable and not self._busy and not self._queue:
            if not self._safe(write):
                raise StoreUnavailable("the disk does not take writes: no revision can be promised")
            self._publish([write])
            return event.record
        done: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        write.done = done
        key = write.key
        flying = self._overlay.get(key)
        deleted = event.type is EventType.DELETED
        reached = not deleted and (durable or (flying.reached if flying is not None else key in self._on_disk))
        self._overlay[key] = _InFlight(None if deleted else event.record, reached, write)
        self._queue.append(write)
        failpoint.hit("store.commit.queued")
        self._kick()
        record: Record = await done
        return record

    # what a backend adds ----------------------------------------------------------------------------------------------

    @abstractmethod
    def _before(self, write: Write) -> None:
        """Called with every write that has just got its revision, before it is queued."""

    @abstractmethod
    def _safe(self, write: Write) -> bool:
        """Whether a crash right after publishing this ephemeral write would leave no false history behind."""

    @abstractmethod
    def _kick(self) -> None:
        """Something was queued: see to it that `_take`, a commit and `_finish` or `_fail` follow soon."""

    @abstractmethod
    async def close(self) -> None: ...

    # for backends -----------------------------------------------------------------------------------------------------

    def _take(self) -> list[Write]:
        """The next batch. The ephemeral writes among it travel along to keep their place."""
        batch: list[Write] = []
        durable = 0
        while self._queue and durable < MAX_BATCH:
            write = self._queue.popleft()
            durable += write.durable
            batch.append(write)
        return batch

    def _finish(self, batch: Sequence[Write]) -> None:
        """`batch` is committed: publish it and answer its callers."""
        self._publish(batch)
        failpoint.hit("store.commit.published")

    def _fail(self, batch: Sequence[Write], why: str) -> None:
        """`batch` was rolled back: refuse its durable writes and all queued ones that build on them; the rest goes on."""
        failed: set[str] = set()
        spared: list[Write] = []
        for write in batch:
            if write.durable or write.key in failed or not self._safe(write):
                failed.add(write.key)
                self._refuse(write, StoreUnavailable(why))
            else:
                spared.append(write)
        rest: list[Write] = []
        for write in self._queue:
            if write.key in failed:
                self._refuse(write, StoreUnavailable(why))
            else:
                rest.append(write)
        self._queue = deque(rest)
        self._finish(spared)

    def _refuse(self, write: Write, error: Exception) -> None:
        self._settle(write)
        if write.done is not None and not write.done.done():
            write.done.set_exception(error)

    def _settle(self, write: Write) -> None:
        flying = self._overlay.get(write.key)
        if flying is not None and flying.write is write:
            del self._overlay[write.key]

    def _publish(self, writes: Sequence[Write]) -> None:
        for write in writes:
            key = write.key
            if write.event.type is EventType.DELETED:
                self._on_disk.discard(key)
                self._unsaved.discard(key)
            elif write.durable:
                self._on_disk.add(key)
                self._unsaved.discard(key)
            else:
                self._unsaved.add(key)
            if write.durable:
                self._durable = write.event.revision
            self._settle(write)
            if write.done is not None and not write.done.done():
                write.done.set_result(write.event.record)
        self._state.apply([write.event for write in writes])


def tag_nothing(_key: str, _value: bytes, _revision: int) -> Any:
    """The tagger of a store whose caller keeps no tags."""
    return None
