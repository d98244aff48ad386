"""nodes/proxy, pods/proxy, services/proxy: HTTP passed on to a kubelet, a pod or one endpoint of a Service, upgrades included.

Names may carry scheme and port: `NAME`, `NAME:PORT`, `SCHEME:NAME:PORT`. Kubelets, and pods of nodes that have dialed in, are reached
through the NodeDialer, all else directly. Addresses in Nodes, pods and endpoints are what a node or a user wrote: this machine's own
loopback and whatever else is of one link or host is nothing to go to for somebody else (upstream: IsProxyableHostname).
"""

import asyncio
import ipaddress
import random
import socket
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

from edgekube.api import catalog
from edgekube.api.types import Obj
from edgekube.apiserver.dialer import address_of
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.relay import (
    NodeDialer,
    Outgoing,
    PodTarget,
    Streams,
    connect,
    forwarded_headers,
    is_upgrade,
    query_string,
    relay,
    tunnel,
)
from edgekube.apiserver.request import AnyResponse, Request, Response, StreamResponse
from edgekube.apiserver.subresources.protocol import Subresource
from edgekube.errors import BadRequest, ServiceUnavailable

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

_KUBELET_PORTS = ("", "10250")


class Address(NamedTuple):
    scheme: str
    name: str
    port: str


class Endpoint(NamedTuple):
    """An address and port, and whose they are if that is known."""

    address: str
    port: int
    node: str = ""
    pod: str = ""


