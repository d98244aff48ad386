"""Requests and responses of the core, independent of the HTTP library, and what a path means.

`/apis/apps/v1/namespaces/default/deployments/web/scale` is read once into a `Target`; the RBAC attributes fall out of it.
Source of the rules: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgekube.apiserver.identity import ANONYMOUS, PeerCertificate, User


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


AnyResponse = Response | StreamResponse | TunnelResponse


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
