"""Which nodes carry which LoadBalancer Service, pure. Two never share a port and protocol of one node: the older has it.

A node's port is also taken by what listens there itself, by host ports of its pods and by NodePorts. A Service whose ports are not all free
on a node is not carried by it at all, so a still younger one may be.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekube.api.types import Key, Obj

NODE_LB = "edgekube.io/node-lb"
ENABLE = "edgekube.io/enablelb"
POOL = "edgekube.io/lbpool"
CONFLICT = "edgekube.io/PortConflict"
_EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
_BOTH = ("IPv4", "IPv6")

Port = tuple[str, int]  # protocol, number


@dataclass(frozen=True, slots=True)
class Balancer:
    """A Service that the nodes are to carry."""

    key: Key
    created: str
    ports: tuple[Port, ...]
    families: tuple[str, ...] = ("IPv4",)
    local: bool = False
    pool: str = ""
    address: str = ""  # the one it asks for

    @property
    def age(self) -> tuple[str, Key]:
        return self.created, self.key


@dataclass(frozen=True, slots=True)
class Carrier:
    """A node as load balancers see it. `listens`: ports of its own, with who has them."""

    name: str
    addresses: tuple[str, ...]
    ready: bool = True
    enabled: bool = False
    pool: str = ""
    listens: Mapping[Port, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Addresses to show, and why others are missing ("" for nothing)."""

    addresses: tuple[str, ...] = ()
    conflict: str = ""


def balancer_of(service: Obj) -> Balancer | None:
    """None if the Service is not ours to carry."""
    spec, about = service.get("spec") or {}, service["metadata"]
    if spec.get("type") != "LoadBalancer" or spec.get("loadBalancerClass") not in (None, "", NODE_LB) or "deletionTimestamp" in about:
        return None
    return Balancer(
        key=Key(about["namespace"], about["name"]),
        created=about.get("creationTimestamp") or "",
        ports=tuple((port.get("protocol") or "TCP", int(port["port"])) for port in spec.get("ports") or ()),
        families=tuple(spec.get("ipFamilies") or ("IPv4",)),
        local=spec.get("externalTrafficPolicy") == "Local",
        pool=(about.get("labels") or {}).get(POOL, ""),
        address=spec.get("loadBalancerIP") or "",
    )


def carrier_of(node: Obj) -> Carrier:
    """External addresses if it has any, else internal ones."""
    about, status = node["metadata"], node.get("status") or {}
    labels: Mapping[str, str] = about.get("labels") or {}
    by_type: dict[str, list[str]] = {}
    for entry in status.get("addresses") or ():
        by_type.setdefault(entry.get("type", ""), []).append(entry["address"])
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
    return Carrier(
        name=about["name"],
        addresses=tuple(by_type.get("ExternalIP") or by_type.get("InternalIP") or ()),
        ready=ready and _EXCLUDED not in labels and "deletionTimestamp" not in about,
        enabled=labels.get(ENABLE) == "true",
        pool=labels.get(POOL, ""),
        listens={("TCP", int(port)): "the node's kubelet"} if port else {},
    )


def eligible(balancer: Balancer, carriers: Iterable[Carrier], here: Callable[[Key], frozenset[str]]) -> dict[str, Carrier]:
    """Nodes that may carry it. One labelled node makes the label a condition for all; `here` tells nodes with ready endpoints."""
    carriers = list(carriers)
    chosen = any(carrier.enabled for carrier in carriers)
    ready = [c for c in carriers if c.ready and c.addresses and (c.enabled or not chosen) and c.pool == balancer.pool]
    if balancer.local:
        nodes = here(balancer.key)
        ready = [carrier for carrier in ready if carrier.name in nodes]
    if balancer.address:
        ready = [carrier for carrier in ready if balancer.address in carrier.addresses]
    return {carrier.name: carrier for carrier in ready}


