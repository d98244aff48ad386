"""Addresses that are no objects: health, version, metrics, discovery, OpenAPI, our own (`add`), and the list of them all at `/`.

Documents are built when first asked for and kept with their ETag until the set of kinds changes.
"""

import asyncio
import hashlib
import platform
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from edgekube import __version__
from edgekube.api import discovery, openapi, openapi_protobuf
from edgekube.apiserver.codec import render
from edgekube.apiserver.health import Health
from edgekube.apiserver.negotiate import JSON, Output, negotiate
from edgekube.apiserver.request import AnyResponse, Request, Response
from edgekube.errors import MethodNotAllowed, NotAcceptable, NotFound
from edgekube.lib import metrics

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

__all__ = ("Health", "Routes")

KUBERNETES_MINOR = 36
_ROOTS = frozenset(("", "api", "apis", "healthz", "livez", "metrics", "openapi", "readyz", "version"))
_PLAIN = "text/plain; charset=utf-8"


def version_info() -> dict[str, str]:
    """What /version says; the suffix tells edgekube from others."""
    machine = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(platform.machine(), platform.machine())
    return {
        "major": "1",
        "minor": str(KUBERNETES_MINOR),
        "gitVersion": f"v1.{KUBERNETES_MINOR}.0+edgekube{__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "python",
        "platform": f"linux/{machine}",
    }


@dataclass(frozen=True, slots=True)
class Route:
    """An address that a part of ours answers. `anonymous`: credentials are not needed; RBAC still decides what nobody may."""

    handler: Callable[[Request], Awaitable[AnyResponse]]
    methods: Sequence[str]
    anonymous: bool


class Routes:
    """Handles requests whose target is no resource."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._documents: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._added: dict[str, Route] = {}

    def add(
        self,
        path: str,
        handler: Callable[[Request], Awaitable[AnyResponse]],
        *,
        methods: Sequence[str] = ("GET",),
        anonymous: bool = False,
    ) -> None:
        """One more address (exact, without a slash at the end). An upgrade answers with a TunnelResponse. Who may use it is for RBAC to
        say (verb: the method in lower case; bootstrap/policy.py), for `anonymous` ones too: system:unauthenticated needs a rule."""
        self._added[path] = Route(handler, tuple(methods), anonymous)

    def is_anonymous(self, path: str) -> bool:
        """Whether the address answers who shows no credentials."""
        route = self._added.get(path)
        return route is not None and route.anonymous

    async def handle(self, request: Request) -> AnyResponse:
        """Raises NotFound, MethodNotAllowed."""
        path = request.path.rstrip("/") or "/"
        route = self._added.get(path)
        if route is not None:
            if ("GET" if request.method == "HEAD" else request.method) not in route.methods:
                raise MethodNotAllowed
            return await route.handler(request)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed if self._known(path) else NotFound.path()
        first = path.split("/")[1]
        match first:
            case "healthz" | "livez" | "readyz":
                return self._server.health.respond(path, verbose="verbose" in request.query, exclude=request.query.get("exclude", ()))
            case "metrics":
                return Response(200, await asyncio.to_thread(metrics.render), metrics.CONTENT_TYPE)
            case "version":
                return self._json(request, version_info())
            case "api" | "apis":
                return self._discovery(request, path)
            case "openapi":
                return await self._openapi(request, path)
            case "":
                return self._json(request, {"paths": self._paths()})
        raise NotFound.path()

    def _known(self, path: str) -> bool:
        return path.split("/")[1] in _ROOTS

    def _groups(self) -> Sequence[tuple[str, str]]:
        return tuple(dict.fromkeys((kind.group, kind.version) for kind in self._server.kinds))

    def _paths(self) -> list[str]:
        found = ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version", *self._added]
        for group, version in self._groups():
            found += [f"/apis/{group}", f"/apis/{group}/{version}"] if group else [f"/api/{version}"]
        found += [f"{root}/{name}" for root in ("/healthz", "/livez", "/readyz") for name in self._server.health.names(root[1:])]
        return sorted(set(found))

    def _json(self, request: Request, value: Any) -> Response:
        """Upstream writes these as JSON whatever the client accepts; YAML is an extra."""
        try:
            media = negotiate(request.headers.get("accept", ""), transform=False, protobuf=False).media
        except NotAcceptable:
            media = JSON
        return Response(200, render(value, Output(media=media, pretty=True)), media)

    def _discovery(self, request: Request, path: str) -> Response:
        kinds = self._server.kinds
        parts = path.split("/")[1:]
        if len(parts) == 1:
            aggregated = discovery.accepts_aggregated(request.headers.get("accept", ""))
            if aggregated:
                core = parts[0] == "api"
                return self._document(request, path, discovery.AGGREGATED, lambda: discovery.aggregated(kinds, core=core))
            if parts[0] == "api":
                return self._document(request, path, JSON, lambda: discovery.api_versions(request.headers.get("host", "")))
            return self._document(request, path, JSON, lambda: discovery.api_groups(kinds))
        if parts[0] == "api":
            group, version = "", parts[1] if len(parts) == 2 else ""
        else:
            group, version = parts[1], parts[2] if len(parts) == 3 else ""
        groups = self._groups()
        if len(parts) == 2 and parts[0] == "apis" and any(found == group for found, _ in groups):
            return self._document(request, path, JSON, lambda: discovery.api_group(kinds, group))
        if (group, version) not in groups:
            raise NotFound.path()
        return self._document(request, path, JSON, lambda: discovery.api_resources(kinds, group, version))

    async def _openapi(self, request: Request, path: str) -> Response:
        kinds = self._server.kinds
        parts = path.split("/")[2:]
        if parts == ["v3"]:
            return self._document(request, path, JSON, lambda: openapi.v3_root(kinds))
        if parts != ["v2"] and parts[:1] != ["v3"]:
            raise NotFound.path()
        accept = request.headers.get("accept", "")
        if parts == ["v2"] and openapi_protobuf.preferred(accept):
            media = openapi_protobuf.ANSWER_TYPE
            if (path, media) not in self._documents:
                packed = await asyncio.to_thread(lambda: openapi_protobuf.document(openapi.v2(kinds)))
                self._documents[path, media] = (packed, _etag(packed))
            return self._document(request, path, media, dict)
        negotiate(accept, transform=False, protobuf=False)
        if (path, JSON) not in self._documents:
            wanted = "/".join(parts[1:])
            body = await asyncio.to_thread(lambda: openapi.v3(kinds, wanted) if wanted else openapi.v2(kinds))
            if body is None:
                raise NotFound.path()
            self._documents[path, JSON] = (body, _etag(body))
        return self._document(request, path, JSON, dict)

    def _document(self, request: Request, path: str, media: str, build: Callable[[], Any]) -> Response:
        if media == JSON:
            try:
                messages = not path.startswith("/openapi")
                output = negotiate(request.headers.get("accept", ""), transform=False, protobuf=messages)
            except NotAcceptable:
                if not path.startswith("/openapi"):
                    raise
                output = Output()
            if output.media != JSON:
                return Response(200, render(build(), output), output.media)
        key = (path, media)
        if key not in self._documents:
            self._documents[key] = _built(build)
        body, etag = self._documents[key]
        headers = {"ETag": etag, "Vary": "Accept", "Cache-Control": "public"}
        if request.headers.get("if-none-match", "") == etag:
            return Response(304, b"", media, headers)
        return Response(200, body, media, headers)


def _built(build: Callable[[], Any]) -> tuple[bytes, str]:
    body = orjson.dumps(build())
    return body, _etag(body)


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha512(body).hexdigest().upper()}"'
