"""Tells agents on the local network where this server is: answers questions for its authority, and announces a change of its addresses.

Questions reach it on the API's port over UDP. Answers go to who asked, are never longer than the question, and are few (`RATE`): nobody can
turn them against others. Wakes up only for datagrams.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from edgekube.lib import metrics, where
from edgekube.lib.lan import Ear, Shout, Source
from edgekube.lib.ratelimit import RateLimit

log = logging.getLogger(__name__)

RATE, BURST = 10.0, 20
ANNOUNCE_AFTER = (0.0, 1.0, 3.0)  # datagrams get lost

ANSWERS = metrics.counter("edgekube_discovery_answers_total", "Agents on the local network that were told where the server is.")


class Responder:
    """A component. `authority`: how our CA is named (where.authority_of); `addresses`: hosts under which this server can be reached now."""

    name = "discovery-responder"

    def __init__(self, *, authority: bytes, port: int, addresses: Callable[[], Sequence[str]]) -> None:
        self._authority, self._port, self._addresses = authority, port, addresses
        self._limit = RateLimit(rate=RATE, burst=BURST)
        self._ear: Ear | None = None
        self._changed = asyncio.Event()

    async def run(self, ready: asyncio.Event) -> None:
        """Until cancelled."""
        self._ear = Ear(self._port, self._heard)
        ready.set()
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                for pause in ANNOUNCE_AFTER:
                    await asyncio.sleep(pause)
                    self._announce()
        finally:
            self._ear.close()

    def changed(self) -> None:
        """Addresses or interfaces of this machine have changed."""
        self._changed.set()

    def _announce(self) -> None:
        if self._ear is not None:
            self._ear.join()
        shout = Shout(self._port)
        try:
            count = shout.send(where.announcement(self._authority, self._port, self._addresses()))
        finally:
            shout.close()
        log.debug("server announced", extra={"links": count})

    def _heard(self, data: bytes, source: Source) -> None:
        asked = where.parse(data)
        if asked is None or asked.kind != where.QUESTION or asked.authority != self._authority:
            return
        if self._limit.allows(asyncio.get_running_loop().time()):
            ANSWERS.inc()
            source.answer(where.answer(asked, self._port, self._addresses()))
