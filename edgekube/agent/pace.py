"""How long to wait before dialing again. Pure: who asks brings the time (monotonic).

    lost just now             at once
    away for t seconds        a fifth of t, from 0.2 to 12 seconds: a server that restarts is found within a second or so
    refused                   10 seconds: the server is there and says no, which seldom changes
    comes and goes            twice as long each time: another machine is this node too, or the server is in trouble

All of it spread, so that the agents of a server that comes back do not come all at once.
"""

import random

FIRST, LAST, SHARE = 0.2, 12.0, 0.2
REFUSED = 10.0
STABLE = 5.0  # a connection that lasts so long is none that comes and goes


class Pace:
    """`now` is the start: without a connection."""

    def __init__(self, now: float) -> None:
        self._lost: float | None = now
        self._connected, self._brief = now, 0

    def connected(self, now: float) -> None:
        self._lost, self._connected = None, now

    def lost(self, now: float) -> None:
        self._lost = now

    def away(self, now: float) -> float:
        """Seconds without a connection; 0 with one."""
        return 0.0 if self._lost is None else now - self._lost

    def before_another(self, now: float) -> float:
        """The connection is of no more use, for whatever reason."""
        self._brief = self._brief + 1 if now - self._connected < STABLE else 0
        return 0.0 if self._brief < 2 else _spread(min(LAST, FIRST * 2 ** min(self._brief, 16)))

    def after_failure(self, now: float, *, refused: bool) -> float:
        """An attempt has failed."""
        return _spread(max(REFUSED if refused else 0.0, min(LAST, max(FIRST, SHARE * self.away(now)))))


def _spread(seconds: float) -> float:
    return seconds * random.uniform(0.7, 1.3)
