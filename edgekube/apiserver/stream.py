"""Watch fan-out: no queue and no task per watcher.

    store bucket -> Feed: the new entries -> Group (watchers with the same Spec): lines -> each watcher: a cursor into the lines

The pump runs the whole as small steps, at most 50 writes or 2 ms per turn of the loop; at once when things are quiet, every 10 ms when
many watchers hear many events (several events are then one write). Lines are kept only until the slowest watcher has them, and at most
8 MB per group: who falls behind that is told 410 Expired and closed. A watcher that starts in the past first gets a backlog of its own.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence

from edgekube.apiserver.registry import too_old
from edgekube.apiserver.request import Sink
from edgekube.apiserver.watchlines import Entry, Spec, bookmark_line, error_line
from edgekube.lib import metrics
from edgekube.lib.clock import Clock
from edgekube.store.protocol import Event, Store

log = logging.getLogger(__name__)

SLOW = 256 * 1024  # bytes a client has not taken: it is left alone until it has
KEEP_BYTES, KEEP_LINES = 8 * 1024 * 1024, 4000
WRITES_PER_TURN, SECONDS_PER_TURN = 50, 0.002
COALESCE, CROWD = 0.01, 50
RETRY_SLOW = 0.05
BOOKMARK_EVERY = 60.0
PIECE = 64 * 1024

WATCHERS = metrics.gauge("apiserver_longrunning_requests", "Watches that are open now.", ("resource",))
EXPIRED = metrics.counter("apiserver_terminated_watchers_total", "Watchers closed because they were too slow.", ("resource",))


class Watcher:
    """One open watch. `backlog` yields what it must get before the live lines (b"" is a pause)."""

    __slots__ = ("backlog", "closed", "cursor", "group", "sink", "timer")

    def __init__(self, sink: Sink, group: "Group", backlog: Iterator[bytes] | None) -> None:
        self.sink, self.group, self.backlog = sink, group, backlog
        self.cursor = group.head
        self.closed = False
        self.timer: asyncio.TimerHandle | None = None

    def write(self, data: bytes) -> None:
        self.sink.write(data, frame(data))

    def end(self) -> None:
        """End the answer; the front then calls `Hub.leave`."""
        self.sink.close()


class Group:
    """Watchers that see the same lines. `base` is the number of the first line kept."""

    __slots__ = ("base", "feed", "lines", "position", "revision", "size", "spec", "watchers")

    def __init__(self, feed: "Feed", spec: Spec) -> None:
        self.feed, self.spec = feed, spec
        self.lines: deque[tuple[int, bytes]] = deque()
        self.base = self.size = 0
        self.position = feed.head
        self.revision = 0
        self.watchers: dict[Watcher, None] = {}

    @property
    def head(self) -> int:
        return self.base + len(self.lines)

    def add(self, revision: int, line: bytes) -> None:
        self.lines.append((revision, line))
        self.size += len(line)
        while self.size > KEEP_BYTES or len(self.lines) > KEEP_LINES:
            self._drop()

    def _drop(self) -> None:
        self.revision, line = self.lines.popleft()
        self.size -= len(line)
        self.base += 1

    def take(self) -> Iterator[None]:
        """Turn the feed's new entries into lines."""
        feed = self.feed
        while self.position < feed.head:
            if self.position < feed.base:  # cannot happen while the pump trims after all groups took; skip rather than loop
                self.position = feed.base
            entry = feed.entries[self.position - feed.base]
            line = entry.line(self.spec, feed.clock)
            self.position += 1
            if line is not None:
                self.add(entry.event.revision, line)
            yield

    def between(self, cursor: int, head: int) -> bytes:
        if head - cursor == 1:
            return self.lines[cursor - self.base][1]
        return b"".join([self.lines[index][1] for index in range(cursor - self.base, head - self.base)])

    def trim(self) -> None:
        """Forget the lines that everybody has."""
        low = min((watcher.cursor for watcher in self.watchers), default=self.head)
        while self.base < low and self.lines:
            self._drop()


class Feed:
    """The new events of one bucket, until every group has taken them."""

    def __init__(self, hub: "Hub", bucket: str) -> None:
        self.hub, self.bucket, self.clock = hub, bucket, hub.clock
        self.entries: deque[Entry] = deque()
        self.base = 0
        self.groups: dict[Spec, Group] = {}
        self.stop = hub.store.subscribe(bucket, self._changed)

    @property
    def head(self) -> int:
        return self.base + len(self.entries)

    @property
    def crowd(self) -> int:
        return sum(len(group.watchers) for group in self.groups.values())

    def _changed(self, events: Sequence[Event]) -> None:
        self.entries.extend(Entry(event) for event in events)
        self.hub.wake(self)

    def trim(self) -> None:
        low = min((group.position for group in self.groups.values()), default=self.head)
        while self.base < low and self.entries:
            self.entries.popleft()
            self.base += 1


