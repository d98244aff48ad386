"""Noticing that the peer is gone without a word: a cable pulled, a NAT entry lost, a machine switched off.

Anything received counts as a sign of life, so a connection in use costs no pings. The timer is set for when silence would have lasted
too long and looks only then: one wake-up per `idle` seconds at most. All times are the loop's, which are monotonic.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

_SECOND_LOOK = 0.05  # an answer may have arrived while the process was busy, and not been read yet: timers come first
_LATE = 2.0  # a timer that comes later than this tells of a machine that slept or was busy, not of a peer that is gone


class Patience(NamedTuple):
    """Silence before a ping is sent, and how long its answer may take."""

    idle: float = 11.0
    answer: float = 6.0


class KeepAlive:
    """Belongs to one session. `ping` sends one; `dead` is called once, with how long the peer has been silent."""

    def __init__(self, *, patience: Patience, ping: Callable[[], None], dead: Callable[[float], None]) -> None:
        self._patience, self._ping, self._dead = patience, ping, dead
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._asked: float | None = None  # when the open question was sent
        self._answer = patience.answer
        self.heard = self.heard_boottime = 0.0
        self.sign = asyncio.Event()  # set by each sign of life, and by the end
        self.note()

    def start(self) -> None:
        self.note()
        self._set(self.heard + self._patience.idle)

    def note(self) -> None:
        """Something was received."""
        self.heard = self._loop.time()
        self.heard_boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._asked = None
        self.sign.set()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def probe(self, answer: float) -> None:
        """Ask now, and do not wait longer than `answer` seconds: there is reason for doubt."""
        if self._timer is None:
            return
        now = self._loop.time()
        if self._asked is None or self._asked + self._answer > now + answer:
            self._ask(now, answer)

    def _ask(self, now: float, answer: float) -> None:
        self._asked, self._answer = now, answer
        self._ping()
        self._set(now + answer)

    def _set(self, when: float) -> None:
        self.stop()
        self._timer = self._loop.call_at(when, self._look, when)

    def _look(self, when: float) -> None:
        now = self._loop.time()
        if self._asked is not None:
            if now - when > _LATE:
                self._ask(now, self._patience.answer)
            else:
                self._timer = self._loop.call_later(_SECOND_LOOK, self._verdict)
            return
        if self.heard + self._patience.idle <= now:
            self._ask(now, self._patience.answer)
        else:
            self._set(self.heard + self._patience.idle)

    def _verdict(self) -> None:
        self._timer = None
        if self._asked is not None:
            self._dead(self._loop.time() - self.heard)
        else:
            self._set(self.heard + self._patience.idle)
