"""From one Service and its EndpointSlices to fronts and targets, and its health check port: pure.

Source of the rules: k8s.io/kubernetes/pkg/proxy (serviceport.go, servicechangetracker.go, nftables/proxier.go). Beyond upstream: a load
balancer without pods (`edgekube.io/node-lb`, or no class) answers on every address of the nodes its status names, so that it works
behind a NAT that forwards to an inner address.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekube.api import pods
from edgekube.api.types import Key, Obj
from edgekube.proxy.choice import Chosen, Place, candidates, choose
from edgekube.proxy.model import ANY4, ANY6, PROTOCOLS, Endpoint, Front, Target, Targets

SERVICE_NAME = "kubernetes.io/service-name"
_OTHER_PROXY = "service.kubernetes.io/service-proxy-name"
_HEADLESS = "service.kubernetes.io/headless"
_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
NODE_LB = "edgekube.io/node-lb"
_FAMILIES = (("IPv4", ANY4), ("IPv6", ANY6))

Spec = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Health:
    """A health check node port, and how many addresses of this node stand behind it."""

    port: int
    count: int


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """Everything one Service (or the host ports of one pod) needs here."""

    targets: Targets = field(default_factory=dict)
    health: Health | None = None


def service_key(slice_: Obj) -> Key | None:
    """The Service a slice belongs to."""
    metadata = slice_["metadata"]
    name = (metadata.get("labels") or {}).get(SERVICE_NAME)
    return Key(metadata["namespace"], name) if name else None


def plan_service(service: Obj, slices: Iterable[Obj], place: Place) -> ServicePlan:
    """Nothing for a Service that is headless, ExternalName, or another proxy's."""
    spec = service.get("spec") or {}
    labels = (service.get("metadata") or {}).get("labels") or {}
    addresses = [address for address in spec.get("clusterIPs") or [spec.get("clusterIP") or ""] if address and address != "None"]
    if spec.get("type") == "ExternalName" or not addresses or _OTHER_PROXY in labels or _HEADLESS in labels:
        return ServicePlan()
    slices = list(slices)
    targets: dict[Front, Target] = {}
    local = 0
    for address in addresses:
        family, wildcard = _FAMILIES[":" in address]
        found = candidates(slices, family, place)
        here = {c.endpoint.address for group in found.values() for c in group if c.ready and c.endpoint.local}
        local = max(local, len(here))  # a pod with two addresses is one
        for port in spec.get("ports") or ():
            protocol = PROTOCOLS.get(port.get("protocol", "TCP"))
            if protocol is not None:
                chosen = choose(found.get((port.get("name") or "", protocol), ()), place)
                targets[Front(address, protocol, port["port"])] = _inner(spec, chosen)
                targets.update(_outer(service, protocol, port, wildcard, chosen, place))
    return ServicePlan(targets, _health(spec, local))


def _inner(spec: Spec, chosen: Chosen) -> Target:
    only_local = spec.get("internalTrafficPolicy") == "Local"
    endpoints = chosen.local if only_local else chosen.cluster
    return Target(endpoints, drop=chosen.exist and not endpoints, affinity_seconds=_affinity(spec))


def _outer(service: Obj, protocol: str, port: Spec, wildcard: str, chosen: Chosen, place: Place) -> Iterator[tuple[Front, Target]]:
    """Addresses and ports for clients outside."""
    spec = service["spec"]
    if spec.get("externalTrafficPolicy") == "Local":
        target = Target(chosen.local, inside=chosen.cluster, drop=chosen.exist and not chosen.local, affinity_seconds=_affinity(spec))
    else:
        target = Target(chosen.cluster, masquerade=True, drop=chosen.exist and not chosen.cluster, affinity_seconds=_affinity(spec))
    six = wildcard == ANY6
    for address in spec.get("externalIPs") or ():
        if (":" in address) == six:
            yield Front(address, protocol, port["port"]), target
    sources = _sources(service, six)
    for address in _balanced(service, place):
        if (":" in address) == six:
            yield Front(address, protocol, port["port"]), _restricted(target, sources)
    if port.get("nodePort"):
        yield Front(wildcard, protocol, port["nodePort"]), target


def _restricted(target: Target, sources: tuple[str, ...]) -> Target:
    if not sources:
        return target
    return Target(target.endpoints, target.inside, target.masquerade, target.drop, target.affinity_seconds, sources)


def _balanced(service: Obj, place: Place) -> list[str]:
    """Addresses of the load balancer that arrive at nodes as they are."""
    spec = service["spec"]
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    found = [entry["ip"] for entry in ingress if entry.get("ip") and entry.get("ipMode", "VIP") == "VIP"]
    if is_node_balanced(spec) and any(address in found for address in place.addresses):
        found += [address for address in place.addresses if address not in found]
    return found


def is_node_balanced(spec: Spec) -> bool:
    """A LoadBalancer that the nodes themselves carry."""
    return spec.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") in (None, "", NODE_LB)


def _sources(service: Obj, six: bool) -> tuple[str, ...]:
    """Allowed clients of one family. As upstream: ranges of the other family alone restrict nothing here."""
    spec = service["spec"]
    ranges = list(spec.get("loadBalancerSourceRanges") or ())
    if not ranges and is_node_balanced(spec):
        text = ((service.get("metadata") or {}).get("annotations") or {}).get(_RANGES, "")
        ranges = [part for part in text.split(",") if part.strip()]
    nets = {ipaddress.ip_network(text.strip(), strict=False) for text in ranges}
    if any(net.prefixlen == 0 for net in nets if (net.version == 6) == six):
        return ()
    v4 = ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv6Network))
    return tuple(str(net) for net in sorted(v6)) if six else tuple(str(net) for net in sorted(v4))


def _affinity(spec: Spec) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    return int(((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds") or 10800)


def _health(spec: Spec, count: int) -> Health | None:
    port = spec.get("healthCheckNodePort")
    if port and spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
        return Health(int(port), count)
    return None


def plan_host_ports(pod: Obj) -> ServicePlan:
    """Ports of the node that a pod of this node asked for; none for pods that have the node's network anyway."""
    status = pod.get("status") or {}
    addresses = [entry["ip"] for entry in status.get("podIPs") or ()] or [status.get("podIP") or ""]
    if not addresses[0] or pod["spec"].get("hostNetwork") or pods.is_terminal(pod):
        return ServicePlan()
    targets: dict[Front, Target] = {}
    for container in pods.running_containers(pod):
        for port in container.get("ports") or ():
            protocol = PROTOCOLS.get(port.get("protocol") or "TCP")
            if not port.get("hostPort") or protocol is None:
                continue
            for address in addresses:
                front = _host_front(port.get("hostIP") or "", ":" in address, protocol, port["hostPort"])
                if front is not None:
                    targets[front] = Target((Endpoint(address, port["containerPort"], local=True),))
    return ServicePlan(targets)


def _host_front(wanted: str, six: bool, protocol: str, port: int) -> Front | None:
    """An unspecified address of either spelling is both families."""
    if wanted in ("", ANY4, ANY6):
        return Front(ANY6 if six else ANY4, protocol, port)
    return Front(wanted, protocol, port) if (":" in wanted) == six else None
