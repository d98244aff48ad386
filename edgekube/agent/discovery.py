"""Asking the local network where the server is, and hearing when it says so by itself.

Asked is only while there is no connection, ever less often; heard is always, which costs nothing while nobody speaks. What is heard is a
hint: an address to try beside the others. Strangers can make us try a few addresses, now and then, and no more.
"""

import asyncio
import logging
import os
import random
from collections.abc import Callable, Sequence

from edgekube.agent.dial import Address
from edgekube.agent.race import is_literal, unique
from edgekube.lib import where
from edgekube.lib.lan import Ear, Shout, Source
from edgekube.lib.ratelimit import RateLimit

log = logging.getLogger(__name__)

PAUSES = (1.0, 2.0, 4.0, 8.0)
LAST_PAUSE = 15.0
MOST = 8  # addresses taken from one message

Report = Callable[[Sequence[Address]], None]


class Discovery:
    """A component that hears announcements; `search` is for the Link. `port` is the API's."""

    name = "discovery"

    def __init__(self, *, authority: bytes, port: int) -> None:
        self._authority, self._port = authority, port
        self._limit = RateLimit(rate=0.2, burst=3)
        self._report: Report | None = None
        self._ear: Ear | None = None

    def announcements_to(self, report: Report) -> None:
        self._report = report

    async def run(self, ready: asyncio.Event) -> None:
        """Until cancelled."""
        self._ear = Ear(self._port, self._announced)
        ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            self._ear.close()

    def changed(self) -> None:
        """Interfaces of this machine have changed."""
        if self._ear is not None:
            self._ear.join()

    async def search(self, report: Report) -> None:
        """Ask until cancelled."""
        nonce = os.urandom(where.NONCE_BYTES)

        def heard(data: bytes, source: Source) -> None:
            found = where.parse(data)
            if found is not None and (found.kind, found.nonce, found.authority) == (where.ANSWER, nonce, self._authority):
                report(addresses_of(found, source))

        shout = Shout(self._port, heard)
        try:
            for count in range(1 << 30):
                links = shout.send(where.question(nonce, self._authority))
                log.debug("asked for the server", extra={"links": links})
                pause = PAUSES[count] if count < len(PAUSES) else LAST_PAUSE
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
        finally:
            shout.close()

    def _announced(self, data: bytes, source: Source) -> None:
        found = where.parse(data)
        if found is None or found.kind != where.ANNOUNCE or found.authority != self._authority or self._report is None:
            return
        if self._limit.allows(asyncio.get_running_loop().time()):
            self._report(addresses_of(found, source))


def addresses_of(message: where.Message, source: Source) -> list[Address]:
    """Where the message came from, and what it says: numbers only, a stranger's word is no reason to ask a name server."""
    return [Address(each, message.port) for each in unique((source.host, *message.addresses[:MOST])) if is_literal(each)]
