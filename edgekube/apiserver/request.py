"""Requests and responses of the core, independent of the HTTP library. What a path means is in `target`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgekube.apiserver.identity import ANONYMOUS, PeerCertificate, User


@dataclass(frozen=True, slots=True)
class Target:
    """What a path addresses. `resource` is "" for non-resource paths."""

    verb: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""  # what follows a proxy subresource


NO_TARGET = Target("")


@dataclass(slots=True)
class Request:
    """One request. Header names are lower case; `query` keeps repeated values."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    read_body: Callable[[], Awaitable[bytes]]
    certificate: PeerCertificate | None = None
    remote: str = ""
    user: User = ANONYMOUS
    warnings: list[str] = field(default_factory=list)  # sent as Warning headers: 299 - "..."
    target: Target = NO_TARGET  # filled in by the chain
    protobuf: bool = True  # whether the addressed kind has protobuf messages; filled in by the dispatcher
    head: bytes = b""  # request line and headers as they came, for tunnels

    def param(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default


@dataclass(slots=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class StreamResponse:
    """An answer in pieces (watch, long list, log). The iterator is closed when the client goes away."""

    status: int
    chunks: AsyncIterator[bytes]
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class TunnelResponse:
    """The connection itself is handed over: `run` gets the raw byte streams both ways and writes its own HTTP answer (101 or an error).
    `head` is the request as it must be repeated to a peer: request line and headers are in the Request."""

    run: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class TakeoverResponse:
    """As TunnelResponse, for who works with protocols: `run` gets the transport, what was read from it already, and a factory for
    connections of ours, with which other transports can be answered as if they had been accepted."""

    run: Callable[[asyncio.Transport, bytes, Callable[[], asyncio.Protocol]], Awaitable[None]]


class Sink(Protocol):
    """Where a push response writes. Nothing waits: look at `buffered` and hold back. Writes after the client left do nothing."""

    def write(self, data: bytes, chunk: bytes) -> None:
        """`data`, also given framed as one HTTP/1.1 chunk so that many sinks can share the framing."""

    def buffered(self) -> int:
        """Bytes the client has not taken yet."""

    def close(self) -> None:
        """End the answer after what was written; idempotent."""


@dataclass(slots=True)
class PushResponse:
    """An answer that others write (watch): `start` registers the sink and returns at once; the answer lasts until the sink is closed or
    the client leaves, then `stop` is called once."""

    start: Callable[[Sink], None]
    stop: Callable[[], None]
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


AnyResponse = Response | StreamResponse | PushResponse | TunnelResponse | TakeoverResponse
