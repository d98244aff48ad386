"""A small cluster as plain objects: what policies mean (read straight from upstream's text) and what our code makes of them."""

import ipaddress
from dataclasses import dataclass, field
from typing import Any

from edgekube.api.kinds.networkpolicy import NETWORK_POLICY
from edgekube.api.types import Key, Obj
from edgekube.controllers.policypeers import Candidate, Member, PeerIndex
from edgekube.controllers.policyslices import read_policy, slice_spec
from edgekube.netpolicy.model import Match, NodeModel, Plan
from edgekube.netpolicy.slices import LocalPod, family_of, read_slice

PORTS = tuple((f"serve-{number}-{protocol.lower()}", protocol, number) for number in (80, 81) for protocol in ("TCP", "UDP", "SCTP"))


@dataclass(slots=True)
class Pod:
    namespace: str
    name: str
    address: str
    labels: dict[str, str]
    node: str = "here"
    ports: tuple[tuple[str, str, int], ...] = PORTS
    host_network: bool = False
    more: tuple[str, ...] = ()  # further addresses

    @property
    def key(self) -> Key:
        return Key(self.namespace, self.name)

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, *self.more)

    def candidate(self) -> Candidate:
        return Candidate(self.key, dict(self.labels), None if self.host_network else Member(self.node, self.addresses, self.ports))


@dataclass
class World:
    """Change it through its methods: each tells the index, as the controller does."""

    spaces: dict[str, dict[str, str]] = field(default_factory=dict)
    pods: dict[Key, Pod] = field(default_factory=dict)
    policies: dict[Key, Obj] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index = PeerIndex(lambda space: [pod.candidate() for pod in self.pods.values() if space in ("", pod.namespace)])

    def space(self, name: str, labels: dict[str, str] | None) -> None:
        if labels is None:
            self.spaces.pop(name, None)
        else:
            self.spaces[name] = labels
        self.index.namespace(name, labels)

    def put(self, pod: Pod) -> None:
        self.pods[pod.key] = pod
        self.index.pod(pod.candidate())

    def drop(self, key: Key) -> None:
        del self.pods[key]
        self.index.pod(Candidate(key, {}, None))

    def policy(self, namespace: str, name: str, spec: Obj | None) -> None:
        key = Key(namespace, name)
        if spec is None:
            self.policies.pop(key, None)
            self.index.hold(key, ())
            return
        found = {"metadata": {"name": name, "namespace": namespace, "uid": f"{key}"}, "spec": {"podSelector": {}, **spec}}
        NETWORK_POLICY.default(found)
        assert list(NETWORK_POLICY.validate(found, None)) == []
        self.policies[key] = found
        self.index.hold(key, {entry.key for entry in read_policy(found).entries})

    # what our code makes of it

    def slices(self) -> dict[Key, Obj]:
        return {key: slice_spec(read_policy(policy), self.index) for key, policy in self.policies.items()}

    def local(self, node: str) -> dict[str, LocalPod]:
        found = {}
        for pod in self.pods.values():
            if pod.node == node and not pod.host_network:
                found[str(pod.key)] = LocalPod(pod.key, dict(pod.labels), pod.addresses, pod.ports)
        return found

    def update(self, model: NodeModel, known: set[Key], node: str) -> None:
        """Tell a node's model all there is; `known`: the slices it was told of before."""
        slices = self.slices()
        for key in known - set(slices):
            model.set_slice(key, None)
        for key, spec in slices.items():
            model.set_slice(key, read_slice(key, spec))
        known.clear()
        known |= set(slices)
        local = self.local(node)
        for uid in set(model.uids()) - set(local):
            model.set_pod(uid, None)
        for uid, pod in local.items():
            model.set_pod(uid, pod)

    def plan(self, node: str = "here") -> Plan:
        model = NodeModel(node)
        self.update(model, set(), node)
        return model.plan()

    # what it means

    def allowed(self, source: Pod | str, target: Pod | str, protocol: str, port: int) -> bool:
        """Upstream's text: isolated only if selected, admitted by any policy, both ends must agree, itself always."""
        if isinstance(source, Pod) and source is target:
            return True
        return self._side(source, target, "Egress", protocol, port) and self._side(target, source, "Ingress", protocol, port)

    def _side(self, subject: Pod | str, other: Pod | str, kind: str, protocol: str, port: int) -> bool:
        if isinstance(subject, str) or subject.host_network:
            return True
        direction, side = ("ingress", "from") if kind == "Ingress" else ("egress", "to")
        mine = [
            policy["spec"]
            for key, policy in self.policies.items()
            if key.namespace == subject.namespace and kind in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], subject.labels)
        ]
        holder = subject if kind == "Ingress" else other
        return not mine or any(
            self._ports(rule, holder, protocol, port) and self._peers(rule.get(side), subject.namespace, other)
            for spec in mine
            for rule in spec.get(direction) or ()
        )

    def _ports(self, rule: Obj, holder: Pod | str, protocol: str, port: int) -> bool:
        def fits(entry: Obj) -> bool:
            wanted = entry.get("port")
            if entry["protocol"] != protocol:
                return False
            if isinstance(wanted, str):
                return isinstance(holder, Pod) and not holder.host_network and (wanted, protocol, port) in holder.ports
            return wanted is None or wanted <= port <= (entry.get("endPort") or wanted)

        return not rule.get("ports") or any(fits(entry) for entry in rule["ports"])

    def _peers(self, peers: Any, namespace: str, other: Pod | str) -> bool:
        return not peers or any(self._peer(peer, namespace, other) for peer in peers)

    def _peer(self, peer: Obj, namespace: str, other: Pod | str) -> bool:
        if peer.get("ipBlock"):
            addresses = other.addresses if isinstance(other, Pod) else (other,)
            block = peer["ipBlock"]
            return any(inside(block["cidr"], a) and not any(inside(hole, a) for hole in block.get("except") or ()) for a in addresses[:1])
        if isinstance(other, str) or other.host_network:
            return False
        if "namespaceSelector" in peer:
            if other.namespace not in self.spaces or not selects(peer["namespaceSelector"], self.spaces[other.namespace]):
                return False
        elif other.namespace != namespace:
            return False
        return selects(peer.get("podSelector") or {}, other.labels)


