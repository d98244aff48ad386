"""The parts of a node, on a server's own machine and on an agent alike: they know a Client and nothing of what is behind it.

    network > proxy > netpolicy > dns > runtime > kubelet > kubelet-server > images folder > log rotation

They start beside whatever else the process runs: neither /readyz nor an agent's start waits for Podman.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edgekube.api import quantity
from edgekube.api.types import Obj
from edgekube.app.gate import DelegatedGate
from edgekube.app.hostchanges import note_node
from edgekube.app.paths import Paths
from edgekube.app.removal import runtime_config
from edgekube.app.shutdown import machine_stops
from edgekube.client.notes import NoNotes, Notes
from edgekube.client.protocol import Client
from edgekube.config import Settings
from edgekube.dns.component import DnsConfig, DnsServer
from edgekube.kubelet.component import KubeletComponent
from edgekube.kubelet.config import KubeletConfig
from edgekube.kubelet.fence import Fencing
from edgekube.kubelet.fenceguard import FenceGuard
from edgekube.kubelet.imagebook import ImageBook
from edgekube.kubelet.imagefolder import ImageFolder
from edgekube.kubelet.imagegc import Thresholds
from edgekube.kubelet.runtime.cgroups import Hierarchy, PodGroups
from edgekube.kubelet.runtime.podman import PodmanRuntime
from edgekube.kubelet.runtime.rotation import LogRotation
from edgekube.kubelet.runtime.service import Service
from edgekube.kubelet.runtime.settings import RuntimeConfig
from edgekube.kubelet.server.component import KubeletServer
from edgekube.kubelet.server.http import Caller
from edgekube.lib.clock import Clock
from edgekube.lib.receipt import Receipt
from edgekube.lib.supervise import Component, supervise
from edgekube.lib.tlsclock import judge
from edgekube.netpolicy.attach import PolicedNetwork
from edgekube.netpolicy.component import NodePolicies, PolicyConfig
from edgekube.network.addresses import HostAddresses
from edgekube.network.component import NetworkConfig, NodeNetwork
from edgekube.network.model import OverlayConfig
from edgekube.proxy.component import Proxy, ProxyConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the parts of a node are built from. `settings` are those of this machine, with what the cluster says laid over them."""

    settings: Settings
    paths: Paths
    clock: Clock
    client: Client  # acts as system:node:NAME
    notes: Notes = field(default_factory=NoNotes)  # what its parts remember across restarts
    addresses: HostAddresses  # of this machine, followed live
    ca: Path
    certificate: Path  # serving certificate of the kubelet
    key: Path  # the same file as `certificate` where that holds both
    server: Client | None = None  # the server itself, nothing remembered; None: it is in this process

    receipt: Receipt  # of what is changed on this machine

    @property
    def node_name(self) -> str:
        return self.settings.node_name


_API_SERVER = Caller("kube-apiserver", ("system:masters",))  # whoever comes through a connection to a server that proved itself


class Node:
    """Component that starts the parts of the node in order, each ready before the next."""

    name = "node"

    def __init__(self, parts: Sequence[Component], *, kubelet: KubeletComponent, api: KubeletServer, prepare: Callable[[], None]) -> None:
        self._parts, self._kubelet, self._api, self._prepare = parts, kubelet, api, prepare

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the API server's requests of one stream."""
        await self._api.serve(reader, writer, _API_SERVER)

    def pod_address(self, namespace: str, name: str) -> str:
        """Of a pod that runs here, "" for any other. Not what its status says: others may write that."""
        return next(iter(self._kubelet.addresses(namespace, name)), "")

    async def run(self, ready: asyncio.Event) -> None:
        ready.set()
        await asyncio.to_thread(self._prepare)
        await supervise(self._parts, asyncio.Event(), start_timeout=float("inf"))


def node_parts(host: Host, reload: list[Callable[[], None]]) -> Node:
    """Everything of the node; `reload` gets what must be called when the serving certificate was renewed."""
    runtime = _runtime(host.settings)
    network = _network(host)
    policies = _policies(host, network, lambda uid: kubelet.pod(uid))
    kubelet = _kubelet(host, runtime, network, policies)
    host.addresses.on_change(lambda old, new: kubelet.addresses_changed() if new.node != old.node else None)
    api = _kubelet_server(host, runtime, kubelet, reload)
    extras = (_folder(host, runtime, kubelet), _rotation(host, runtime))
    parts = (network, _proxy(host), policies, _dns(host), runtime.runtime, kubelet, api, *extras)
    note = partial(note_node, host.receipt, instance=host.settings.instance, paths=host.paths, hierarchy=runtime.hierarchy)
    return Node(parts, kubelet=kubelet, api=api, prepare=note)


class _Runtime(NamedTuple):
    config: RuntimeConfig
    hierarchy: Hierarchy
    runtime: PodmanRuntime


def _runtime(settings: Settings) -> _Runtime:
    config, hierarchy = runtime_config(settings), Hierarchy()
    return _Runtime(config, hierarchy, PodmanRuntime(config=config, hierarchy=hierarchy, service=Service(config, hierarchy)))


def _network(host: Host) -> NodeNetwork:
    settings = host.settings
    overlay = OverlayConfig(
        instance=settings.instance, backend=settings.network_backend, port=settings.vxlan_port, mtu=settings.network_mtu
    )
    config = NetworkConfig(
        node_name=host.node_name,
        service_cidrs=settings.service_cidrs,
        dns=settings.dns_addresses,
        overlay=overlay,
        run_dir=host.paths.run,
    )
    return NodeNetwork(config=config, client=host.client, addresses=host.addresses, clock=host.clock, receipt=host.receipt)


