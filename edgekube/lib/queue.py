"""A work queue of keys: one worker per key at a time, repeated adds coalesce, nothing is lost.

Three sets carry the promise (as client-go's workqueue): `dirty` (wants work), `processing` (a worker has it) and the order.
A key added while processed becomes dirty and is queued again when its worker is done.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys to work on, now or later. Not thread-safe: one event loop."""

    def __init__(self) -> None:
        self._order: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._count = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Keys that wait for a worker now (the delayed ones not counted)."""
        return len(self._order)

    def add(self, key: K) -> None:
        """Work on `key` as soon as a worker is free."""
        self._due.pop(key, None)
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Work on `key` in `seconds`; an earlier time already set stays."""
        if seconds <= 0:
            self.add(key)
            return
        due = asyncio.get_running_loop().time() + seconds
        if self._due.get(key, due + 1) <= due or key in self._dirty:
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, next(self._count), key))
        self._arm()

    async def get(self) -> K:
        """The next key; the caller must call `done` with it."""
        while not self._order:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
        key = self._order.popleft()
        self._processing.add(key)
        self._dirty.discard(key)
        return key

    def done(self, key: K) -> None:
        """The worker has finished with `key`; if it became dirty meanwhile it is queued again."""
        self._processing.discard(key)
        if key in self._dirty:
            self._push(key)

    def _push(self, key: K) -> None:
        self._order.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(self._later[0][0], self._fire) if self._later else None

    def _fire(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                self.add(key)
        self._timer = None
        self._arm()
