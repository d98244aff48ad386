"""Pods that wait for a node, and when each is tried again.

    add ----------------> active <----------------- backoff (1 s doubling to 10 s) <--- error
                            | pop                      ^
                            v                          | a change that one of its rejecters waits for, or 5 minutes
                        (one cycle) -- rejected --> unschedulable
    gated: has scheduling gates; waits for its own update

Active pods leave by priority, then by age. When none is active, a pod that waits only for its back-off is tried at once (upstream's
SchedulerPopFromBackoffQ); one that met an error sits its back-off out. Time is `clock.monotonic()`; timers are the loop's.
"""

import asyncio
import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from edgekube.lib.clock import Clock
from edgekube.lib.metrics import counter, gauge
from edgekube.scheduler.snapshot import PodInfo

FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 10.0
UNSCHEDULABLE_SECONDS = 300.0

PENDING = gauge("scheduler_pending_pods", "Pods that wait for a node, by queue.", ("queue",))
INCOMING = counter("scheduler_queue_incoming_pods_total", "Pods added to a scheduling queue, by cause.", ("queue", "event"))


class Place(Enum):
    ACTIVE = "active"
    BACKOFF = "backoff"
    UNSCHEDULABLE = "unschedulable"
    GATED = "gated"


for _place in Place:
    PENDING.labels(_place.value).set(0)


@dataclass(slots=True, eq=False)
class Waiting:
    """A pod in the queue, or in its cycle."""

    pod: PodInfo
    added: float  # when it came into the queue it is in
    first: float  # when it was first seen
    attempts: int = 0
    failed: float = 0.0
    rejecters: frozenset[str] = frozenset()
    error: bool = False
    place: Place | None = None
    ticket: int = 0  # the newest heap entry of this pod; older ones are void

    @property
    def ready_at(self) -> float:
        """When its back-off ends."""
        if not self.attempts:
            return 0.0
        return self.failed + min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(self.attempts - 1, 10))


