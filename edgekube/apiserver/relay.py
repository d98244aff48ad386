"""Passing HTTP on to a kubelet or a pod: one request over one connection, answers streamed, upgrades handed over as raw bytes.

Nothing is buffered without bound: every write is followed by `drain`. A tunnel carries bytes in both directions only after the other side
has answered 101; any other answer is relayed alone and the connection closed, so that a client never gets a second request through.
The other side may be a stolen node: a head that a client could read in another way than we do, and so take part of it for the answer to
its next request, is no HTTP to us.
"""

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import quote

import orjson

from edgekube.apiserver.request import AnyResponse, Request, StreamResponse, TunnelResponse
from edgekube.errors import ApiError, ServiceUnavailable
from edgekube.lib.pump import both_ways

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_HEAD_LIMIT = 64 * 1024
_PIECE = 64 * 1024
_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "host")
)
_REPEATED = {"x-stream-protocol-version": "[,\n]"}  # sent once per version; repeated headers arrive joined
_CREDENTIALS = frozenset(("authorization", "cookie"))
_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([1-5][0-9]{2})(?: ([^\r\n\0]*))?")
_HEADER_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n\0]*)")
_BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."


class NodeDialer(Protocol):
    """How to reach a node's kubelet: directly, or through the connection that the node opened."""

    async def dial(self, node_name: str) -> Streams:
        """An open, encrypted connection. Raises ApiError saying what failed."""

    async def dial_pod(self, node_name: str, target: "PodTarget") -> Streams | None:
        """A connection to a pod through its node; None where pods are reached by their address. Raises ApiError."""


class PodTarget(NamedTuple):
    """A port of a pod. With the scheme `https` the far end speaks TLS to it, so that here it is plain too."""

    namespace: str
    pod: str
    port: int
    scheme: str = "http"


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an HTTP answer. Header names are lower case."""

    status: int
    reason: str
    headers: Sequence[tuple[str, str]] = field(default_factory=tuple)

    def get(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.headers if key == name), default)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is sent on."""

    method: str
    target: str  # path and query
    host: str
    headers: Sequence[tuple[str, str]]
    body: bytes = b""

    def encode(self) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in self.headers if "\n" not in value and "\r" not in value]
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + self.body


def query_string(pairs: Iterable[tuple[str, str]]) -> str:
    """`?a=b&c=d`, or nothing."""
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    return f"?{text}" if text else ""


def forwarded_headers(headers: Mapping[str, str], *, upgrade: bool) -> list[tuple[str, str]]:
    """The client's headers without what belongs to its own connection and without its credentials."""
    passed = [
        (name, value.strip())
        for name, joined in headers.items()
        for value in re.split(_REPEATED.get(name, "\n"), joined)  # a value must never become lines of a head
        if name not in _HOP and name not in _CREDENTIALS and name != "content-length" and not name.startswith("impersonate-")
    ]
    passed = [(name, _without_bearer(value) if name == "sec-websocket-protocol" else value) for name, value in passed]
    passed = [(name, value) for name, value in passed if value or name != "sec-websocket-protocol"]
    if upgrade:
        return [*passed, ("Connection", "Upgrade"), ("Upgrade", headers.get("upgrade", "websocket"))]
    return [*passed, ("Connection", "close")]


def is_upgrade(request: Request) -> bool:
    """Whether the client wants the connection itself."""
    tokens = {token.strip().lower() for token in request.headers.get("connection", "").split(",")}
    return "upgrade" in tokens and bool(request.headers.get("upgrade"))


async def connect(host: str, port: int, *, tls: ssl.SSLContext | None = None, server_name: str = "", timeout: float = 10.0) -> Streams:
    """Open a connection. Raises ApiError worded as upstream's dialer."""
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.open_connection(
                host, port, ssl=tls, server_hostname=server_name or None if tls else None, limit=_HEAD_LIMIT
            )
    except TimeoutError:
        raise ServiceUnavailable(f"error dialing backend: dial tcp {host}:{port}: i/o timeout") from None
    except ssl.SSLError as error:
        raise ApiError(f"Internal error occurred: error dialing backend: tls: {error.reason or error}") from error
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
        raise ApiError(f"Internal error occurred: error dialing backend: dial tcp {host}:{port}: connect: {why}") from error


