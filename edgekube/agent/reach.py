"""One round through all addresses that servers may have: the first that gets through is taken."""

import ssl
from collections.abc import Callable
from functools import partial

from edgekube.agent.dial import Address, Dialed, DialFailed, dial
from edgekube.agent.race import Resolver, race
from edgekube.agent.servers import Servers

ATTEMPT_SECONDS = 8.0
RESOLVE_SECONDS = 4.0


class Reach:
    """`tls` is called for each round: the certificate may have been renewed. `process` names this process to servers."""

    def __init__(self, *, servers: Servers, tls: Callable[[], ssl.SSLContext], process: str) -> None:
        self._servers, self._tls, self._process = servers, tls, process
        self._resolve = Resolver()

    async def __call__(self) -> Dialed:
        """Raises DialFailed with what each address said."""
        try:
            tls = self._tls()
        except OSError as error:  # ssl.SSLError is one too
            raise DialFailed(f"the credentials of this node can not be used: {error}") from error
        return await race([partial(self._one, address, tls) for address in self._servers.candidates()])

    async def _one(self, address: Address, tls: ssl.SSLContext) -> Dialed:
        try:
            found = await self._resolve(address.host, timeout=RESOLVE_SECONDS)
            attempt = partial(dial, tls=tls, timeout=ATTEMPT_SECONDS, process=self._process)
            dialed = await race([partial(attempt, Address(host, address.port)) for host in found])
        except DialFailed as error:
            raise DialFailed(f"{address}: {error}", refused=error.refused) from error
        self._servers.worked(address)
        return dialed

    async def close(self) -> None:
        await self._resolve.close()
