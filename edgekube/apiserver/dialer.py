"""Reaching kubelets: through the connection that the agent keeps, or, for this machine's own, over the network.

Over the network it is the address and port that the Node object names, with TLS both ways. The kubelet's certificate must be of our
authority and name the node: a node is its name and key, whatever its address is today.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekube.api import catalog
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.relay import NodeDialer, PodTarget, Streams, connect
from edgekube.apiserver.tunnel import Tunnels
from edgekube.errors import ApiError, NotFound
from edgekube.lib.clock import Clock, SystemClock
from edgekube.lib.mux import words
from edgekube.lib.tlsclock import client_context

_ADDRESS_ORDER = ("InternalIP", "ExternalIP", "InternalDNS", "ExternalDNS", "Hostname")
_KUBELET_PORT = 10250


class DirectDialer:
    """Satisfies relay.NodeDialer."""

    def __init__(self, *, objects: Objects, tls: Callable[[], ssl.SSLContext]) -> None:
        self._objects, self._tls = objects, tls

    async def dial(self, node_name: str) -> Streams:
        """A TLS connection to the node's kubelet."""
        node = self.node(node_name)
        port = (((node.get("status") or {}).get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or _KUBELET_PORT
        return await connect(address_of(node), int(port), tls=self._tls(), server_name=node_name)

    async def dial_pod(self, node_name: str, target: PodTarget) -> Streams | None:
        return None

    def node(self, node_name: str) -> Mapping[str, Any]:
        """The Node object. Raises NotFound."""
        item = self._objects.get(catalog.NODE, node_name)
        if item is None:
            raise NotFound.of("", "nodes", node_name)
        return item.decode()


class TunnelDialer:
    """Satisfies relay.NodeDialer: agents through their own connection, the server's node `local` with `direct`."""

    def __init__(self, *, tunnels: Tunnels, direct: NodeDialer, local: str, objects: Objects) -> None:
        self._tunnels, self._direct, self._local, self._objects = tunnels, direct, local, objects

    async def dial(self, node_name: str) -> Streams:
        """A stream to the node's kubelet. Raises NotFound, ServiceUnavailable."""
        if node_name == self._local:
            return await self._direct.dial(node_name)
        if self._objects.get(catalog.NODE, node_name) is None:
            raise NotFound.of("", "nodes", node_name)
        return self._tunnels.open(node_name, words.KUBELET)

    async def dial_pod(self, node_name: str, target: PodTarget) -> Streams | None:
        """A stream to a port of a pod on an agent. Raises ServiceUnavailable."""
        if node_name == self._local:
            return None
        label = f"{target.namespace}/{target.pod}/{target.port}/{target.scheme}"
        return self._tunnels.open(node_name, words.POD, label)


class ClientTls:
    """The TLS side of the API server towards kubelets. Made at first use; `reload` after a renewal."""

    def __init__(self, *, ca: Path, credential: Path, clock: Clock | None = None) -> None:
        self._ca, self._credential, self._clock = ca, credential, clock or SystemClock()
        self._context: ssl.SSLContext | None = None

    def __call__(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = client_context(clock=self._clock, ca=self._ca, credential=self._credential)
        return self._context

    def reload(self) -> None:
        """Read the files again at the next use; open connections stay."""
        self._context = None


def address_of(node: Mapping[str, Any]) -> str:
    """Where to reach a node. Raises ApiError if it has no address."""
    addresses: Sequence[Mapping[str, str]] = (node.get("status") or {}).get("addresses") or ()
    for kind in _ADDRESS_ORDER:
        for entry in addresses:
            if entry.get("type") == kind and entry.get("address"):
                return entry["address"]
    name = (node.get("metadata") or {}).get("name", "")
    raise ApiError(f'Internal error occurred: no preferred addresses found for node "{name}"; known addresses: []')
