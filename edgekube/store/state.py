"""What is committed, in memory: the newest record of every key, sorted keys per bucket, and a bounded ring of events per bucket.

Both backends share it. `apply` takes writes in revision order and only after their commit; reads never wait. The ring serves watches
(`since`) and older snapshots (`range` at a revision undoes the events after it); it is bounded by count and by bytes, since it pins
old values.
"""

import logging
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from edgekube.store.protocol import Compacted, Event, EventType, FutureRevision, Record

log = logging.getLogger(__name__)

RING_BYTES = 8 * 1024 * 1024
_AFTER_ALL = "\U0010ffff"

Notify = Callable[[Sequence[Event]], None]


class Bucket:
    """The keys, history and subscribers of one bucket."""

    __slots__ = ("_bytes", "_limit", "keys", "oldest", "ring", "subscribers")

    def __init__(self, oldest: int, limit: int) -> None:
        self.keys: list[str] = []
        self.ring: deque[Event] = deque()
        self.oldest = oldest
        self.subscribers: list[Notify] = []
        self._bytes = 0
        self._limit = limit

    def add(self, event: Event) -> None:
        """Append to the history, dropping what no longer fits."""
        ring = self.ring
        ring.append(event)
        self._bytes += len(event.record.value)
        while len(ring) > self._limit or (self._bytes > RING_BYTES and len(ring) > 1):
            gone = ring.popleft()
            self._bytes -= len(gone.record.value)
            self.oldest = gone.revision

    def after(self, revision: int) -> list[Event]:
        """Events after `revision`, oldest first; looks only at those."""
        found: list[Event] = []
        for event in reversed(self.ring):
            if event.revision <= revision:
                break
            found.append(event)
        found.reverse()
        return found


class State:
    """The committed content of a store. `floor` is the revision before which nothing is remembered."""

    def __init__(self, *, history: int, revision: int, floor: int) -> None:
        self._history = history
        self._floor = floor
        self._buckets: dict[str, Bucket] = {}
        self.records: dict[str, Record] = {}
        self.revision = revision

    def load(self, records: Iterable[Record]) -> None:
        """Take the content of a database that was just opened."""
        for record in records:
            self.records[record.key] = record
        for key in sorted(self.records):
            self.bucket(key).keys.append(key)

    def resume(self, bucket: str, events: Iterable[Event], oldest: int) -> None:
        """Take the history of a bucket that outlived a restart; `oldest` is what `since` accepts."""
        home = self._bucket(bucket)
        home.oldest = oldest
        for event in events:
            home.add(event)

    def bucket(self, key: str) -> Bucket:
        """The bucket of a key or prefix, made at first use."""
        return self._bucket(key[: key.find("/")] if "/" in key else key)

    def _bucket(self, name: str) -> Bucket:
        found = self._buckets.get(name)
        if found is None:
            found = self._buckets[name] = Bucket(self._floor, self._history)
        return found

    def apply(self, events: Sequence[Event]) -> None:
        """Make `events` (in revision order) visible, then hand them to subscribers.

        All records change before the first subscriber hears of one, and `revision` already includes the batch then.
        """
        touched: dict[str, list[Event]] = {}
        for event in events:
            key = event.record.key
            home = self.bucket(key)
            if event.type is EventType.DELETED:
                del self.records[key]
                del home.keys[bisect_left(home.keys, key)]
            else:
                self.records[key] = event.record
                if event.type is EventType.CREATED:
                    insort(home.keys, key)
            home.add(event)
            if home.subscribers:
                touched.setdefault(key[: key.find("/")], []).append(event)
        if events:
            self.revision = events[-1].revision
        if touched:
            self._tell(touched)

    def _tell(self, touched: dict[str, list[Event]]) -> None:
        for name, batch in touched.items():
            for notify in self._buckets[name].subscribers:
                try:
                    notify(batch)
                except Exception:  # a subscriber's fault must not keep the others, or the next commit, from going on
                    log.exception("store subscriber failed", extra={"bucket": name})

    def range(self, prefix: str, after: str, limit: int, revision: int) -> tuple[Sequence[Record], int]:
        home = self.bucket(prefix)
        if revision and revision != self.revision:
            self._check(home, revision)
            changed = home.after(revision)
            if changed:
                return self._range_before(home, changed, prefix, after, limit)
        start = bisect_right(home.keys, after) if after > prefix else bisect_left(home.keys, prefix)
        stop = bisect_left(home.keys, prefix + _AFTER_ALL, lo=start)
        end = min(stop, start + limit) if limit else stop
        records = self.records
        return [records[key] for key in home.keys[start:end]], stop - end

    def _range_before(self, home: Bucket, changed: Sequence[Event], prefix: str, after: str, limit: int) -> tuple[Sequence[Record], int]:
        before: dict[str, Record | None] = {}
        for event in changed:  # the first change of a key after the revision knows what was there
            before.setdefault(event.record.key, event.previous)
        found = {key: self.records[key] for key in home.keys if key not in before and key > after and key.startswith(prefix)}
        found |= {key: old for key, old in before.items() if old is not None and key > after and key.startswith(prefix)}
        keys = sorted(found)
        wanted = keys[:limit] if limit else keys
        return [found[key] for key in wanted], len(keys) - len(wanted)

    def since(self, bucket: str, revision: int) -> Sequence[Event]:
        home = self._bucket(bucket)
        self._check(home, revision)
        return home.after(revision)

    def _check(self, home: Bucket, revision: int) -> None:
        if revision > self.revision:
            raise FutureRevision(revision, self.revision)
        if revision < home.oldest:
            raise Compacted(revision, home.oldest)

    def oldest(self, bucket: str) -> int:
        return self._bucket(bucket).oldest

    def count(self, bucket: str) -> int:
        return len(self._bucket(bucket).keys)

    def buckets(self) -> Sequence[str]:
        return sorted(name for name, home in self._buckets.items() if home.keys)

    def subscribe(self, bucket: str, notify: Notify) -> Callable[[], None]:
        home = self._bucket(bucket)
        home.subscribers = [*home.subscribers, notify]  # replaced, never changed: a batch being told goes on undisturbed

        def unsubscribe() -> None:
            home.subscribers = [other for other in home.subscribers if other is not notify]

        return unsubscribe
