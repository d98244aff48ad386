"""HTTP/1.1 for the node's API: small requests in, answers out whole or in pieces, and connections that are handed over after an upgrade.

Its own few lines because every framework in reach either refuses an upgrade to anything but WebSocket or keeps the connection to itself.
Only callers with a certificate of our authority (or a valid token) get past the gate, so this never faces the open Internet.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

log = logging.getLogger(__name__)

_HEAD_LIMIT = 64 << 10
_BODY_LIMIT = 64 << 10  # none of our requests needs one, and it is read before it is known who asks
_IDLE_SECONDS = 90.0
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    name: str
    groups: Sequence[str] = ()


@dataclass(slots=True)
class Request:
    """One request. `reader` and `writer` belong to whoever answers None."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    certificate: Caller | None = None
    body: bytes = b""

    def param(self, name: str, default: str = "") -> str:
        return next(iter(self.query.get(name, ())), default)

    def flag(self, name: str) -> bool:
        return self.param(name) in ("1", "true")

    def upgrades_to(self, protocol: str) -> bool:
        tokens = {token.strip().lower() for token in self.headers.get("connection", "").split(",")}
        return "upgrade" in tokens and self.headers.get("upgrade", "").lower() == protocol.lower()

    @property
    def upgrade(self) -> bool:
        return "upgrade" in self.headers.get("connection", "").lower() and bool(self.headers.get("upgrade"))

    async def switch(self, protocol: str, headers: Mapping[str, str]) -> None:
        """Answer 101; from then on the connection is the handler's."""
        lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {protocol}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        await self.writer.drain()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; a body in pieces is sent chunked, each piece at once."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = PLAIN
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Reply | None]]


async def serve_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler, caller: Caller | None = None
) -> None:
    """Answer the requests of one connection until it ends. Without `caller` it is who the connection's certificate says."""
    certificate = caller or _certificate(writer)
    try:
        while True:
            request = await _read(reader, writer)
            if request is None:
                return
            request.certificate = certificate
            reply = await handler(request)
            if reply is None:
                return
            last = request.upgrade or request.headers.get("connection", "").lower() == "close"
            await _send(writer, reply, head_only=request.method == "HEAD", last=last)
            if last:
                return
    except (OSError, EOFError, TimeoutError, ValueError, ssl.SSLError, asyncio.LimitOverrunError):
        return  # the caller is gone or speaks no HTTP: nobody to tell
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(5.0):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    async with asyncio.timeout(_IDLE_SECONDS):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
    lines = head.decode("latin-1").split("\r\n")
    method, target, version = lines[0].split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("not HTTP/1")
    headers: dict[str, str] = {}
    for line in filter(None, lines[1:]):
        name, _, value = line.partition(":")
        key = name.strip().lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    request = Request(method, unquote(parts.path), query, headers, reader, writer)
    if not request.upgrade:
        async with asyncio.timeout(_IDLE_SECONDS):
            request.body = await _read_body(reader, headers)
    return request


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = bytearray()
        while size := int((await reader.readline()).split(b";")[0], 16):
            if len(body) + size > _BODY_LIMIT:
                raise ValueError("body too large")
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return bytes(body)
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= _BODY_LIMIT:
        raise ValueError("body too large")
    return await reader.readexactly(length) if length else b""


async def _send(writer: asyncio.StreamWriter, reply: Reply, *, head_only: bool, last: bool) -> None:
    whole = reply.body if isinstance(reply.body, bytes) else None
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", f"Content-Type: {reply.content_type}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines.append("Transfer-Encoding: chunked" if whole is None else f"Content-Length: {len(whole)}")
    if last:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "", ""]).encode()
    if isinstance(reply.body, bytes):
        writer.write(head if head_only else head + reply.body)
        await writer.drain()
        return
    writer.write(head)
    await writer.drain()
    async for piece in reply.body:
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _certificate(writer: asyncio.StreamWriter) -> Caller | None:
    """Name and groups of the verified client certificate."""
    tls = writer.get_extra_info("ssl_object")
    found = tls.getpeercert() if tls is not None else None
    if not found:
        return None
    names, groups = "", []
    for part in found.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                names = value
            elif key == "organizationName":
                groups.append(value)
    return Caller(names, (*groups, "system:authenticated")) if names else None
