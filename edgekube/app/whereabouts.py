"""Where this server is, for its agents: told to those that are connected, announced to and answered on the local network to the others.

Follows the addresses of the machine; nothing is sent while they stay.
"""

import asyncio

from edgekube.apiserver.responder import Responder
from edgekube.apiserver.tunnel import Tunnels
from edgekube.app.host import server_hosts
from edgekube.config import Settings
from edgekube.lib.where import authority_of
from edgekube.network.addresses import HostAddresses, HostView


class Whereabouts:
    """A component."""

    name = "whereabouts"

    def __init__(self, *, settings: Settings, ca_pem: str, addresses: HostAddresses, tunnels: Tunnels) -> None:
        self._addresses, self._tunnels = addresses, tunnels
        self._responder: Responder | None = None
        if not settings.disable_discovery:
            self._responder = Responder(
                authority=authority_of(ca_pem), port=settings.https_port, addresses=lambda: server_hosts(settings, addresses)
            )

    async def run(self, ready: asyncio.Event) -> None:
        self._addresses.on_change(self._changed)
        if self._responder is not None:
            await self._responder.run(ready)
        ready.set()
        await asyncio.Event().wait()

    def _changed(self, old: HostView, new: HostView) -> None:
        if set(old.addresses) != set(new.addresses):
            self._tunnels.publish()
        if self._responder is not None:
            self._responder.changed()
