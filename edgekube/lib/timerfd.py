"""Timers of the kernel that asyncio does not have: one that notices that the clock was set, one that goes on while the machine sleeps.

timerfd_create(2) through ctypes, which Python 3.11 lacks. Neither costs a wake-up before it fires.
"""

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Iterator

_CLOCK_REALTIME, _CLOCK_BOOTTIME = 0, 7
_ABSTIME, _CANCEL_ON_SET = 1, 2
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_NEVER = 2**31 - 1  # seconds since 1970 or from now: far enough, and no 32-bit kernel trips over it


class _Spec(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (("every", ctypes.c_long), ("every_ns", ctypes.c_long), ("first", ctypes.c_long), ("first_ns", ctypes.c_long))


class ClockWatch:
    """`changed()` returns once the system clock was set, or the machine woke up. Use as a context manager; watches from the start on."""

    def __enter__(self) -> "ClockWatch":
        self._descriptor = _create(_CLOCK_REALTIME)
        self._arm()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    async def changed(self) -> None:
        while True:
            await _readable(self._descriptor)
            try:
                os.read(self._descriptor, 8)
            except BlockingIOError:
                continue
            except OSError:  # ECANCELED: the clock was set
                self._arm()
                return
            self._arm()

    def _arm(self) -> None:
        _set(self._descriptor, _ABSTIME | _CANCEL_ON_SET, float(_NEVER))


async def sleep_boottime(seconds: float) -> None:
    """As asyncio.sleep, but time that the machine sleeps counts: after a long sleep it returns at once."""
    if seconds <= 0:
        return
    with _timer(_CLOCK_BOOTTIME) as descriptor:
        _set(descriptor, 0, seconds)
        await _readable(descriptor)


@contextlib.contextmanager
def _timer(clock: int) -> Iterator[int]:
    descriptor = _create(clock)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _create(clock: int) -> int:
    """Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.timerfd_create(clock, _FLAGS)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    return descriptor


def _set(descriptor: int, flags: int, seconds: float) -> None:
    whole = int(min(seconds, _NEVER))
    spec = _Spec(0, 0, whole, max(1, int((seconds - whole) * 1e9)) if seconds < _NEVER else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.timerfd_settime(descriptor, flags, ctypes.byref(spec), None) != 0:
        number = ctypes.get_errno()
        if number != 125:  # ECANCELED: the clock was set just now; it is armed all the same
            raise OSError(number, "timerfd_settime")


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def fire() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(descriptor, fire)
    try:
        await done
    finally:
        loop.remove_reader(descriptor)
