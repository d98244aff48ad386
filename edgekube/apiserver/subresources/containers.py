"""pods/log, exec, attach, portforward: requests that the pod's kubelet answers. Checked here, then passed on.

The options are mapped to the kubelet's own addresses and parameters as upstream does (pkg/registry/core/pod/rest); the caller's credentials
never reach the kubelet: it sees the API server's client certificate.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from edgekube.api import catalog, problems
from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.relay import (
    NodeDialer,
    Outgoing,
    exchange,
    forwarded_headers,
    is_upgrade,
    query_string,
    read_all,
    streamed,
    tunnel,
)
from edgekube.apiserver.request import AnyResponse, Request, Response
from edgekube.apiserver.subresources.protocol import Subresource
from edgekube.errors import ApiError, BadRequest, Invalid, NotFound, Problem

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

_ERROR_LIMIT = 2048
_STREAMS = ("All", "Stderr", "Stdout")
_EXEC_OPTIONS = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))
_LOG_NUMBERS = ("sinceSeconds", "tailLines", "limitBytes")
_LOG_FLAGS = ("follow", "previous", "timestamps")


class LogSubresource(Subresource):
    """GET pods/NAME/log."""

    name = "log"
    resources = ("pods",)
    streams = True

    def __init__(self, dialer: NodeDialer) -> None:
        self._dialer = dialer

    async def connect(self, server: "Server", op: Operation, request: Request) -> AnyResponse:
        options = log_options(request, op.name)
        pod = _pod(server, op)
        container = choose_container(pod, request.param("container"))
        node = pod["spec"].get("nodeName")
        if not node:
            return Response(200, b"", content_type="text/plain")
        path = f"/containerLogs/{quote(op.namespace)}/{quote(op.name)}/{quote(container)}"
        outgoing = Outgoing("GET", path + query_string(options), node, [("Connection", "close")])
        streams = await self._dialer.dial(node)
        head = await exchange(streams, outgoing)
        if not 200 <= head.status < 207:
            text = (await read_all(streams, head, _ERROR_LIMIT)).decode("utf-8", "replace")
            raise kubelet_error(head.status, text, op)
        answer = streamed(streams, head, "GET")
        answer.content_type = "text/plain"
        return answer


class StreamSubresource(Subresource):
    """GET or POST pods/NAME/exec and attach: the connection becomes several streams."""

    resources = ("pods",)
    streams = True

    def __init__(self, name: str, dialer: NodeDialer) -> None:
        self.name = name
        self._dialer = dialer

    async def connect(self, server: "Server", op: Operation, request: Request) -> AnyResponse:
        if not is_upgrade(request):
            raise BadRequest("Upgrade request required")
        pod = _pod(server, op)
        container = choose_container(pod, request.param("container"))
        await server.admit(op, "CONNECT", None, None)
        options = [(theirs, "1") for ours, theirs in _EXEC_OPTIONS if flag(request, ours)]
        if self.name == "exec":
            options += [("command", word) for word in request.query.get("command", ())]
        path = f"/{self.name}/{quote(op.namespace)}/{quote(op.name)}/{quote(container)}"
        return await _tunnel_to(self._dialer, pod, request, path + query_string(options))


class PortForwardSubresource(Subresource):
    """GET or POST pods/NAME/portforward."""

    name = "portforward"
    resources = ("pods",)
    streams = True

    def __init__(self, dialer: NodeDialer) -> None:
        self._dialer = dialer

    async def connect(self, server: "Server", op: Operation, request: Request) -> AnyResponse:
        if not is_upgrade(request):
            raise BadRequest("Upgrade request required")
        pod = _pod(server, op)
        await server.admit(op, "CONNECT", None, None)
        ports = [port for value in request.query.get("ports", ()) for port in value.split(",") if port]
        for port in ports:
            if not port.isdigit():
                raise BadRequest(f'unable to parse "{port}" as a port')
        options = [("port", ",".join(ports))] if ports else []
        path = f"/portForward/{quote(op.namespace)}/{quote(op.name)}"
        return await _tunnel_to(self._dialer, pod, request, path + query_string(options))


def build(dialer: NodeDialer) -> Sequence[Subresource]:
    """The conversations with containers."""
    return (LogSubresource(dialer), StreamSubresource("exec", dialer), StreamSubresource("attach", dialer), PortForwardSubresource(dialer))


async def _tunnel_to(dialer: NodeDialer, pod: Obj, request: Request, target: str) -> AnyResponse:
    node = pod["spec"].get("nodeName")
    if not node:
        raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")
    outgoing = Outgoing(request.method, target, node, forwarded_headers(request.headers, upgrade=True))
    return tunnel(await dialer.dial(node), outgoing)


def _pod(server: "Server", op: Operation) -> Obj:
    return server.registry.get(catalog.POD, op.namespace, op.name).decode()


def choose_container(pod: Obj, wanted: str) -> str:
    """The container asked for, or the only one. Raises BadRequest as upstream words it."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    every = [one["name"] for field in ("initContainers", "containers", "ephemeralContainers") for one in spec.get(field) or ()]
    if wanted:
        if wanted not in every:
            raise BadRequest(f"container {wanted} is not valid for pod {name}")
        return wanted
    containers: Sequence[Obj] = spec.get("containers") or ()
    if len(containers) == 1:
        return str(containers[0]["name"])
    if not containers:
        raise BadRequest(f"a container name must be specified for pod {name}")
    raise BadRequest(f"a container name must be specified for pod {name}, choose one of: [{' '.join(every)}]")


