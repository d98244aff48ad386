"""What the kernel must do, from Services and EndpointSlices: pure.

Source of the rules: k8s.io/kubernetes/pkg/proxy (serviceport.go, endpointslicecache.go, topology.go).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edgekube.api import pods
from edgekube.api.types import Key, Obj

PROTOCOLS = {"TCP": "tcp", "UDP": "udp"}  # SCTP is refused when the Service is made
SERVICE_NAME = "kubernetes.io/service-name"


class Endpoint(NamedTuple):
    """Where a connection may go."""

    address: str
    port: int


class Front(NamedTuple):
    """What clients connect to: an address and port, or with address "" a port of every local address (NodePort)."""

    address: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Target:
    """How one front is translated. `masquerade`: clients outside would otherwise get their answer from the wrong address."""

    endpoints: tuple[Endpoint, ...]
    masquerade: bool = False
    affinity_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the table holds, besides its fixed chains."""

    targets: Mapping[Front, Target] = field(default_factory=dict)
    local_pods: frozenset[str] = frozenset()  # addresses that may reach themselves through a Service

    def endpoints(self) -> set[tuple[Front, Endpoint]]:
        return {(front, endpoint) for front, target in self.targets.items() for endpoint in target.endpoints}


@dataclass(frozen=True, slots=True)
class _Candidate:
    endpoint: Endpoint
    ready: bool
    serving: bool
    terminating: bool
    local: bool


def service_key(slice_: Obj) -> Key | None:
    """The Service a slice belongs to."""
    metadata = slice_["metadata"]
    name = (metadata.get("labels") or {}).get(SERVICE_NAME)
    return Key(metadata["namespace"], name) if name else None


def plan_service(service: Obj, slices: Iterable[Obj], node_name: str) -> dict[Front, Target]:
    """Fronts and targets of one Service, {} if it has none here (headless, ExternalName)."""
    spec = service.get("spec", {})
    address = spec.get("clusterIP", "")
    if spec.get("type") == "ExternalName" or address in ("", "None") or ":" in address:
        return {}
    candidates = _candidates(slices, node_name)
    affinity = _affinity(spec)
    plan: dict[Front, Target] = {}
    for port in spec.get("ports") or ():
        protocol = PROTOCOLS.get(port.get("protocol", "TCP"))
        if protocol is None:
            continue
        found = candidates.get((port.get("name") or "", protocol), ())
        inside = Target(_choose(found, only_local=spec.get("internalTrafficPolicy") == "Local"), affinity_seconds=affinity)
        keep_source = spec.get("externalTrafficPolicy") == "Local"
        outside = Target(_choose(found, only_local=keep_source), masquerade=not keep_source, affinity_seconds=affinity)
        if inside.endpoints:
            plan[Front(address, protocol, port["port"])] = inside
        if outside.endpoints:
            for front in _outside_fronts(service, protocol, port):
                plan[front] = outside
    return plan


def _outside_fronts(service: Obj, protocol: str, port: Obj) -> list[Front]:
    spec = service["spec"]
    balancer = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [address for address in spec.get("externalIPs") or () if ":" not in address]
    addresses += [entry["ip"] for entry in balancer if entry.get("ip") and entry.get("ipMode", "VIP") == "VIP"]
    fronts = [Front(address, protocol, port["port"]) for address in addresses]
    if port.get("nodePort"):
        fronts.append(Front("", protocol, port["nodePort"]))
    return fronts


def _affinity(spec: Obj) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    return int(((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds") or 10800)


def _candidates(slices: Iterable[Obj], node_name: str) -> dict[tuple[str, str], list[_Candidate]]:
    found: dict[tuple[str, str], list[_Candidate]] = {}
    for slice_ in slices:
        if slice_.get("addressType", "IPv4") != "IPv4":
            continue
        for port in slice_.get("ports") or ():
            protocol = PROTOCOLS.get(port.get("protocol") or "TCP")
            if protocol is None or not port.get("port"):
                continue
            into = found.setdefault((port.get("name") or "", protocol), [])
            into.extend(_of_endpoint(entry, port["port"], node_name) for entry in slice_.get("endpoints") or ())
    return found


def _of_endpoint(entry: Obj, port: int, node_name: str) -> _Candidate:
    conditions = entry.get("conditions") or {}
    ready = conditions.get("ready") is not False  # unknown counts as ready
    serving = conditions.get("serving")
    return _Candidate(
        Endpoint(entry["addresses"][0], port),
        ready=ready,
        serving=ready if serving is None else bool(serving),
        terminating=bool(conditions.get("terminating")),
        local=entry.get("nodeName") in (None, node_name),
    )


def _choose(candidates: Sequence[_Candidate], *, only_local: bool) -> tuple[Endpoint, ...]:
    """Ready endpoints; with none ready, those that still serve while they terminate."""
    eligible = [c for c in candidates if c.local] if only_local else candidates
    chosen = [c.endpoint for c in eligible if c.ready] or [c.endpoint for c in eligible if c.serving and c.terminating]
    return tuple(sorted(set(chosen)))


def plan_host_ports(pod: Obj) -> dict[Front, Target]:
    """Ports of the node that a pod of this node asked for; none for pods that have the node's network anyway."""
    address = (pod.get("status") or {}).get("podIP", "")
    if not address or ":" in address or pod["spec"].get("hostNetwork") or pods.is_terminal(pod):
        return {}
    plan: dict[Front, Target] = {}
    for container in pods.running_containers(pod):
        for port in container.get("ports") or ():
            protocol = PROTOCOLS.get(port.get("protocol") or "TCP")
            if port.get("hostPort") and protocol is not None:
                host = port.get("hostIP") or ""
                front = Front("" if host in ("0.0.0.0", "::") else host, protocol, port["hostPort"])
                plan[front] = Target((Endpoint(address, port["containerPort"]),))
    return plan


def stale_udp(old: Mapping[Front, Target], new: Mapping[Front, Target]) -> set[tuple[Front, Endpoint]]:
    """UDP flows the kernel would keep sending to endpoints that are gone. A front that had none before is told by Endpoint("", 0)."""
    stale: set[tuple[Front, Endpoint]] = set()
    for front in {front for front in old.keys() | new.keys() if front.protocol == "udp"}:
        before = set(old[front].endpoints) if front in old else set()
        after = set(new[front].endpoints) if front in new else set()
        stale |= {(front, endpoint) for endpoint in before - after}
        if after and not before:
            stale.add((front, Endpoint("", 0)))
    return stale