def _proxy(host: Host) -> Proxy:
    settings = host.settings
    config = ProxyConfig(
        node_name=host.node_name,
        instance=settings.instance,
        cluster_cidrs=settings.cluster_cidrs,
        service_cidrs=settings.service_cidrs,
        mode=settings.proxy_mode,
        health_port=settings.proxy_health_port,
        run_dir=host.paths.run,
        receipt=host.receipt,
    )
    return Proxy(config=config, client=host.client, clock=host.clock)


def _policies(host: Host, network: NodeNetwork, pod: Callable[[str], Obj | None]) -> NodePolicies:
    settings = host.settings
    config = PolicyConfig(
        node_name=host.node_name,
        instance=settings.instance,
        service_cidrs=tuple(settings.service_cidrs),
        dns=tuple(settings.dns_addresses),
    )
    return NodePolicies(config=config, client=host.client, addresses=network.addresses, pod=pod)


def _dns(host: Host) -> DnsServer:
    settings = host.settings
    config = DnsConfig(address=settings.cluster_dns, domain=settings.cluster_domain, resolv_conf=settings.resolv_conf)
    return DnsServer(config=config, client=host.client)


def _kubelet(host: Host, runtime: _Runtime, network: NodeNetwork, policies: NodePolicies) -> KubeletComponent:
    return KubeletComponent(
        config=_kubelet_config(host),
        client=host.client,
        runtime=runtime.runtime,
        network=PolicedNetwork(network, policies),
        groups=PodGroups(runtime.hierarchy, runtime.config.cgroup_root),
        clock=host.clock,
        host_ips=lambda: host.addresses.node,
        network_ready=lambda: network.ready,
        notes=host.notes,
        fencing=_fencing(host, runtime),
        machine_stops=machine_stops,
    )


def _fencing(host: Host, runtime: _Runtime) -> Fencing | None:
    """Only where there is a server to be cut off from."""
    if host.server is None or not host.settings.fence_after_seconds:
        return None
    groups, hierarchy = PodGroups(runtime.hierarchy, runtime.config.cgroup_root), runtime.hierarchy
    guard = FenceGuard(run_dir=host.paths.run, groups=groups.folders, place=hierarchy.place_service)
    return Fencing(client=host.server, guard=guard, kill=groups.kill_workload)


def _kubelet_config(host: Host) -> KubeletConfig:
    settings = host.settings
    return KubeletConfig(
        node_name=host.node_name,
        data_dir=host.paths.data,
        run_dir=host.paths.run,
        pod_logs=host.paths.pod_logs,
        container_logs=host.paths.container_links,
        node_ip=next(iter(host.addresses.node), ""),
        kubelet_port=settings.kubelet_port,
        max_pods=settings.max_pods,
        cluster_dns=settings.dns_addresses,
        cluster_domain=settings.cluster_domain,
        resolv_conf=settings.resolv_conf,
        node_labels=settings.node_labels,
        node_taints=settings.node_taints,
        eviction_memory=quantity.value(settings.eviction_hard_memory),
        static_pods=Path(settings.static_pod_path) if settings.static_pod_path else None,
        image_gc=Thresholds(
            high=100 if settings.container_runtime_socket else settings.image_gc_high_threshold,  # another podman's images are not ours
            low=settings.image_gc_low_threshold,
            minimum_age=settings.minimum_image_ttl_seconds,
        ),
        lease_seconds=settings.lease_seconds,
        lease_renew_seconds=settings.lease_seconds / 4 if host.server is None else _renew_seconds(settings),
        fence_seconds=0 if host.server is None else settings.fence_after_seconds,
    )


def _renew_seconds(settings: Settings) -> float:
    """Several renewals fit into the time that fenced pods may be without contact."""
    return min(settings.lease_seconds / 4, settings.fence_after_seconds / 5 or settings.lease_seconds)


def _kubelet_server(host: Host, runtime: _Runtime, kubelet: KubeletComponent, reload: list[Callable[[], None]]) -> KubeletServer:
    tls = _server_tls(host)
    reload.append(lambda: tls.load_cert_chain(host.certificate, host.key))
    return KubeletServer(
        node_name=host.node_name,
        address=host.settings.bind_address,
        port=host.settings.kubelet_port,
        tls=tls,
        gate=DelegatedGate(client=host.client, node_name=host.node_name, clock=host.clock),
        pods=kubelet,
        runtime=runtime.runtime,
        clock=host.clock,
        host_logs=host.paths.pod_logs.parent,
        log_dir=host.paths.pod_logs,
    )


def _server_tls(host: Host) -> ssl.SSLContext:
    """The node's own API: a certificate of ours is asked for, the gate decides what without one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(host.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        context.load_cert_chain(host.certificate, host.key)
    except OSError as error:  # an agent asks for another as soon as it reaches the server
        log.warning("serving certificate not usable", extra={"file": str(host.certificate), "error": str(error)})
    return judge(context, host.clock)


def _folder(host: Host, runtime: _Runtime, kubelet: KubeletComponent) -> ImageFolder:
    return ImageFolder(
        folder=host.paths.images,
        book=ImageBook(host.paths.data),
        runtime=runtime.runtime,
        client=host.client,
        clock=host.clock,
        node_name=host.node_name,
        store=runtime.config.storage / "overlay-images",
        changed=kubelet.images_changed,
    )


def _rotation(host: Host, runtime: _Runtime) -> LogRotation:
    config = runtime.config
    return LogRotation(runtime=runtime.runtime, clock=host.clock, max_size=config.log_max_size, max_files=config.log_max_files)
