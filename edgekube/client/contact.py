"""Whether the server answers, judged by the calls that are made anyway; said in the log once when it is lost and once when it is back.

While it is away and somebody waits for it, one cheap question is asked with growing pauses (at most about 15 s); else nothing is asked.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from edgekube.errors import ApiError, ServiceUnavailable, Timeout
from edgekube.lib.backoff import Backoff

log = logging.getLogger(__name__)

T = TypeVar("T")
AWAY = (ServiceUnavailable, Timeout)
"""Errors that say nothing of what was asked: nobody was there, or had no time."""
RETRY = 0.05


class Contact:
    """`question` is asked to find out whether the server is back."""

    def __init__(self, question: Callable[[], Awaitable[object]], *, patience: float, backoff: Backoff | None = None) -> None:
        self._question, self._patience = question, patience
        self._backoff = backoff or Backoff(base=0.5, cap=10.0, jitter=0.5)
        self._met = False  # since the start
        self._away = False
        self._until = 0.0  # how long a cold start waits
        self._probing = asyncio.Lock()
        self._kicked = asyncio.Event()
        self.connected: Callable[[], bool] = lambda: False  # whether the link stands, where somebody knows

    @property
    def away(self) -> bool:
        """The server could not be reached when last tried."""
        return self._away

    def link_changed(self, up: bool) -> None:
        """It may be back: try now."""
        if up:
            self._kicked.set()

    async def ask(self, call: Awaitable[T]) -> T:
        """The server's answer; an error that the server tells is one, too."""
        try:
            return self._answered(await call)
        except AWAY as error:
            slow = isinstance(error, Timeout) and self.connected()  # an answer that is late is no lost contact
            if not slow and (self._met or not self._starting()):
                self.lost(error.message)
            raise
        except ApiError:
            self.found()
            raise

    def _answered(self, answer: T) -> T:
        self.found()
        return answer

    def _starting(self) -> bool:
        """The link may still be coming up for the first time."""
        now = asyncio.get_running_loop().time()
        self._until = self._until or now + self._patience
        return now < self._until

    def lost(self, why: str) -> None:
        if not self._away:
            self._away = True
            if self._met:
                log.warning("contact with the server lost; going on with what is remembered", extra={"reason": why})
            else:
                log.warning("no contact with the server yet; going on with what is remembered", extra={"reason": why})

    def found(self) -> None:
        self._met = True
        if self._away:
            self._away = False
            self._backoff.forget("")
            self._kicked.set()
            log.info("contact with the server is back")

    async def wait(self) -> None:
        """Until the server answers. Of all that wait one asks."""
        while self.away:
            async with self._probing:
                if self.away:
                    await self._probe()

    async def _probe(self) -> None:
        self._kicked.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._backoff.delay("")):
                await self._kicked.wait()
        if self.away:
            with contextlib.suppress(ApiError):
                await self.ask(self._question())

    async def first(self, call: Callable[[], Awaitable[T]]) -> T:
        """As `ask`, for somebody who has something to go on with: at a start the server has `patience` seconds, then it counts as away."""
        if self._met or self.away or not self._starting():
            return await self.ask(call())
        why = f"no answer within {self._patience:g} s"
        try:
            async with asyncio.timeout_at(self._until):
                while True:
                    try:
                        return await self.ask(call())
                    except AWAY as error:
                        why = error.message
                    await asyncio.sleep(RETRY)
        except TimeoutError:
            self.lost(why)
            raise Timeout(f"the server did not answer in time: {why}") from None

    async def at_last(self, call: Callable[[], Awaitable[T]]) -> T:
        """As `ask`, for somebody who has nothing else: waits for the server."""
        while True:
            try:
                return await self.ask(call())
            except AWAY:
                if not self.away:
                    await asyncio.sleep(RETRY)
            await self.wait()