class Distribution:
    """One look at the cluster: who carries what. `rivals` are the Services with that port, `holder` who else has it on a node."""

    def __init__(
        self,
        *,
        carriers: Sequence[Carrier],
        here: Callable[[Key], frozenset[str]],
        rivals: Callable[[Port], Iterable[Balancer]],
        holder: Callable[[str, Port, Key], str],
    ) -> None:
        self._carriers, self._here, self._rivals, self._holder = carriers, here, rivals, holder
        self._eligible: dict[Key, dict[str, Carrier]] = {}
        self._blocked: dict[tuple[Key, str], str] = {}

    def outcome(self, balancer: Balancer) -> Outcome:
        addresses: list[str] = []
        conflicts: list[str] = []
        for name, carrier in sorted(self._candidates(balancer).items()):
            why = self._why_not(balancer, carrier)
            if why:
                conflicts.append(f"{why} on node {name}")
            else:
                addresses += _shown(balancer, carrier)
        rest = f" (and on {len(conflicts) - 1} other nodes)" if len(conflicts) > 1 else ""
        return Outcome(tuple(dict.fromkeys(addresses)), conflicts[0] + rest if conflicts else "")

    def _candidates(self, balancer: Balancer) -> dict[str, Carrier]:
        found = self._eligible.get(balancer.key)
        if found is None:
            found = self._eligible[balancer.key] = eligible(balancer, self._carriers, self._here)
        return found

    def _why_not(self, balancer: Balancer, carrier: Carrier) -> str:
        """Recursion goes to older Services only, so it ends."""
        known = self._blocked.get((balancer.key, carrier.name))
        if known is None:
            known = next((why for port in balancer.ports if (why := self._taken(balancer, carrier, port))), "")
            self._blocked[balancer.key, carrier.name] = known
        return known

    def _taken(self, balancer: Balancer, carrier: Carrier, port: Port) -> str:
        holder = carrier.listens.get(port) or self._holder(carrier.name, port, balancer.key)
        if not holder:
            for rival in self._rivals(port):
                if rival.age < balancer.age and carrier.name in self._candidates(rival) and not self._why_not(rival, carrier):
                    holder = f"the older Service {rival.key}"
                    break
        return f"port {port[1]}/{port[0]} is taken by {holder}" if holder else ""


def _shown(balancer: Balancer, carrier: Carrier) -> list[str]:
    if balancer.address:
        return [balancer.address]
    families = balancer.families or _BOTH
    return [address for address in carrier.addresses if ("IPv6" if ":" in address else "IPv4") in families]


def plan_status(service: Obj, outcome: Outcome | None, now: str) -> Obj | None:
    """The status to write, None if it is there. `outcome` None: not ours; then only what we once said about it goes."""
    status: Obj = service.get("status") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or []
    conditions = status.get("conditions") or []
    kept = [entry for entry in conditions if entry.get("type") != CONFLICT]
    before: Mapping[str, Any] = next((entry for entry in conditions if entry.get("type") == CONFLICT), {})
    wanted = ingress
    if outcome is not None:
        shown = {entry.get("ip") for entry in ingress}
        if [entry.get("ip") for entry in ingress] != list(outcome.addresses) or len(shown) != len(ingress):
            wanted = [{"ip": address, "ipMode": "VIP"} for address in outcome.addresses]
        if outcome.conflict:
            message = f"{outcome.conflict}, so this Service has no address there"
            kept.append(
                {
                    "type": CONFLICT,
                    "status": "True",
                    "reason": "PortTaken",
                    "message": message,
                    "lastTransitionTime": before.get("lastTransitionTime") or now,
                    "observedGeneration": service["metadata"].get("generation") or 0,
                }
            )
    if wanted == ingress and {_said(entry) for entry in kept} == {_said(entry) for entry in conditions}:
        return None
    return {"loadBalancer": {"ingress": wanted or None}, "conditions": kept or None}


def _said(condition: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(condition.get(name) for name in ("type", "status", "reason", "message"))
