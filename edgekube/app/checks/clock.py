"""Is the time plausible, and does anybody set it?

A cluster works with a wrong clock (lib/timefloor.py), but its log and the world outside do not.
"""

import ctypes
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from edgekube.app.checks.finding import Finding
from edgekube.config import Settings
from edgekube.lib.clock import BUILD_DATE, rfc3339

_UNSYNCHRONISED = 0x40  # STA_UNSYNC of adjtimex(2)
_SETS_IT = "install one that sets it: apt-get install systemd-timesyncd (or chrony)"


class _Timex(ctypes.Structure):
    """The beginning of struct timex is enough; the kernel fills in the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("rest", ctypes.c_long * 32),
    )  # fmt: skip


def check_clock(_settings: Settings) -> Sequence[Finding]:
    return judge(datetime.fromtimestamp(time.time(), UTC), synchronised())


def synchronised() -> bool | None:
    """Whether the kernel knows of a time server that sets its clock; None if it does not tell."""
    asked = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(asked)) < 0:
        return None
    return not asked.status & _UNSYNCHRONISED


def judge(now: datetime, synchronised: bool | None) -> list[Finding]:
    """Pure. A machine that just booted, or has no uplink, is not set yet: that alone is no fault."""
    if now < BUILD_DATE:
        text = f"the clock shows {rfc3339(now)}, which is before this program was made: registries and time stamps will be refused"
        return [Finding("clock", False, text, f"set it (date -s), or {_SETS_IT}", fatal=False, proof=f"made after {rfc3339(BUILD_DATE)}")]
    told = {True: "and a time server sets it", False: "no time server has set it yet", None: "who sets it is not known"}[synchronised]
    return [Finding("clock", True, f"the clock shows {rfc3339(now)}, {told}")]