class SchedulingQueue:
    """`wakes` says which plugins wait for a change. Belongs to the loop."""

    def __init__(self, clock: Clock, wakes: Mapping[str, frozenset[str]]) -> None:
        self._clock, self._wakes = clock, wakes
        self._entries: dict[str, Waiting] = {}
        self._active: list[tuple[int, float, int, Waiting]] = []
        self._backoff: list[tuple[float, int, Waiting]] = []
        self._unschedulable: dict[str, Waiting] = {}
        self._counter = itertools.count(1)
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def place_of(self, uid: str) -> Place | None:
        entry = self._entries.get(uid)
        return None if entry is None else entry.place

    def add(self, pod: PodInfo) -> None:
        """A pod that was not there before."""
        now = self._clock.monotonic()
        entry = Waiting(pod, now, now)
        self._entries[pod.uid] = entry
        self._move(entry, Place.GATED if pod.gates else Place.ACTIVE, "UnscheduledPodAdd")

    def update(self, pod: PodInfo, *, relevant: bool) -> bool:
        """Another version of a pod. `relevant`: something changed that decides where it can go. False: it is not in the queue."""
        entry = self._entries.get(pod.uid)
        if entry is None:
            return False
        old, entry.pod = entry.pod, pod
        if entry.place is Place.GATED and not pod.gates:
            self._move(entry, Place.ACTIVE, "UnscheduledPodUpdate")
        elif entry.place is Place.UNSCHEDULABLE and relevant:
            self._wake_up(entry, "UnscheduledPodUpdate")
        elif entry.place is Place.ACTIVE and old.priority != pod.priority:
            self._move(entry, Place.ACTIVE, "UnscheduledPodUpdate")
        return True

    def remove(self, uid: str) -> None:
        """The pod is gone or placed."""
        entry = self._entries.pop(uid, None)
        if entry is not None:
            self._leave(entry)

    def on_change(self, change: str) -> None:
        """Something happened in the cluster: pods rejected by a plugin that waits for it are tried again."""
        waiting_for = self._wakes.get(change, frozenset())
        if not self._unschedulable or not waiting_for:
            return
        for entry in [entry for entry in self._unschedulable.values() if entry.rejecters & waiting_for or not entry.rejecters]:
            self._wake_up(entry, change)

    def reject(self, entry: Waiting, rejecters: frozenset[str]) -> None:
        """No node will do: wait until something changes that could matter to `rejecters`."""
        self._failed(entry, rejecters, error=False)
        self._move(entry, Place.UNSCHEDULABLE, "ScheduleAttemptFailure")

    def retry(self, entry: Waiting) -> None:
        """The attempt itself failed: again after the back-off."""
        self._failed(entry, frozenset(), error=True)
        self._move(entry, Place.BACKOFF, "ScheduleAttemptFailure")

    def _failed(self, entry: Waiting, rejecters: frozenset[str], *, error: bool) -> None:
        entry.rejecters, entry.error, entry.failed = rejecters, error, self._clock.monotonic()
        self._entries[entry.pod.uid] = entry

    def pop_now(self) -> Waiting | None:
        """The next pod to try, or None. It is out of the queue then."""
        self._flush()
        entry = self._next_active() or self._next_backoff()
        if entry is not None:
            self._leave(entry)
            del self._entries[entry.pod.uid]
            entry.attempts += 1
        return entry

    async def pop(self) -> Waiting:
        """The next pod to try, as soon as there is one."""
        while True:
            entry = self.pop_now()
            if entry is not None:
                return entry
            self._wake.clear()
            due = self._due()
            try:
                async with asyncio.timeout(None if due is None else max(0.01, due - self._clock.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _next_active(self) -> Waiting | None:
        while self._active:
            _, _, ticket, entry = heapq.heappop(self._active)
            if entry.ticket == ticket and entry.place is Place.ACTIVE:
                return entry
        return None

    def _next_backoff(self) -> Waiting | None:
        """The pod whose back-off ends first, of those that met no error."""
        held: list[tuple[float, int, Waiting]] = []
        found = None
        while self._backoff and found is None:
            at, ticket, entry = heapq.heappop(self._backoff)
            if entry.ticket != ticket or entry.place is not Place.BACKOFF:
                continue
            if entry.error:
                held.append((at, ticket, entry))
            else:
                found = entry
        for item in held:
            heapq.heappush(self._backoff, item)
        return found

    def _flush(self) -> None:
        """Move what is due: ended back-offs, and pods nobody has woken for long."""
        now = self._clock.monotonic()
        while self._backoff and self._backoff[0][0] <= now:
            _, ticket, entry = heapq.heappop(self._backoff)
            if entry.ticket == ticket and entry.place is Place.BACKOFF:
                self._move(entry, Place.ACTIVE, "BackoffComplete")
        for entry in list(self._unschedulable.values()):
            if entry.added + UNSCHEDULABLE_SECONDS > now:
                break  # they are in the order they came
            self._wake_up(entry, "UnschedulableTimeout")

    def _due(self) -> float | None:
        times = [self._backoff[0][0]] if self._backoff else []
        oldest = next(iter(self._unschedulable.values()), None)
        if oldest is not None:
            times.append(oldest.added + UNSCHEDULABLE_SECONDS)
        return min(times, default=None)

    def _wake_up(self, entry: Waiting, cause: str) -> None:
        ready = entry.ready_at <= self._clock.monotonic()
        self._move(entry, Place.ACTIVE if ready else Place.BACKOFF, cause)

    def _move(self, entry: Waiting, place: Place, cause: str) -> None:
        self._leave(entry)
        entry.place, entry.ticket, entry.added = place, next(self._counter), self._clock.monotonic()
        PENDING.labels(place.value).inc()
        INCOMING.labels(place.value, cause).inc()
        if place is Place.ACTIVE:
            heapq.heappush(self._active, (-entry.pod.priority, entry.first, entry.ticket, entry))
        elif place is Place.BACKOFF:
            heapq.heappush(self._backoff, (entry.ready_at, entry.ticket, entry))
        elif place is Place.UNSCHEDULABLE:
            self._unschedulable[entry.pod.uid] = entry
        self._wake.set()

    def _leave(self, entry: Waiting) -> None:
        if entry.place is not None:
            PENDING.labels(entry.place.value).dec()
            self._unschedulable.pop(entry.pod.uid, None)
            entry.place = None
