"""One HTTP connection: whose certificate it showed, what is pushed to it, and the bytes of heads.

aiohttp parses and keeps the connection; `Done` tells it that we have written the answer to the transport ourselves. Strangers may take
only so many connections, and none for nothing: what is left is for those who show a certificate.
"""

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from edgekube.apiserver.identity import NODES, PeerCertificate
from edgekube.lib.tlsclock import validity

OF_NODE = 64  # connections of one node; its streams within one are counted there
FIRST_REQUEST = 30.0  # seconds that a connection may be open before it has asked for anything
SEND_BUFFER = 128 * 1024
ABORT_AFTER = 10.0  # seconds a closed watch may take to drain
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
NO_BODY = frozenset((204, 304))
CERTIFICATE = "edgekube.certificate"  # what a transport that is part of another connection knows of its peer


class Done(web.StreamResponse):
    """Tells aiohttp that the answer has been written."""

    def __init__(self, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: BaseRequest) -> None:
        return None

    async def write_eof(self, data: Any = b"") -> None:
        return None


class Connection(RequestHandler):
    """One connection; knows its peer's certificate and who wants to hear of its end."""

    __slots__ = ("_counted", "_factory", "_first", "_node", "certificate", "handed", "on_lost", "stream")

    def __init__(self, factory: "Factory", **kwargs: Any) -> None:
        super().__init__(factory, **kwargs)
        self._factory = factory
        self._first: asyncio.TimerHandle | None = None
        self._counted = self._node = False
        self.certificate: PeerCertificate | None = None
        self.on_lost: asyncio.Future[None] | None = None
        self.stream: asyncio.Transport | None = None
        self.handed: asyncio.Transport | None = None  # what was the stream, once the connection is somebody else's conversation

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.certificate = transport.get_extra_info(CERTIFICATE) or peer_certificate(transport)
        self.stream = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        sock = transport.get_extra_info("socket")
        if sock is None:
            return  # part of a connection that is counted already
        self._factory.open += 1
        self._counted = True
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if not self._admitted():
            self.cut()
        self._first = asyncio.get_running_loop().call_later(FIRST_REQUEST, self.cut)

    def _admitted(self) -> bool:
        """Counts it."""
        if self.certificate is None:
            return self._factory.open <= self._factory.strangers
        if NODES not in self.certificate.organizations:
            return True
        self._factory.of_nodes[self.sender] += 1
        self._node = True
        return self._factory.of_nodes[self.sender] <= OF_NODE

    def began(self) -> None:
        """A whole request head has come."""
        if self._first is not None:
            self._first.cancel()
            self._first = None

    @property
    def sender(self) -> str:
        """Who to count what it costs for."""
        if self.certificate is not None:
            return self.certificate.common_name
        return str(self.peername[0]) if isinstance(self.peername, tuple) else str(self.peername)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._counted:
            self._factory.open -= 1
            self._counted = False
        if self._node:
            self._factory.of_nodes[self.sender] -= 1
            self._node = False
        self.began()
        self.stream = self.handed = None
        if self.on_lost is not None and not self.on_lost.done():
            self.on_lost.set_result(None)

    def cut(self) -> None:
        """End it now, whatever goes on."""
        stream = self.stream or self.handed
        if stream is not None:
            stream.abort()


def peer_certificate(transport: asyncio.BaseTransport) -> PeerCertificate | None:
    """What TLS verified of the client, if it showed a certificate."""
    certificate = transport.get_extra_info("peercert") or {}
    subject = certificate.get("subject")
    if not subject:
        return None
    organizations = tuple(value for relative in subject for name, value in relative if name == "organizationName")
    tls = transport.get_extra_info("ssl_object")
    first, last = (moment.timestamp() for moment in validity(certificate))
    return PeerCertificate(common_name(subject), organizations, (tls.getpeercert(True) or b"") if tls is not None else b"", first, last)


def common_name(subject: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Of a subject as `getpeercert()` decodes it. The last one counts, as in lib.csr: who signs and who verifies must mean the same."""
    return next((value for relative in reversed(subject) for name, value in reversed(relative) if name == "commonName"), "")


class Factory(web.Server):
    """Makes our kind of connection. `open`: how many there are; `strangers`: with how many one without a certificate gets none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.open = 0
        self.of_nodes: Counter[str] = Counter()
        self.strangers = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class ConnectionSink:
    """Pushes to one connection; satisfies request.Sink."""

    __slots__ = ("_chunked", "_connection", "done")

    def __init__(self, connection: Connection, chunked: bool) -> None:
        self._connection, self._chunked = connection, chunked
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connection.on_lost = self.done

    def write(self, data: bytes, chunk: bytes) -> None:
        stream = self._connection.stream
        if stream is not None and not self.done.done():
            stream.write(chunk if self._chunked else data)

    def buffered(self) -> int:
        stream = self._connection.stream
        return 0 if stream is None else stream.get_write_buffer_size()

    def close(self) -> None:
        if self.done.done():
            return
        stream = self._connection.stream
        if stream is not None:
            if self._chunked:
                stream.write(b"0\r\n\r\n")
            if stream.get_write_buffer_size() > SEND_BUFFER:  # it did not read for long: do not wait for ever
                asyncio.get_running_loop().call_later(ABORT_AFTER, _abort, self._connection)
        self.done.set_result(None)


def _abort(connection: Connection) -> None:
    if connection.stream is not None and connection.stream.get_write_buffer_size() > SEND_BUFFER:
        connection.stream.abort()


def keeps(raw: BaseRequest) -> bool:
    return bool(raw.keep_alive)


def head_of(raw: BaseRequest, status: int, content_type: str, headers: dict[str, str], length: int | None, keep: bool) -> bytes:
    parts = [b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\n" % (status, _REASONS.get(status, b"Unknown"), content_type.encode())]
    if "Cache-Control" not in headers:
        parts.append(b"Cache-Control: no-cache, private\r\n")
    parts += [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
    if length is not None:
        if status not in NO_BODY:
            parts.append(b"Content-Length: %d\r\n" % length)
    elif raw.version >= (1, 1):
        parts.append(b"Transfer-Encoding: chunked\r\n")
    if not keep:
        parts.append(b"Connection: close\r\n")
    elif raw.version < (1, 1):
        parts.append(b"Connection: keep-alive\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def packed(body: bytes) -> bytes:
    import gzip

    return gzip.compress(body, 4)