async def exchange(streams: Streams, outgoing: Outgoing) -> Head:
    """Send the request and read the answer's head; the body follows from `body_of`. Raises ApiError when the other side breaks off."""
    reader, writer = streams
    try:
        writer.write(outgoing.encode())
        await writer.drain()
        head = await read_head(reader)
        while head.status in (100, 102, 103):
            head = await read_head(reader)
    except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
        await close(writer)
        raise ApiError(f"Internal error occurred: error trying to reach service: {_why(error)}") from error
    except BaseException:
        writer.close()
        raise
    return head


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Raises ValueError if it is no HTTP, EOFError if there is nothing."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    first = _STATUS_LINE.fullmatch(lines[0])
    if first is None:
        raise ValueError("malformed HTTP response")
    headers = []
    for line in filter(None, lines[1:]):
        found = _HEADER_LINE.fullmatch(line)
        if found is None:
            raise ValueError("malformed HTTP response")
        headers.append((found[1].lower(), found[2].strip()))
    return Head(int(first[1]), first[2] or "", headers)


async def body_of(streams: Streams, head: Head, method: str = "GET") -> AsyncGenerator[bytes, None]:
    """The answer's body in pieces as they arrive; closes the connection at the end, and when the iteration is given up."""
    reader, writer = streams
    try:
        if method == "HEAD" or head.status in (204, 304):
            return
        if "chunked" in head.get("transfer-encoding").lower():
            async for piece in _chunked(reader):
                yield piece
            return
        left = int(head.get("content-length", "-1"))
        while left != 0 and (piece := await reader.read(_PIECE if left < 0 else min(_PIECE, left))):
            left -= len(piece) if left > 0 else 0
            yield piece
    except (OSError, EOFError, ValueError):
        return  # the other side broke off: the client sees the end, as with upstream's relay
    finally:
        writer.close()


async def _chunked(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    while True:
        left = int((await reader.readline()).split(b";")[0], 16)
        if left == 0:
            return
        while left:
            piece = await reader.read(min(left, _PIECE))
            if not piece:
                raise EOFError
            left -= len(piece)
            yield piece
        await reader.readline()


async def read_all(streams: Streams, head: Head, limit: int) -> bytes:
    """The first `limit` bytes of the body, then the connection is closed."""
    data = b""
    async with contextlib.aclosing(body_of(streams, head)) as pieces:
        async for piece in pieces:
            data += piece
            if len(data) >= limit:
                break
    return data[:limit]


def streamed(streams: Streams, head: Head, method: str) -> StreamResponse:
    """The answer as our own answer."""
    dropped = _HOP | {"content-type", "content-length", "date", "server"}
    headers = {name: value for name, value in head.headers if name not in dropped}
    return StreamResponse(head.status, body_of(streams, head, method), content_type=head.get("content-type"), headers=headers)


async def relay(streams: Streams, outgoing: Outgoing) -> AnyResponse:
    """One plain request, passed on and answered. Raises ApiError."""
    head = await exchange(streams, outgoing)
    if head.status < 200:
        streams[1].close()
        raise ApiError(f"Internal error occurred: error trying to reach service: it answered {head.status}, which nobody asked for")
    return streamed(streams, head, outgoing.method)


def tunnel(streams: Streams, outgoing: Outgoing) -> TunnelResponse:
    """An upgrade, passed on. The connection to the other side is already open, so that failing to reach it is a proper refusal."""

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = streams
        try:
            head = await exchange(streams, outgoing)
            writer.write(_encode_head(head))
            await writer.drain()
            if head.status == 101:
                await both_ways((reader, writer), (there_reader, there_writer))
                return
            async for piece in body_of(streams, head):
                writer.write(piece)
                await writer.drain()
        except ApiError as error:
            writer.write(_encode_refusal(error))
        except (ConnectionError, ssl.SSLError):
            return  # one side is gone: there is nobody to tell
        finally:
            for end in (there_writer, writer):
                await close(end)

    return TunnelResponse(run)


async def close(writer: asyncio.StreamWriter) -> None:
    """Flush and close; a side that is gone is closed enough."""
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        async with asyncio.timeout(5):
            await writer.wait_closed()


def _encode_head(head: Head) -> bytes:
    """The head as the client sees it: an answer that is no upgrade ends the connection."""
    headers = list(head.headers)
    if head.status != 101:
        headers = [(name, value) for name, value in headers if name not in ("connection", "transfer-encoding", "keep-alive")]
        headers.append(("connection", "close"))
    lines = [f"HTTP/1.1 {head.status} {head.reason}", *(f"{name.title()}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace")


def _encode_refusal(error: ApiError) -> bytes:
    body = orjson.dumps(error.to_status())
    lines = (f"HTTP/1.1 {error.code} {error.reason}", "Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close")
    return "\r\n".join((*lines, "", "")).encode() + body


def _without_bearer(protocols: str) -> str:
    kept = [one.strip() for one in protocols.split(",") if not one.strip().startswith(_BEARER_PROTOCOL)]
    return ", ".join(filter(None, kept))


def _why(error: BaseException) -> str:
    return "EOF" if isinstance(error, EOFError) else str(error) or type(error).__name__
