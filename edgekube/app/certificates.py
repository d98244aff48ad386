"""Certificates never stop the box: they are renewed in process when two thirds of their life are over, and swapped into live listeners.

Sleeps until something is due (at most a day, so that a clock that jumped is noticed); open connections stay, new ones get the
new certificate.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from edgekube.apiserver.credentials import Pki
from edgekube.lib.clock import Clock

log = logging.getLogger(__name__)

_LONGEST_SLEEP = 86400.0
_SHORTEST_SLEEP = 1.0


class CertificateRenewal:
    """Component. `renew` makes what is due and returns when to come again; `reload` are the listeners' own reload calls."""

    name = "certificates"

    def __init__(self, *, pki: Pki, renew: Callable[[], Pki], reload: Sequence[Callable[[], None]], clock: Clock) -> None:
        self._pki, self._renew, self._reload, self._clock = pki, renew, reload, clock
        self._kick = asyncio.Event()
        self._subjects_changed = False

    def kick(self) -> None:
        """The clock has jumped: look at once."""
        self._kick.set()

    def subjects_changed(self) -> None:
        """This machine has other addresses: certificates must name them."""
        self._subjects_changed = True
        self._kick.set()

    async def run(self, ready: asyncio.Event) -> None:
        ready.set()
        while True:
            left = (self._pki.renew_at - self._clock.now()).total_seconds()
            await self._sleep(min(_LONGEST_SLEEP, max(_SHORTEST_SLEEP, left)))
            if self._clock.now() < self._pki.renew_at and not self._subjects_changed:
                continue
            self._subjects_changed = False
            try:
                self._pki = await asyncio.to_thread(self._renew)
            except OSError as error:
                log.error("certificates not renewed", extra={"error": str(error)})
                self._subjects_changed = True
                await asyncio.sleep(60)
                continue
            for reload in self._reload:
                reload()
            log.info("certificates renewed", extra={"files": ",".join(sorted(self._pki.changed))})

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._kick.wait()
        self._kick.clear()
