"""The HTTP client's connections as streams of the one connection. Imported when the first request is made."""

from typing import TYPE_CHECKING

from aiohttp import BaseConnector, ClientConnectionError
from aiohttp.client_proto import ResponseHandler

from edgekube.lib.mux import SessionClosed, words

if TYPE_CHECKING:
    from aiohttp import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.tracing import Trace

    from edgekube.agent.link import Link


class LinkConnector(BaseConnector):
    """No limit of its own: the peer says how many streams it takes. Without a connection a request fails at once."""

    def __init__(self, link: "Link") -> None:
        super().__init__(limit=0)
        self._link = link

    async def _create_connection(self, req: "ClientRequest", traces: "list[Trace]", timeout: "ClientTimeout") -> ResponseHandler:
        protocol: ResponseHandler = self._factory()
        try:
            self._link.open(words.HTTP, "", protocol)
        except SessionClosed as error:
            raise ClientConnectionError(str(error)) from error
        return protocol
