"""The server's end of the connections that agents keep: `GET /v1-edgekube/connect`.

Which node it is, the client certificate says and nothing else. Streams that the agent opens are answered as connections of their own
that showed the same certificate; streams to the agent lead to its kubelet, or to a pod that it runs. One node has one connection that is
used; a newer one takes over, and the older one lives on only for the streams it has. Unless another process keeps the older one, and is
there: then two machines have one key (a card was copied), and the second is told so instead of both driving each other out. A connection
ends with its certificate's validity, and at once when `close` says so.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import format_datetime

from edgekube.apiserver.connection import CERTIFICATE
from edgekube.apiserver.identity import PeerCertificate
from edgekube.apiserver.request import AnyResponse, Request, TakeoverResponse
from edgekube.apiserver.server import Server
from edgekube.errors import BadRequest, Conflict, Forbidden, ServiceUnavailable
from edgekube.lib import metrics
from edgekube.lib.clock import Clock
from edgekube.lib.mux import Refused, Session, SessionClosed, Stream, words
from edgekube.lib.mux.keepalive import Patience
from edgekube.lib.mux.streams import Streams, open_streams
from edgekube.lib.tlsclock import LEEWAY

log = logging.getLogger(__name__)

NODE_PREFIX, NODES = "system:node:", "system:nodes"
MOST_ADDRESSES = 12  # told to agents
OLD_CONNECTIONS = 3  # of one node, beside the newest
_PATIENCE = Patience(idle=14.0, answer=6.0)  # the agent asks first: most of the time the server only listens
_PROBE_SECONDS = 5.0
_RIVAL_SECONDS = 2.0  # for an older connection of another process to show that somebody is there
_LOOK_AGAIN = 3600.0  # wall time may jump: what expires later than this is looked at again
_HEAD_LIMIT = 64 * 1024

SESSIONS = metrics.gauge("edgekube_tunnel_sessions", "Connections of agents that are open now.")
OPENED = metrics.counter("edgekube_tunnel_connections_total", "Connections that agents have opened.")
STREAMS = metrics.counter("edgekube_tunnel_streams_total", "Streams opened, by who opened them.", ("opened_by",))
_BY_AGENT, _BY_SERVER = STREAMS.labels("agent"), STREAMS.labels("server")


@dataclass(eq=False, slots=True)
class _Tunnel:
    node: str
    session: Session
    remote: str
    process: str
    told: bool = False  # that another machine has the same key
    expiry: asyncio.TimerHandle | None = None


class Tunnels:
    """All connections of agents. `addresses`: where this server can be reached now, HOST:PORT."""

    def __init__(self, *, clock: Clock, addresses: Callable[[], Sequence[str]] = tuple) -> None:
        self._clock, self._addresses = clock, addresses
        self._nodes: dict[str, list[_Tunnel]] = {}  # the newest last

    def register(self, server: Server) -> None:
        """Answer agents of this server from now on, and let go of them when it stops."""
        server.routes.add(words.PATH, self.connect)
        server.on_stop.append(self.close_all)

    def connected(self, node_name: str) -> bool:
        return any(each.session.alive for each in self._nodes.get(node_name, ()))

    def open(self, node_name: str, kind: str, label: str = "") -> Streams:
        """A stream to the agent of a node. Raises ServiceUnavailable."""
        for tunnel in reversed(self._nodes.get(node_name, ())):
            if tunnel.session.alive:
                try:
                    found = open_streams(tunnel.session, kind, label, limit=_HEAD_LIMIT)
                except SessionClosed as error:
                    raise ServiceUnavailable(f'error dialing backend: node "{node_name}": {error}') from error
                _BY_SERVER.inc()
                return found
        raise ServiceUnavailable(f'error dialing backend: no agent connection for node "{node_name}"')

    def close(self, node_name: str, why: str = "the node may not be here any more") -> None:
        """Cut a node off, its running streams too."""
        for tunnel in list(self._nodes.get(node_name, ())):
            tunnel.session.close(why)

    def close_all(self) -> None:
        for node in list(self._nodes):
            self.close(node, "the server stops")

    def publish(self) -> None:
        """The server's addresses have changed: tell every agent, and find out which of them is still there."""
        text = self._told()
        for tunnels in list(self._nodes.values()):
            for tunnel in [each for each in tunnels if each.session.alive]:
                tunnel.session.probe(_PROBE_SECONDS)
                with contextlib.suppress(SessionClosed):  # as many streams as it takes are open: it learns at its next connection
                    tunnel.session.open(words.SERVERS, text, asyncio.Protocol()).close()

    def _told(self) -> str:
        return ",".join(self._addresses()[:MOST_ADDRESSES])

    # one connection

    async def connect(self, request: Request) -> AnyResponse:
        """Raises BadRequest, Forbidden, Conflict."""
        certificate = request.certificate
        if certificate is None or NODES not in certificate.organizations or not certificate.common_name.startswith(NODE_PREFIX):
            raise Forbidden("only a node may connect here, with its own certificate")
        if request.headers.get("upgrade", "").lower() != words.PROTOCOL:
            raise BadRequest(f"Upgrade request required: {words.PROTOCOL}")
        owner, process = certificate, request.headers.get(words.PROCESS_HEADER.lower(), "")
        await self._refuse_copies(owner.common_name.removeprefix(NODE_PREFIX), process)

        async def run(transport: asyncio.Transport, rest: bytes, accept: Callable[[], asyncio.Protocol]) -> None:
            await self._run(owner, process, transport, rest, accept)

        return TakeoverResponse(run)

    async def _refuse_copies(self, node: str, process: str) -> None:
        """Raises Conflict while another process of the same node has a connection that works."""
        for tunnel in list(self._nodes.get(node, ())):
            if not process or not tunnel.process or tunnel.process == process or not await tunnel.session.answers(_RIVAL_SECONDS):
                continue
            if not tunnel.told:
                log.warning("two machines have the key of one node", extra={"node": node, "connected": tunnel.remote})
            tunnel.told = True
            raise Conflict(
                f"node {node} is connected from {tunnel.remote or 'elsewhere'} with the same key: if this machine is a copy of that one, "
                "run edgekube uninstall here and join it with a new token"
            )

    async def _run(
        self,
        certificate: PeerCertificate,
        process: str,
        transport: asyncio.Transport,
        rest: bytes,
        accept: Callable[[], asyncio.Protocol],
    ) -> None:
        if isinstance(transport, Stream):
            transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return  # a tunnel within a tunnel

        def accepted(stream: Stream) -> asyncio.Protocol:
            if stream.kind != words.HTTP:
                raise Refused(f"no streams of kind {stream.kind[:32]} are answered here")
            _BY_AGENT.inc()
            return accept()

        extra = {name: transport.get_extra_info(name) for name in ("peername", "sockname")} | {CERTIFICATE: certificate}
        session = Session(dialer=False, accept=accepted, patience=_PATIENCE, on_greeted=lambda: self._taken_over(tunnel), extra=extra)
        peer = extra["peername"]
        remote = peer[0] if isinstance(peer, tuple) else ""
        tunnel = _Tunnel(certificate.common_name.removeprefix(NODE_PREFIX), session, remote, process)
        lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {words.PROTOCOL}"]
        lines.append(f"{words.SERVERS_HEADER}: {self._told()}")
        lines.append(f"Date: {format_datetime(self._clock.now(), usegmt=True)}")  # for machines that woke up in the past
        transport.write("\r\n".join([*lines, "", ""]).encode())
        self._added(tunnel)
        try:
            self._expire(tunnel, certificate.not_after + LEEWAY.total_seconds())
            session.attach(transport, rest)
            why = await session.closed
            log.info("agent connection ended", extra={"node": tunnel.node, "remote": tunnel.remote, "why": why})
        finally:
            session.close("the server stops")
            self._removed(tunnel)

    def _added(self, tunnel: _Tunnel) -> None:
        older = self._nodes.setdefault(tunnel.node, [])
        for each in older[:-OLD_CONNECTIONS]:
            each.session.close("too many newer connections of the same node")
        for each in list(older):
            each.session.probe(_PROBE_SECONDS)
        older.append(tunnel)
        SESSIONS.inc()
        OPENED.inc()
        log.info("agent connected", extra={"node": tunnel.node, "remote": tunnel.remote})

    def _taken_over(self, tunnel: _Tunnel) -> None:
        """The agent speaks on this connection: older ones only finish what they have. Not before, or it had none for a moment."""
        tunnels = self._nodes[tunnel.node]
        for each in tunnels[: tunnels.index(tunnel)]:
            each.session.drain("a newer connection of the same node has taken over")

    def _removed(self, tunnel: _Tunnel) -> None:
        if tunnel.expiry is not None:
            tunnel.expiry.cancel()
        tunnels = self._nodes[tunnel.node]
        tunnels.remove(tunnel)
        if not tunnels:
            del self._nodes[tunnel.node]
        SESSIONS.dec()

    def _expire(self, tunnel: _Tunnel, last: float) -> None:
        """End it when `last` (epoch seconds) is over by any clock that may be right."""
        left = last - self._clock.span()[0].timestamp()
        if left < 0:
            tunnel.session.close("the certificate of the node has expired")
        elif left < float("inf"):
            loop = asyncio.get_running_loop()
            tunnel.expiry = loop.call_later(min(left + 1, _LOOK_AGAIN), self._expire, tunnel, last)
