"""A server whose machine gets other addresses: what names them follows, live, and nothing restarts.

Reads the host's addresses; writes the serving certificates (through their renewal, which swaps them into the listeners) and the
`kubernetes` Service's endpoints, and tells connected agents. The node's own part (its status, the overlay) follows by itself; agents find
the server by its key.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from edgekube.errors import ApiError
from edgekube.lib.backoff import Backoff
from edgekube.network.addresses import HostAddresses, HostView

log = logging.getLogger(__name__)


class MovingServer:
    """Component. `renew` is told that certificates must name other addresses; `publish` writes where the API is now."""

    name = "moving"

    def __init__(self, *, addresses: HostAddresses, renew: Callable[[], None], publish: Callable[[], Awaitable[object]]) -> None:
        self._addresses, self._renew, self._publish = addresses, renew, publish
        self._moved = asyncio.Event()
        addresses.on_change(self._changed)

    def _changed(self, old: HostView, new: HostView) -> None:
        if new.addresses != old.addresses:
            self._renew()
            self._moved.set()

    async def run(self, ready: asyncio.Event) -> None:
        ready.set()
        backoff = Backoff(base=0.2, cap=30.0, jitter=0.2)
        while True:
            await self._moved.wait()
            self._moved.clear()
            try:
                await self._publish()
            except ApiError as error:
                log.warning("address of the server not published", extra={"error": error.message})
                await asyncio.sleep(backoff.delay(""))
                self._moved.set()
                continue
            backoff.forget("")
            log.info("address of the server published", extra={"address": self._addresses.node[0]})