def log_options(request: Request, pod: str) -> list[tuple[str, str]]:
    """PodLogOptions as the kubelet's parameters. Raises BadRequest (not a number) or Invalid."""
    numbers = {name: _number(request, name) for name in _LOG_NUMBERS}
    since_time, stream = request.param("sinceTime"), request.param("stream") or "All"
    found: list[Problem] = []
    tail, limit, since = numbers["tailLines"], numbers["limitBytes"], numbers["sinceSeconds"]
    if tail is not None and tail < 0:
        found.append(problems.invalid("tailLines", tail, "must be greater than or equal to 0"))
    if limit is not None and limit < 1:
        found.append(problems.invalid("limitBytes", limit, "must be greater than 0"))
    if since is not None and since_time:
        found.append(problems.forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif since is not None and since < 1:
        found.append(problems.invalid("sinceSeconds", since, "must be greater than 0"))
    if stream not in _STREAMS:
        found.append(problems.not_supported("stream", stream, _STREAMS))
    elif stream != "All" and tail is not None:
        found.append(problems.forbidden("", "`tailLines` and specific `stream` are mutually exclusive for now"))
    if found:
        raise Invalid.of("", "PodLogOptions", pod, found)
    options = [(name, "true") for name in _LOG_FLAGS if flag(request, name)]
    options += [(name, str(value)) for name, value in numbers.items() if value is not None]
    options += [("sinceTime", since_time)] if since_time else []
    return options + ([("stream", stream)] if stream != "All" else [])


def flag(request: Request, name: str) -> bool:
    """A boolean parameter as Go reads it."""
    text = request.param(name)
    return text not in ("", "0", "f", "F", "false", "FALSE", "False")


def _number(request: Request, name: str) -> int | None:
    text = request.param(name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def kubelet_error(status: int, text: str, op: Operation) -> ApiError:
    """What a kubelet's refusal means to the client (GenericHttpResponseChecker)."""
    if status == 400:
        return BadRequest(text)
    if status == 404:
        details = {"name": op.name, "kind": "pods/log"}
        return NotFound(f"the server could not find the requested resource ( pods/log {op.name})", details=details)
    if status == 500:
        return ApiError(f"Internal error occurred: {text}", details={"causes": [{"message": text}]})
    known = ApiError.from_status({"code": status, "reason": "", "message": text})
    known.message = f"the server responded with the status code {status} but did not return more information ( pods/log {op.name})"
    return known
