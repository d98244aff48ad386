"""The API server as a component: listeners, certificates that may change under it, and the reaper of old Events.

Reads: its certificate file, again when told to. Promises: ready means that connections are answered; stopping ends watches and lets other
requests finish. Changing a certificate closes no connection.
"""

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgekube.api import catalog
from edgekube.api.item import Item
from edgekube.apiserver.identities import NodeIdentities
from edgekube.apiserver.server import Server
from edgekube.errors import ApiError
from edgekube.lib.clock import Clock, parse_rfc3339

log = logging.getLogger(__name__)

REAP_EVERY = 120.0
REAP_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerConfig:
    """Where to listen and with what. `certificate` holds key and certificate in one file; `client_ca` signs clients."""

    bind_address: str
    port: int
    certificate: Path
    client_ca: Path
    event_ttl_seconds: int = 3600


class ApiServerComponent:
    """Satisfies supervise.Component."""

    name = "apiserver"

    def __init__(self, *, config: ApiServerConfig, server: Server, clock: Clock, identities: NodeIdentities | None = None) -> None:
        self._identities = identities
        self._config, self._server, self._clock = config, server, clock
        self._tls: ssl.SSLContext | None = None
        self.port = 0  # the real one, once ready

    async def run(self, ready: asyncio.Event) -> None:
        """Serve until cancelled. Raises OSError where the address cannot be had."""
        from edgekube.apiserver.front import Front, server_context

        config = self._config
        self._tls = await asyncio.to_thread(server_context, config.certificate, config.client_ca)
        front = Front(self._server)
        if self._identities is not None:
            self._identities.on_revoked(front.drop_node)
        try:
            self.port = await front.listen(config.bind_address, config.port, self._tls)
            log.info("api server listening", extra={"address": config.bind_address, "port": self.port})
            ready.set()
            await self._reap()
        finally:
            self._server.health.stopping = True
            await front.close()

    def reload(self) -> None:
        """The certificate file has changed: new connections get the new one, open ones stay."""
        if self._tls is None:
            return
        try:
            self._tls.load_cert_chain(self._config.certificate)
            log.info("serving certificate loaded again", extra={"path": str(self._config.certificate)})
        except (OSError, ssl.SSLError) as error:
            log.warning("serving certificate not usable, keeping the old one", extra={"error": str(error)})

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_EVERY)
            await reap_events(self._server, self._clock, self._config.event_ttl_seconds)


async def reap_events(server: Server, clock: Clock, ttl: float) -> int:
    """Delete Events that nobody wrote to for `ttl` seconds. Returns how many."""
    registry = server.registry
    old: list[Item] = []
    for index, item in enumerate(registry.page(catalog.EVENT, "").items, start=1):
        if clock.age(datetime.fromtimestamp(last_seen(item), UTC)) > ttl:
            old.append(item)
        if index % REAP_AT_ONCE == 0:
            await asyncio.sleep(0)
    for index, item in enumerate(old, start=1):
        with contextlib.suppress(ApiError):  # somebody was faster, or it was just written again
            await registry.delete(catalog.EVENT, item.decode(), item.revision)
        if index % REAP_AT_ONCE == 0:
            await asyncio.sleep(0)
    return len(old)


def last_seen(item: Item) -> float:
    """When the Event was last written to, as far as it says; 0 if it does not."""
    obj = item.decode()
    series = obj.get("series") or {}
    times = (series.get("lastObservedTime"), obj.get("lastTimestamp"), obj.get("eventTime"), obj["metadata"].get("creationTimestamp"))
    seen = 0.0
    for text in times:
        if text:
            with contextlib.suppress(ValueError):
                seen = max(seen, parse_rfc3339(text).timestamp())
    return seen