class Hub:
    """All feeds and the pump. Belongs to the event loop."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self._feeds: dict[str, Feed] = {}
        self._dirty: dict[Feed, None] = {}
        self._run: Iterator[None] | None = None
        self._handle: asyncio.Handle | None = None
        self._bookmarks: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._ended = 0.0
        self._slow: set[Watcher] = set()

    def join(self, spec: Spec, sink: Sink, backlog: Iterator[bytes] | None, timeout: float) -> Watcher:
        """Let `sink` see everything after the store's present revision, after `backlog`."""
        feed = self._feeds.get(spec.kind.bucket)
        if feed is None:
            feed = self._feeds[spec.kind.bucket] = Feed(self, spec.kind.bucket)
        group = feed.groups.get(spec)
        if group is None:
            group = feed.groups[spec] = Group(feed, spec)
        for _ in group.take():  # what is already committed is in the backlog
            pass
        watcher = Watcher(sink, group, backlog)
        group.watchers[watcher] = None
        loop = asyncio.get_running_loop()
        watcher.timer = loop.call_later(timeout, self._time_out, watcher)
        if self._bookmarks is None:
            self._bookmarks = loop.call_later(BOOKMARK_EVERY, self._bookmark)
        WATCHERS.labels(spec.kind.plural).inc()
        self.wake(feed)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """The client is gone, or has been answered in full. Idempotent."""
        if watcher.closed:
            return
        watcher.closed = True
        if watcher.timer is not None:
            watcher.timer.cancel()
        self._slow.discard(watcher)
        group = watcher.group
        WATCHERS.labels(group.spec.kind.plural).dec()
        del group.watchers[watcher]
        if not group.watchers:
            del group.feed.groups[group.spec]
        if not group.feed.groups:
            group.feed.stop()
            del self._feeds[group.feed.bucket]
            self._dirty.pop(group.feed, None)
        if not self._feeds and self._bookmarks is not None:
            self._bookmarks.cancel()
            self._bookmarks = None

    def close(self) -> None:
        """End every watch."""
        for feed in list(self._feeds.values()):
            for group in list(feed.groups.values()):
                for watcher in list(group.watchers):
                    watcher.end()

    def wake(self, feed: Feed) -> None:
        """`feed` has something to send."""
        self._dirty[feed] = None
        if self._handle is not None or self._run is not None:
            return
        loop = asyncio.get_running_loop()
        wait = self._ended + COALESCE - loop.time()
        if wait > 0 and feed.crowd > CROWD:
            self._handle = loop.call_later(wait, self._turn)
        else:
            self._handle = loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._handle = None
        if self._run is None:
            self._run = self._steps()
        deadline = time.perf_counter() + SECONDS_PER_TURN
        for count, _ in enumerate(self._run, start=1):
            if count >= WRITES_PER_TURN or (count % 8 == 0 and time.perf_counter() > deadline):
                self._handle = asyncio.get_running_loop().call_soon(self._turn)
                return
        self._run = None
        loop = asyncio.get_running_loop()
        self._ended = loop.time()
        if self._dirty:
            self.wake(next(iter(self._dirty)))
        if self._slow and self._patience is None:
            self._patience = loop.call_later(RETRY_SLOW, self._retry)

    def _retry(self) -> None:
        self._patience = None
        for watcher in self._slow:
            self._dirty[watcher.group.feed] = None
        self._slow.clear()
        if self._dirty:
            self.wake(next(iter(self._dirty)))

    def _steps(self) -> Iterator[None]:
        while self._dirty:
            feed = next(iter(self._dirty))
            del self._dirty[feed]
            for group in list(feed.groups.values()):
                try:
                    yield from group.take()
                    yield from self._flush(group)
                except Exception:
                    log.exception("watch failed", extra={"kind": group.spec.kind.kind})
                    self._give_up(group)
                group.trim()
            feed.trim()

    def _give_up(self, group: Group) -> None:
        """An object that cannot be shown ends the watches that would show it: they come back and list."""
        group.position = group.feed.head
        for watcher in list(group.watchers):
            watcher.end()

    def _flush(self, group: Group) -> Iterator[None]:
        joined: dict[int, tuple[bytes, bytes]] = {}
        head = group.head
        for watcher in list(group.watchers):
            if watcher.closed:
                continue
            if watcher.backlog is not None:
                yield from self._catch_up(watcher)
            if watcher.backlog is not None or watcher.cursor >= head or watcher.closed:
                continue
            if watcher.cursor < group.base:
                self._expire(watcher)
            elif watcher.sink.buffered() > SLOW:
                self._slow.add(watcher)
            else:
                pair = joined.get(watcher.cursor)
                if pair is None:
                    data = group.between(watcher.cursor, head)
                    pair = joined[watcher.cursor] = (data, frame(data))
                watcher.sink.write(*pair)
                watcher.cursor = head
            yield

    def _catch_up(self, watcher: Watcher) -> Iterator[None]:
        backlog = watcher.backlog
        while backlog is not None and not watcher.closed:
            if watcher.sink.buffered() > SLOW:
                self._slow.add(watcher)
                return
            piece = next(backlog, None)
            if piece is None:
                watcher.backlog = None
                return
            if piece:
                watcher.write(piece)
            yield

    def _expire(self, watcher: Watcher) -> None:
        group = watcher.group
        EXPIRED.labels(group.spec.kind.plural).inc()
        watcher.write(error_line(group.spec.output, too_old(group.revision, group.revision + 1)))
        watcher.end()

    def _time_out(self, watcher: Watcher) -> None:
        if not watcher.closed:
            watcher.end()

    def _bookmark(self) -> None:
        self._bookmarks = asyncio.get_running_loop().call_later(BOOKMARK_EVERY, self._bookmark)
        revision = self.store.revision
        for feed in self._feeds.values():
            for group in feed.groups.values():
                if group.spec.bookmarks:
                    for _ in group.take():
                        pass
                    group.add(revision, bookmark_line(group.spec, revision))
            self.wake(feed)


def frame(data: bytes) -> bytes:
    """As one HTTP/1.1 chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Join lines to pieces of about 64 KB; an empty line is a pause and is passed on."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        if not line:
            yield b""
            continue
        held.append(line)
        size += len(line)
        if size >= PIECE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
