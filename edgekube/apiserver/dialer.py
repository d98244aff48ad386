"""Reaching kubelets over the network: the address and port that the Node object names, TLS both ways.

The kubelet's certificate must be of our authority and name the node: a node is its name and key, whatever its address is today.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekube.api import catalog
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.relay import Streams, connect
from edgekube.errors import ApiError, NotFound
from edgekube.lib.clock import Clock, SystemClock
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

    def node(self, node_name: str) -> Mapping[str, Any]:
        """The Node object. Raises NotFound."""
        item = self._objects.get(catalog.NODE, node_name)
        if item is None:
            raise NotFound.of("", "nodes", node_name)
        return item.decode()


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
