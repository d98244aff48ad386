"""Time as a dependency: components take a `Clock` and never ask the system themselves, so tests can hold or move it.

Wall time (`now`) is for what people and certificates read; every lease, probe, back-off and timer uses `monotonic`,
because the hosts we run on have no battery behind their clock and wall time jumps. A promise to be dead by a certain moment is kept on
`boottime`, which goes on while the machine sleeps. See lib.timefloor for the clock that a process really runs with.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from edgekube.lib.eras import Eras

BUILD_DATE = datetime(2026, 1, 1, tzinfo=UTC)  # no correct clock shows an earlier time


class Clock(Protocol):
    """Where a component gets its time from."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""

    def boottime(self) -> float:
        """The same, and time that the machine sleeps counts too."""

    def age(self, moment: datetime, *, foreign: bool = False) -> float:
        """Seconds since `moment`, a time that `now` gave out; jumps of the clock since then do not count. Below zero: it lies ahead.
        `foreign`: another program of this machine took it from the system clock."""

    def span(self) -> tuple[datetime, datetime]:
        """The earliest and the latest time that it may be: they differ while a jump of the clock is not believed yet. What ends at a
        certain date has ended only if both say so."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def age(self, moment: datetime, *, foreign: bool = False) -> float:
        return (self.now() - moment).total_seconds()

    def span(self) -> tuple[datetime, datetime]:
        now = self.now()
        return now, now


class FakeClock:
    """A clock that moves only when told to; wall and monotonic time can be moved apart."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._monotonic = 1000.0
        self._asleep = 0.0
        self._eras = Eras()
        self._note()

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def boottime(self) -> float:
        return self._monotonic + self._asleep

    def age(self, moment: datetime, *, foreign: bool = False) -> float:
        return self._eras.age(moment.timestamp(), self.boottime())

    def span(self) -> tuple[datetime, datetime]:
        return self._now, self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as NTP does; no time passes."""
        self._now += timedelta(seconds=seconds)
        self._note()

    def sleep(self, seconds: float) -> None:
        """The machine is suspended for so long: only `monotonic` stands still."""
        self._asleep += seconds
        self._now += timedelta(seconds=seconds)

    def _note(self) -> None:
        self._eras.note(self._now.timestamp(), self.boottime())


def rfc3339(moment: datetime) -> str:
    """`metav1.Time` as the API writes it: whole seconds, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(moment: datetime) -> str:
    """`metav1.MicroTime` as the API writes it (Lease and Event times)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> datetime:
    """Either form back to an aware datetime. Raises ValueError on anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    return moment.astimezone(UTC)
