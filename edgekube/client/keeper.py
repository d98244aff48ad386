"""When records reach the disk: what matters soon, the rest gathered and seldom, nothing when nothing changed.

Writes one sealed file in a thread. Knows names only and asks for the newest value when it writes, so a record that changes ten times
meanwhile is written once. Promises: an error is told once, tried again every 30 s, and never reaches those who change things.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from edgekube.client.remembered import Weight
from edgekube.lib.sealed import SealedLog

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds between a change and its write, and how much may be kept."""

    soon: float = 0.5
    gather: float = 2.0  # what has time
    later: float = 30.0  # between such writes, in the long run
    burst: int = 4  # so many may follow each other, for a roll-out that is over soon
    retry: float = 30.0
    limit: int = 32 << 20  # bytes of records


class Keeper:
    """`value(name)` is what is to be on disk under a name (None: nothing); `before` is called before each write."""

    def __init__(self, *, file: SealedLog, pace: Pace, value: Callable[[str], bytes | None], before: Callable[[], None]) -> None:
        self._file, self._pace, self._value, self._before = file, pace, value, before
        self._sizes: dict[str, int] = {}  # of records that are, or are about to be, on disk
        self._soon: set[str] = set()
        self._later: set[str] = set()
        self._wake = asyncio.Event()
        self._budget = float("-inf")  # the moment at which all writes of what has time would have been allowed one by one
        self._refused = self._full = False

    def known(self, records: Mapping[str, bytes]) -> None:
        """What the file holds already."""
        self._sizes = {name: len(value) for name, value in records.items()}

    def dirty(self, name: str, weight: Weight) -> None:
        """The record has changed, or is gone."""
        if weight is Weight.SOON:
            self._soon.add(name)
            self._later.discard(name)
        elif weight is Weight.LATER and name not in self._soon:
            self._later.add(name)
        self._wake.set()

    def hurry(self) -> None:
        """Nothing more will be heard for a while: what has time is written soon."""
        self._soon |= self._later
        self._later.clear()
        self._wake.set()

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Write what changes, until cancelled; what waits then is written at once."""
        if ready is not None:
            ready.set()
        try:
            while True:
                await self._wait()
                if not await self.flush(later=asyncio.get_running_loop().time() >= self._later_from()):
                    await asyncio.sleep(self._pace.retry)
        finally:
            self._write_now()

    async def _wait(self) -> None:
        """Until a write is due."""
        loop, due = asyncio.get_running_loop(), float("inf")
        while True:
            self._wake.clear()
            now = loop.time()
            if self._soon:
                due = min(due, now + self._pace.soon)
            elif self._later:
                due = min(due, max(self._later_from(), now + self._pace.gather))
            if now >= due:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None if due == float("inf") else due):
                    await self._wake.wait()

    def _later_from(self) -> float:
        """When what has time may be written again."""
        return self._budget - (self._pace.burst - 1) * self._pace.later

    async def flush(self, *, later: bool = True) -> bool:
        """Write what is dirty; `later`: also what has time. Whether the disk took it."""
        changes, whole = self._gather(later=later)
        if not changes:
            return True
        try:
            await self._in_thread(changes, whole)
        except (OSError, ValueError) as error:
            self._failed(changes, error)
            return False
        if self._refused:
            log.info("the remembered state is written again")
        self._refused = False
        return True

    async def _in_thread(self, changes: Mapping[str, bytes | None], whole: Mapping[str, bytes] | None) -> None:
        """A thread can not be stopped: cancelled, wait for it, so that two never write."""
        writing = asyncio.get_running_loop().run_in_executor(None, self._write, changes, whole)
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})
            raise

    def _failed(self, changes: Mapping[str, bytes | None], error: Exception) -> None:
        self._soon.update(changes)
        if not self._refused:
            why = {"error": str(error)}
            log.warning("the remembered state is not written; after a reboot without the server the node would not know of it", extra=why)
        self._refused = True

    def _gather(self, *, later: bool) -> tuple[dict[str, bytes | None], Mapping[str, bytes] | None]:
        """What to append; or, if the file is mostly history, all that is to be in it."""
        self._before()
        names, self._soon = self._soon, set()
        if later and self._later:
            names, self._later = names | self._later, set()
            self._budget = max(self._budget, asyncio.get_running_loop().time()) + self._pace.later
        changes = dict(self._admitted(names))
        if changes and self._file.mostly_history:
            return changes, {name: value for name in self._sizes if (value := self._value(name)) is not None}
        return changes, None

    def _admitted(self, names: set[str]) -> Iterator[tuple[str, bytes | None]]:
        """Values of the records, as far as there is room."""
        total = sum(self._sizes.values()) if names else 0
        for name in sorted(names):
            value, size = self._value(name), self._sizes.pop(name, None)
            total -= size or 0
            if value is not None and total + len(value) > self._pace.limit:
                self._say_full(total)
                value = None
            if value is not None:
                self._sizes[name] = len(value)
                total += len(value)
            elif size is None:
                continue
            yield name, value

    def _say_full(self, total: int) -> None:
        if not self._full:
            log.warning("there is more to remember than fits; the rest is kept in memory only", extra={"bytes": total})
        self._full = True

    def _write(self, changes: Mapping[str, bytes | None], whole: Mapping[str, bytes] | None) -> None:
        if whole is None:
            self._file.append(changes)
        else:
            self._file.rewrite(whole)

    def _write_now(self) -> None:
        """At the end of the process, which is short: on this thread."""
        if self._refused:
            return
        changes, whole = self._gather(later=True)
        with contextlib.suppress(OSError, ValueError):
            if changes:
                self._write(changes, whole)
