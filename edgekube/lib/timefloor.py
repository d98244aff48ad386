"""The clock a process runs with: the system's, but never below the newest time this machine has known.

    now   = max(system clock, floor + time passed since the floor was learnt)
    age   = what really passed since a moment: see lib.eras
    span  = what it may be: now, and what the clock would say without the jumps of the last hour
    floor = max(build date, <data-dir>/time-floor, times that a trusted server told)

A box without a battery boots in 1970 or at the time of its last file system check; certificates and tokens must not die of it, and nothing
may be written into the past. The floor follows the system clock only after that has run steadily for an hour (SETTLED_SECONDS), so that a
short glitch years ahead is forgotten when it ends; the file is written then, every six hours after, at the end, and at once when a server
tells of a time more than a day ahead. Reads and writes that file, nothing else. See app.timekeeper for who calls `believe`.
"""

import contextlib
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgekube.lib.clock import BUILD_DATE, Clock, SystemClock, parse_rfc3339, rfc3339
from edgekube.lib.eras import Eras
from edgekube.lib.files import write_atomic

log = logging.getLogger(__name__)

FILE = "time-floor"
SETTLED_SECONDS = 3600.0
SAVE_SECONDS = 6 * 3600.0
_FAR_AHEAD = timedelta(days=1)


class FlooredClock:
    """Satisfies clock.Clock. `path` may be missing (a first start) or unreadable (then it counts as missing)."""

    def __init__(self, path: Path, *, system: Clock | None = None) -> None:
        self._path, self.system = path, system or SystemClock()
        self._ours, self._foreign = Eras(), Eras()
        self._saved = _read(path)
        self._floor, self._learnt = max(BUILD_DATE, self._saved or BUILD_DATE), self.system.boottime()
        self.behind = self._floor - self.system.now()  # above zero: the machine woke up in the past
        if self.behind > timedelta(0):
            extra = {"system": rfc3339(self.system.now()), "newest": rfc3339(self._floor), "file": str(path)}
            log.warning("system clock is behind the newest time known; going on from that", extra=extra)
        self._steady = self.now().timestamp() - self.system.boottime()  # wall less boot time, as last believed

    def now(self) -> datetime:
        system, boot = self.system.now(), self.system.boottime()
        found = max(system, self._floor + timedelta(seconds=boot - self._learnt))
        self._foreign.note(system.timestamp(), boot)
        self._ours.note(found.timestamp(), boot)
        return found

    def monotonic(self) -> float:
        return self.system.monotonic()

    def boottime(self) -> float:
        return self.system.boottime()

    def age(self, moment: datetime, *, foreign: bool = False) -> float:
        self.now()  # a jump that nobody has noticed yet
        return (self._foreign if foreign else self._ours).age(moment.timestamp(), self.system.boottime())

    def span(self) -> tuple[datetime, datetime]:
        now, steady = self.now(), datetime.fromtimestamp(self.system.boottime() + self._steady, UTC)
        return min(now, steady), max(now, steady)

    @property
    def jumps(self) -> int:
        """How often wall time has jumped since the start, as far as anybody looked."""
        return self._ours.jumps

    @property
    def last_jump(self) -> float:
        """By how many seconds it jumped the last time."""
        return self._ours.last_jump

    def raise_floor(self, moment: datetime) -> None:
        """A time that somebody trustworthy told: it is at least that late."""
        if moment <= self.now():
            return
        self._floor, self._learnt = moment, self.system.boottime()
        self._steady = moment.timestamp() - self._learnt
        if self._saved is None or moment - self._saved > _FAR_AHEAD:
            self._save(moment)

    def believe(self) -> None:
        """The system clock has shown to be steady: what it says now is the floor, also after a restart."""
        now = self.now()
        self._floor, self._learnt = now, self.system.boottime()
        self._steady = now.timestamp() - self._learnt
        self._save(now)

    def keep(self) -> None:
        """Before the process ends: the floor as far as it is believed survives."""
        self._save(self._line())

    def _line(self) -> datetime:
        return self._floor + timedelta(seconds=self.system.boottime() - self._learnt)

    def _save(self, moment: datetime) -> None:
        if self._saved is not None and moment <= self._saved:
            return
        with contextlib.suppress(OSError):  # a full disk: the next time
            write_atomic(self._path, rfc3339(moment).encode() + b"\n", mode=0o600)
            self._saved = moment


def floor_file(data_dir: Path) -> Path:
    """Where an installation keeps it."""
    return data_dir / FILE


def _read(path: Path) -> datetime | None:
    try:
        return parse_rfc3339(path.read_text().strip()).astimezone(UTC)
    except (OSError, ValueError):
        return None
