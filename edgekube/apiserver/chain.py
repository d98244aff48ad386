"""What every request passes, in order, each with the reason for its place.

measure       outermost: it must see every answer, also those that other filters give
translate     turns refusals into Status answers for all below it; nothing below needs to know how errors look
authenticate  before anything that depends on who asks
impersonate   needs the real user; everything after it must see the assumed one
authorize     after the last change of user; before anything that looks at objects
dispatch      the handler
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from prometheus_client import Counter, Histogram

from edgekube.apiserver.authn import ANONYMOUS_PATHS, websocket_bearer
from edgekube.apiserver.codec import render
from edgekube.apiserver.dispatch import dispatch
from edgekube.apiserver.identity import ANONYMOUS, Attributes, User
from edgekube.apiserver.impersonation import impersonated
from edgekube.apiserver.negotiate import PLAIN, Output, negotiate
from edgekube.apiserver.request import AnyResponse, PushResponse, Request, Response, StreamResponse, TakeoverResponse, TunnelResponse
from edgekube.apiserver.target import parse
from edgekube.errors import ApiError, NotAcceptable, Unauthorized
from edgekube.lib import metrics
from edgekube.store.protocol import StoreError

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[AnyResponse]]


class Filter(Protocol):
    async def __call__(self, server: "Server", request: Request, following: Handler) -> AnyResponse: ...


def compose(server: "Server", filters: tuple[Filter, ...]) -> Handler:
    """One handler out of the filters, the first outermost."""

    async def innermost(request: Request) -> AnyResponse:
        return await dispatch(server, request)

    handler: Handler = innermost
    for each in reversed(filters):
        handler = _bound(server, each, handler)
    return handler


def _bound(server: "Server", each: Filter, following: Handler) -> Handler:
    def handle(request: Request) -> Awaitable[AnyResponse]:
        return each(server, request, following)

    return handle


_LABELS = ("verb", "group", "version", "resource", "subresource", "scope", "component", "code")
_BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
REQUESTS = metrics.counter("apiserver_request_total", "Answered requests.", _LABELS)
DURATION = metrics.histogram("apiserver_request_duration_seconds", "Time to the answer, watches left out.", _LABELS[:-1], buckets=_BUCKETS)
INFLIGHT = metrics.gauge("apiserver_current_inflight_requests", "Requests being answered now.", ("request_kind",))
_READING = INFLIGHT.labels("readOnly")
_WRITING = INFLIGHT.labels("mutating")
_READS = frozenset(("get", "list", "watch", "head", "options"))


class _Measures:
    """Metric children by request class: `labels()` costs more than the rest of the measuring."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._timers: dict[tuple[str, ...], Histogram] = {}

    def record(self, key: tuple[str, ...], code: int, seconds: float | None) -> None:
        full = (*key, str(code))
        counter = self._counters.get(full)
        if counter is None:
            counter = self._counters[full] = REQUESTS.labels(*full)
        counter.inc()
        if seconds is None:
            return
        timer = self._timers.get(key)
        if timer is None:
            timer = self._timers[key] = DURATION.labels(*key)
        timer.observe(seconds)


_MEASURES = _Measures()


async def measure(server: "Server", request: Request, following: Handler) -> AnyResponse:
    """Counts and times; labels come from what the server knows, never from what a client wrote."""
    request.target = target = parse(request)
    inflight = _READING if target.verb in _READS else _WRITING
    started = time.perf_counter()
    inflight.inc()
    try:
        response = await following(request)
    finally:
        inflight.dec()
    kind = server.find_kind(target.group, target.version, target.resource) if target.resource else None
    if kind is not None:
        known = target.subresource if target.subresource and server.subresource(kind, target.subresource) else ""
        scope = "resource" if target.name else "namespace" if target.namespace else "cluster"
        key = (target.verb.upper(), kind.group, kind.version, kind.plural, known, scope, "apiserver")
    else:
        key = (request.method if request.method in ("GET", "POST", "PUT", "PATCH", "DELETE") else "other", "", "", "", "", "", "apiserver")
    lasting = isinstance(response, (PushResponse, TakeoverResponse, TunnelResponse))
    code = response.status if isinstance(response, (Response, StreamResponse)) else 200
    _MEASURES.record(key, code, None if lasting else time.perf_counter() - started)
    return response


async def translate(server: "Server", request: Request, following: Handler) -> AnyResponse:
    """The last filter: whatever went wrong becomes a Status; warnings become headers."""
    try:
        response = await following(request)
    except ApiError as error:
        response = refused(request, error)
    except StoreError as error:
        log.error("store refused", extra={"path": request.path, "error": str(error)})
        response = refused(request, ApiError(f"Internal error occurred: {error}"))
    except Exception:
        log.exception("request failed", extra={"path": request.path, "method": request.method})
        response = refused(request, ApiError("Internal error occurred: this is a bug, see the server's log"))
    if request.warnings and isinstance(response, (Response, StreamResponse)):
        response.headers["Warning"] = ", ".join(f'299 - "{_quoted(text)}"' for text in request.warnings)
    return response


def _quoted(text: str) -> str:
    plain = "".join(each if each.isprintable() and each.isascii() else " " for each in text)
    return plain.replace("\\", "\\\\").replace('"', '\\"')


def refused(request: Request, error: ApiError) -> Response:
    """The Status of an error, in a form the client can read."""
    try:
        output = negotiate(request.headers.get("accept", ""), protobuf=request.protobuf)
        output = Output(media=output.media)
    except NotAcceptable:
        output = PLAIN
    headers = {}
    if error.retry_after:
        headers["Retry-After"] = str(error.retry_after)
    return Response(error.code, render(error.to_status(), output), output.media, headers)


async def authenticate(server: "Server", request: Request, following: Handler) -> AnyResponse:
    """Certificates and tokens. Who shows nothing may see what is open to everybody and nothing else."""
    if server.routes.is_anonymous(request.path):  # whatever credentials come along do not matter: they may have expired
        request.user = ANONYMOUS
        return await following(request)
    authorization = request.headers.get("authorization", "") or websocket_bearer(request.headers)
    user = await server.authenticator.authenticate(authorization, request.certificate)
    if user is None:
        if request.path not in ANONYMOUS_PATHS:
            raise Unauthorized
        user = ANONYMOUS
    request.user = user
    return await following(request)


async def impersonate(server: "Server", request: Request, following: Handler) -> AnyResponse:
    """Act as somebody else, for those who may."""
    request.user = impersonated(server, request.user, request.headers)
    return await following(request)


async def authorize(server: "Server", request: Request, following: Handler) -> AnyResponse:
    """Raises Forbidden unless the user may do what the address and the method say."""
    server.require(attributes_of(request.user, request))
    return await following(request)


def attributes_of(user: User, request: Request) -> Attributes:
    target = request.target
    if not target.resource:
        return Attributes(user=user, verb=target.verb, path=request.path)
    return Attributes(
        user=user,
        verb=target.verb,
        resource=target.resource,
        subresource=target.subresource,
        group=target.group,
        version=target.version,
        namespace=target.namespace,
        name=target.name,
        path=request.path,
        fields=request.param("fieldSelector"),
    )


FILTERS: tuple[Filter, ...] = (measure, translate, authenticate, impersonate, authorize)
INSIDE: tuple[Filter, ...] = (measure, translate, authorize)  # for callers in the process: they are who they say
