"""Where this server is, for agents that have lost it: announced on the local network when it moves, and answered to who asks there.

Follows the addresses of the machine; nothing is sent while they stay.
"""

import asyncio

from edgekube.apiserver.responder import Responder
from edgekube.app.host import server_hosts
from edgekube.config import Settings
from edgekube.lib.where import authority_of
from edgekube.network.addresses import HostAddresses, HostView


class Whereabouts:
    """A component."""

    name = "whereabouts"

    def __init__(self, *, settings: Settings, ca_pem: str, addresses: HostAddresses) -> None:
        self._responder: Responder | None = None
        if not settings.disable_discovery:
            self._responder = Responder(
                authority=authority_of(ca_pem), port=settings.https_port, addresses=lambda: server_hosts(settings, addresses)
            )
            addresses.on_change(self._changed)

    async def run(self, ready: asyncio.Event) -> None:
        if self._responder is not None:
            await self._responder.run(ready)
        ready.set()
        await asyncio.Event().wait()

    def _changed(self, _old: HostView, _new: HostView) -> None:
        if self._responder is not None:
            self._responder.changed()
