"""The parts of this machine's node. They start beside the control plane: /readyz does not wait for Podman.

    network > proxy > dns > runtime > kubelet > kubelet-server > log rotation
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from edgekube.api import quantity
from edgekube.app.gate import DelegatedGate
from edgekube.app.plane import Plane
from edgekube.app.removal import runtime_config
from edgekube.config import Settings
from edgekube.dns.component import DnsConfig, DnsServer
from edgekube.kubelet.component import KubeletComponent
from edgekube.kubelet.config import KubeletConfig
from edgekube.kubelet.runtime.cgroups import Hierarchy, PodGroups
from edgekube.kubelet.runtime.podman import PodmanRuntime
from edgekube.kubelet.runtime.rotation import LogRotation
from edgekube.kubelet.runtime.service import Service
from edgekube.kubelet.runtime.settings import RuntimeConfig
from edgekube.kubelet.server.component import KubeletServer
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
    runtime = _runtime(settings)
    kubelet = KubeletComponent(
        config=_kubelet_config(plane),
        client=client,
        runtime=runtime.runtime,
        network=network,
        groups=PodGroups(runtime.hierarchy, runtime.config.cgroup_root),
        clock=plane.clock,
        host_ips=lambda: (plane.address,),
        network_ready=lambda: network.ready,
    )
    tls = _server_tls(plane.pki.kubelet, plane.pki.ca)
    reload.append(lambda: tls.load_cert_chain(plane.pki.kubelet))
    api = KubeletServer(
        node_name=settings.node_name,
        address=settings.bind_address,
        port=settings.kubelet_port,
        tls=tls,
        gate=DelegatedGate(client=client, node_name=settings.node_name, clock=plane.clock),
        pods=kubelet,
        runtime=runtime.runtime,
        clock=plane.clock,
        host_logs=plane.paths.pod_logs.parent,
        log_dir=plane.paths.pod_logs,
    )
    rotation = LogRotation(
        runtime=runtime.runtime, clock=plane.clock, max_size=runtime.config.log_max_size, max_files=runtime.config.log_max_files
    )
    return Node((network, proxy, dns, runtime.runtime, kubelet, api, rotation))


class _Runtime(NamedTuple):
    config: RuntimeConfig
    hierarchy: Hierarchy
    runtime: PodmanRuntime


def _runtime(settings: Settings) -> _Runtime:
    config, hierarchy = runtime_config(settings), Hierarchy()
    return _Runtime(config, hierarchy, PodmanRuntime(config=config, hierarchy=hierarchy, service=Service(config, hierarchy)))


def _kubelet_config(plane: Plane) -> KubeletConfig:
    settings = plane.settings
    return KubeletConfig(
        node_name=settings.node_name,
        data_dir=plane.paths.data,
        run_dir=plane.paths.run,
        pod_logs=plane.paths.pod_logs,
        container_logs=plane.paths.container_links,
        node_ip=plane.address,
        kubelet_port=settings.kubelet_port,
        max_pods=settings.max_pods,
        cluster_dns=(settings.cluster_dns,),
        cluster_domain=settings.cluster_domain,
        resolv_conf=settings.resolv_conf,
        node_labels=settings.node_labels,
        node_taints=settings.node_taints,
        eviction_memory=quantity.value(settings.eviction_hard_memory),
    )


def _server_tls(credential: Path, ca: Path) -> ssl.SSLContext:
    """The node's own API: a certificate of ours is asked for, the gate decides what without one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(credential)
    return context
