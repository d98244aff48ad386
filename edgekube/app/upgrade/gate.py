"""What a version on trial must show: that it is ready, that its node is (if it was before), that it is the one that was meant, and that it
stays so for some seconds in one process. Looks through the doors that everybody uses; knows nothing of what is behind them."""

import time
from collections.abc import Callable
from typing import NamedTuple

STABLE_SECONDS = 5.0
_STEP = 0.2


class Look(NamedTuple):
    """`process`: its id, 0 for none. `good`: all is as it must be, but for time. `why`: what is missing."""

    process: int
    good: bool
    why: str = ""


def wait(look: Callable[[], Look], ended: Callable[[], str], *, timeout: float, stable: float = STABLE_SECONDS) -> str:
    """Empty once all has been good for `stable` seconds; else why not, after `timeout` at the latest. Time that it was good is not counted
    against it, but only once."""
    began = time.monotonic()
    deadline, since, process, why = began + timeout, 0.0, 0, "it did not start"
    while True:
        found = look()
        now = time.monotonic()
        if not found.good or found.process != process:
            since, process = 0.0, found.process
        if found.good:
            since = since or now
            if now - since >= stable:
                return ""
        else:
            why = found.why
            if reason := ended():
                return reason
        if now >= deadline + (stable if since else 0.0):
            return f"it was not ready within {timeout:.0f} s: {why}" if not since else "it did not stay ready"
        time.sleep(_STEP)
