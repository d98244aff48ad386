"""The proxy's own health and the health check node ports of Services: small HTTP/1.1 servers, opened and closed as Services come and go.

    :10256/healthz, /livez     the proxy: 503 once changes have waited for longer than `LATE` seconds; /healthz also when the node goes
    :<healthCheckNodePort>/    200 if this node has a ready endpoint of the Service, else 503: tells balancers outside where to send

Bodies and headers are kube-proxy's. A port that is taken is logged once, and tried again when its Service changes.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from edgekube.api.types import Key, Obj
from edgekube.lib.clock import Clock, rfc3339
from edgekube.proxy.services import Health

log = logging.getLogger(__name__)

LATE = 60.0
_DELETED_SOON = "ToBeDeletedByClusterAutoscaler"
_PATIENCE = 5.0  # for a client to send its request


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request gets."""

    code: int
    body: str
    weight: int | None = None

    def encode(self, *, body: bool) -> bytes:
        reason = {200: "OK", 404: "Not Found"}.get(self.code, "Service Unavailable")
        data = self.body.encode()
        lines = [f"HTTP/1.1 {self.code} {reason}", "Content-Type: application/json", "X-Content-Type-Options: nosniff"]
        if self.weight is not None:
            lines.append(f"X-Load-Balancing-Endpoint-Weight: {self.weight}")
        lines += [f"Content-Length: {len(data)}", "Connection: close", "", ""]
        return "\r\n".join(lines).encode() + (data if body else b"")


class ProxyHealth:
    """Whether changes reach the kernel."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting_since: float | None = None
        self._updated = clock.now()
        self.eligible = True

    def queued(self) -> None:
        if self._waiting_since is None:
            self._waiting_since = self._clock.monotonic()

    def done(self) -> None:
        self._waiting_since = None
        self._updated = self._clock.now()

    @property
    def healthy(self) -> bool:
        return self._waiting_since is None or self._clock.monotonic() - self._waiting_since < LATE

    def see_node(self, node: Obj) -> None:
        """A node that is about to go takes no new traffic from balancers."""
        taints = (node.get("spec") or {}).get("taints") or ()
        going = bool(node["metadata"].get("deletionTimestamp"))
        self.eligible = not going and not any(taint.get("key") == _DELETED_SOON for taint in taints)

    def answer(self, path: str) -> Answer:
        if path not in ("/healthz", "/livez"):
            return Answer(404, "404 page not found\n")
        now = rfc3339(self._clock.now())
        good = self.healthy and (self.eligible or path == "/livez")
        updated = now if good else rfc3339(self._updated)
        tail = f', "nodeEligible": {json.dumps(self.eligible)}' if path == "/healthz" else ""
        return Answer(200 if good else 503, f'{{"lastUpdated": {json.dumps(updated)},"currentTime": {json.dumps(now)}{tail}}}')


def service_answer(key: Key, count: int, healthy: bool) -> Answer:
    """As a balancer outside expects it from any node."""
    body = json.dumps(
        {"service": {"namespace": key.namespace, "name": key.name}, "localEndpoints": count, "serviceProxyHealthy": healthy}, indent="\t"
    )
    return Answer(200 if count and healthy else 503, body, weight=count)


class HealthServers:
    """The listeners. `put` says what one Service wants now; `run` keeps them open."""

    def __init__(self, *, proxy: ProxyHealth, port: int) -> None:
        self._proxy, self._port = proxy, port
        self._wanted: dict[Key, Health] = {}
        self._open: dict[Key, tuple[int, asyncio.Server]] = {}
        self._dirty: set[Key] = set()
        self._wake = asyncio.Event()

    def put(self, key: Key, health: Health | None) -> None:
        if self._wanted.get(key) == health:
            return
        if health is None:
            self._wanted.pop(key, None)
        else:
            self._wanted[key] = health
        self._dirty.add(key)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        own = await self._listen(self._port, self._proxy.answer, "the proxy") if self._port else None
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                dirty, self._dirty = self._dirty, set()
                for key in dirty:
                    await self._ensure(key)
        finally:
            for server in [own, *(server for _, server in self._open.values())]:
                if server is not None:
                    server.close()

    async def _ensure(self, key: Key) -> None:
        wanted = self._wanted.get(key)
        port, server = self._open.get(key, (0, None))
        if server is not None and (wanted is None or wanted.port != port):
            server.close()
            del self._open[key]
            server = None
        if wanted is not None and server is None:
            opened = await self._listen(wanted.port, lambda _: self._of_service(key), str(key))
            if opened is not None:
                self._open[key] = (wanted.port, opened)

    def _of_service(self, key: Key) -> Answer:
        wanted = self._wanted.get(key)
        return service_answer(key, wanted.count if wanted else 0, self._proxy.healthy)

    async def _listen(self, port: int, answer: Callable[[str], Answer], what: str) -> asyncio.Server | None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(_PATIENCE):
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split(" ", 2)
                    if len(head) == 3:
                        writer.write(answer(head[1].partition("?")[0]).encode(body=head[0] != "HEAD"))
                        await writer.drain()
            writer.close()

        try:
            return await asyncio.start_server(serve, None, port, limit=8192, backlog=16)
        except OSError as error:
            log.warning("health port not opened", extra={"port": port, "of": what, "error": str(error)})
            return None