class ProxySubresource(Subresource):
    """Any method on NAME/proxy and below."""

    name = "proxy"
    resources = ("nodes", "pods", "services")
    streams = True

    def __init__(self, dialer: NodeDialer) -> None:
        self._dialer = dialer

    async def connect(self, server: "Server", op: Operation, request: Request) -> AnyResponse:
        address = split_name(op)
        prefix, _, below = request.path.partition(f"/{op.name}/proxy")
        prefix += f"/{op.name}/proxy"
        if not below and request.method in ("GET", "HEAD") and not is_upgrade(request):
            return Response(301, headers={"Location": f"{prefix}/"})
        await server.admit(op, "CONNECT", None, None)
        pairs = [(name, value) for name, values in request.query.items() for value in values]
        target = quote(below or "/", safe="/:@!$&'()*+,;=~-._%") + query_string(pairs)
        upgrade = is_upgrade(request)
        body = b"" if upgrade else await request.read_body()
        streams, host = await self._open(server, op, address)
        headers = [*forwarded_headers(request.headers, upgrade=upgrade), ("X-Forwarded-Uri", request.path), ("X-Forwarded-Proto", "https")]
        outgoing = Outgoing(request.method, target, host, headers, body)
        if upgrade:
            return tunnel(streams, outgoing)
        answer = await relay(streams, outgoing)
        if isinstance(answer, StreamResponse):
            rewrite_location(answer.headers, host, prefix)
        return answer

    async def _open(self, server: "Server", op: Operation, address: Address) -> tuple[Streams, str]:
        if op.kind.plural == "nodes":
            node = server.registry.get(catalog.NODE, "", address.name).decode()
            kubelet = ((node.get("status") or {}).get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
            if address.port in (*_KUBELET_PORTS, str(kubelet.get("Port", ""))):
                return await self._dialer.dial(address.name), address.name
            return await _direct(address.scheme, address_of(node), _port_number(address.port, op))
        if op.kind.plural == "pods":
            pod = server.registry.get(catalog.POD, op.namespace, address.name).decode()
            host, port = pod_address(pod), _port_number(address.port or first_port(pod), op)
            endpoint = Endpoint(host, port, str(pod["spec"].get("nodeName") or ""), address.name)
            return await self._to_pod(address.scheme, endpoint, op.namespace)
        return await self._service(server, op, address)

    async def _service(self, server: "Server", op: Operation, address: Address) -> tuple[Streams, str]:
        service = server.registry.get(catalog.SERVICE, op.namespace, address.name).decode()
        port_name = service_port(service, address.port)
        slices = server.registry.page(catalog.ENDPOINT_SLICE, op.namespace).items
        mine = [item.decode() for item in slices if item.labels.get("kubernetes.io/service-name") == address.name]
        found = ready_endpoints(mine, port_name)
        if not found:
            raise ServiceUnavailable(f'no endpoints available for service "{op.name}"')
        return await self._to_pod(address.scheme, random.choice(found), op.namespace)

    async def _to_pod(self, scheme: str, endpoint: "Endpoint", namespace: str) -> tuple[Streams, str]:
        if endpoint.node and endpoint.pod:
            target = PodTarget(namespace, endpoint.pod, endpoint.port, scheme)
            streams = await self._dialer.dial_pod(endpoint.node, target)
            if streams is not None:
                return streams, f"{endpoint.address}:{endpoint.port}"
        return await _direct(scheme, endpoint.address, endpoint.port)


def split_name(op: Operation) -> Address:
    """`SCHEME:NAME:PORT` and its shorter forms. Raises BadRequest."""
    parts = op.name.split(":")
    if len(parts) == 1 and parts[0]:
        return Address("http", parts[0], "")
    if len(parts) == 2 and parts[0]:
        return Address("http", parts[0], parts[1])
    if len(parts) == 3 and parts[1] and parts[0] in ("", "http", "https"):
        return Address(parts[0] or "http", parts[1], parts[2])
    raise BadRequest(f'invalid {op.kind.singular} request "{op.name}"')


def pod_address(pod: Obj) -> str:
    address = str((pod.get("status") or {}).get("podIP") or "")
    if not address:
        raise BadRequest("address not allowed")
    return address


def first_port(pod: Obj) -> str:
    """The first port that a container declares."""
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            return str(port["containerPort"])
    return ""


def service_port(service: Obj, wanted: str) -> str:
    """The name of the Service's port that is meant by name or number; a single port needs no naming."""
    ports: Sequence[Obj] = (service.get("spec") or {}).get("ports") or ()
    name = service["metadata"]["name"]
    if not wanted:
        if len(ports) == 1:
            return str(ports[0].get("name") or "")
        return ""
    for port in ports:
        if wanted in (port.get("name"), str(port.get("port"))):
            return str(port.get("name") or "")
    raise ServiceUnavailable(f'no service port "{wanted}" found for service "{name}"')


def ready_endpoints(slices: Sequence[Obj], port_name: str) -> list[Endpoint]:
    """Every ready endpoint of the port."""
    found: list[Endpoint] = []
    for one in slices:
        numbers = [int(port["port"]) for port in one.get("ports") or () if (port.get("name") or "") == port_name and port.get("port")]
        for endpoint in one.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            target = endpoint.get("targetRef") or {}
            pod = str(target.get("name") or "") if target.get("kind") == "Pod" else ""
            node = str(endpoint.get("nodeName") or "")
            found += [Endpoint(str(address), number, node, pod) for address in endpoint.get("addresses") or () for number in numbers]
    return found


def rewrite_location(headers: dict[str, str], host: str, prefix: str) -> None:
    """A redirect within what is behind the proxy stays behind the proxy."""
    location = headers.get("location", "")
    parts = urlsplit(location)
    if location and (not parts.netloc or parts.netloc == host) and parts.path.startswith("/"):
        headers["location"] = prefix + parts.path + (f"?{parts.query}" if parts.query else "")


async def allowed_address(host: str) -> str:
    """The address of `host`, which is a name or an address, if one may go there. Raises BadRequest."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise BadRequest(f"lookup {host}: {error.strerror or error}") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not all(map(_is_global, addresses)):
        raise BadRequest("address not allowed")
    return addresses[0]


def _is_global(text: str) -> bool:
    """As Go's IsGlobalUnicast: private ranges too."""
    address = ipaddress.ip_address(text)
    address = getattr(address, "ipv4_mapped", None) or address
    return not (address.is_unspecified or address.is_loopback or address.is_link_local or address.is_multicast or text == "255.255.255.255")


async def _direct(scheme: str, host: str, port: int) -> tuple[Streams, str]:
    address, tls = await allowed_address(host), None
    if scheme == "https":
        # Upstream does not verify pods and services either: their certificates are their own affair.
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return await connect(address, port, tls=tls), f"{host}:{port}"


def _port_number(text: str, op: Operation) -> int:
    if text and not text.isdigit():
        raise BadRequest(f'invalid {op.kind.singular} request "{op.name}"')
    return int(text or 80)
