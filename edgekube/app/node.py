"""The parts of this machine's node. They start beside the control plane: /readyz does not wait for Podman.

    network > proxy > dns > runtime > kubelet > kubelet-server
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from edgekube.app.plane import Plane
from edgekube.dns.component import DnsConfig, DnsServer
from edgekube.lib.supervise import Component, supervise
from edgekube.network.component import NetworkConfig, NodeNetwork
from edgekube.proxy.component import Proxy, ProxyConfig


class Node:
    """Component that starts the parts of the node in order, each ready before the next."""

    name = "node"

    def __init__(self, parts: Sequence[Component]) -> None:
        self._parts = parts

    async def run(self, ready: asyncio.Event) -> None:
        ready.set()
        await supervise(self._parts, asyncio.Event(), start_timeout=float("inf"))


def node_parts(plane: Plane, reload: list[Callable[[], None]]) -> Component:
    """Everything of the node; `reload` gets what must be called when certificates were renewed."""
    settings, client = plane.settings, plane.node()
    network = NodeNetwork(
        config=NetworkConfig(
            node_name=settings.node_name, instance=settings.instance, service_cidr=settings.service_cidr, dns=settings.cluster_dns
        ),
        client=client,
    )
    proxy = Proxy(
        config=ProxyConfig(
            node_name=settings.node_name,
            instance=settings.instance,
            cluster_cidr=settings.cluster_cidr,
            service_cidr=settings.service_cidr,
        ),
        client=client,
    )
    dns = DnsServer(
        config=DnsConfig(address=settings.cluster_dns, domain=settings.cluster_domain, resolv_conf=settings.resolv_conf), client=client
    )
    return Node((network, proxy, dns))


def _server_tls(credential: Path, ca: Path) -> ssl.SSLContext:
    """The node's own API: a certificate of ours is asked for, the gate decides what without one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(credential)
    return context
