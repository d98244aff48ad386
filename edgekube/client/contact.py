"""Whether the server answers, judged by the calls that are made anyway; said in the log once when it is lost and once when it is back.

While it is away and somebody waits for it, one cheap question is asked with growing pauses (at most about 15 s); else nothing is asked.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from edgekube.errors import ApiError, ServiceUnavailable, Timeout
from edgekube.lib.backoff import Backoff

log = logging.getLogger(__name__)

T = TypeVar("T")
AWAY = (ServiceUnavailable, Timeout)
"""Errors that say nothing of what was asked: nobody was there, or had no time."""


class Contact:
    """`question` is asked to find out whether the server is back."""

    def __init__(self, question: Callable[[], Awaitable[object]], *, patience: float, backoff: Backoff | None = None) -> None:
        self._question, self._patience = question, patience
        self._backoff = backoff or Backoff(base=0.5, cap=10.0, jitter=0.5)
        self._met = False  # since the start
        self._away = False
        self._probing = asyncio.Lock()
        self._kicked = asyncio.Event()

    @property
    def away(self) -> bool:
        """The server could not be reached when last tried."""
        return self._away

    def kick(self) -> None:
        """It may be back: try now."""
        self._kicked.set()

    async def ask(self, call: Awaitable[T]) -> T:
        """The server's answer; an error that the server tells is one, too."""
        try:
            answer = await call
        except AWAY as error:
            self.lost(error.message)
            raise
        except ApiError:
            self.found()
            raise
        self.found()
        return answer

    def lost(self, why: str) -> None:
        if not self._away:
            self._away = True
            log.warning("contact with the server lost; going on with what is remembered", extra={"reason": why})

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

    @contextlib.asynccontextmanager
    async def impatient(self, *, something: bool) -> AsyncIterator[None]:
        """At a cold start with `something` to go on with, the server has little time to answer: then Timeout."""
        try:
            async with asyncio.timeout(self._patience if something and not self._met else None):
                yield
        except TimeoutError:
            self.lost(f"no answer within {self._patience:g} s")
            raise Timeout("the server did not answer in time") from None