def inside(cidr: str, address: str) -> bool:
    network = ipaddress.ip_network(cidr)
    return network.version == ipaddress.ip_address(address).version and ipaddress.ip_address(address) in network


def spans(element: str, address: str) -> bool:
    """Whether an element of an interval set covers the address."""
    low, _, high = element.partition("-")
    return int(ipaddress.ip_address(low)) <= int(ipaddress.ip_address(address)) <= int(ipaddress.ip_address(high or low))


def selects(selector: Obj, labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for entry in selector.get("matchExpressions") or ():
        there, values = labels.get(entry["key"]), entry.get("values") or ()
        if not {"In": there in values, "NotIn": there not in values, "Exists": there is not None, "DoesNotExist": there is None}[entry["operator"]]:
            return False
    return True


def judged(plan: Plan, source: str, target: str, protocol: str, port: int) -> bool:
    """What the rules of this plan do with a packet between two addresses."""
    if source == target:
        return True
    family = family_of(source)
    out, into = plan.verdicts.get(("out", family), {}).get(source), plan.verdicts.get(("in", family), {}).get(target)
    return all(
        chain is None or any(_admits(plan, match, peer, protocol, port) for match in chain) for chain, peer in ((out, target), (into, source))
    )


def _admits(plan: Plan, match: Match, peer: str, protocol: str, port: int) -> bool:
    if match.peers is not None:
        elements = plan.sets[match.peers]
        if not (any(spans(element, peer) for element in elements) if match.peers.slice is None else peer in elements):
            return False
    if match.protocol and match.protocol != protocol.lower():
        return False
    return not match.ports or any(low <= port <= high for low, high in match.ports)


def xyz() -> World:
    """The cluster of upstream's suite: namespaces x, y, z with pods a, b, c each."""
    world = World()
    for number, space in enumerate("xyz"):
        world.space(space, {"ns": space, "kubernetes.io/metadata.name": space})
        for index, name in enumerate("abc"):
            world.put(Pod(space, name, f"10.42.0.{10 * (number + 1) + index}", {"pod": name}))
    return world
