"""Named crash points, off unless a test sets `EDGEKUBE_FAILPOINTS=name=action,...` in the environment of the process.

Actions: `kill` (SIGKILL to ourselves), `kill:N` (at the Nth pass), `error` (raise OSError ENOSPC), `error:N`, `sleep:SECONDS`.
A point costs one dict look-up when off.
"""

import errno
import os
import signal
import time


def _parse(text: str) -> dict[str, tuple[str, float]]:
    points: dict[str, tuple[str, float]] = {}
    for part in filter(None, text.split(",")):
        name, _, action = part.partition("=")
        verb, _, argument = action.partition(":")
        points[name] = (verb, float(argument or 1))
    return points


_points = _parse(os.environ.get("EDGEKUBE_FAILPOINTS", ""))
_passes: dict[str, int] = {}


def hit(name: str) -> None:
    """Mark a step whose interruption the tests try."""
    if name in _points:
        _act(name)


def _act(name: str) -> None:
    verb, argument = _points[name]
    _passes[name] = _passes.get(name, 0) + 1
    if verb == "sleep":
        time.sleep(argument)
    elif verb == "kill" and _passes[name] == int(argument):
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "error" and _passes[name] >= int(argument):
        raise OSError(errno.ENOSPC, f"failpoint {name}")
