"""What this node's pods may receive and send, from PolicySlices and the node's own pods. No I/O, no clock.

A node matches its own pods itself, as isolated ones and as peers: it knows them before the server does, and with no server at all. Only
pods of other nodes are taken from the slices. Each change recomputes what it touches: a slice whose members alone changed touches one set,
a pod touches itself and the groups that select it.

    chain   one per distinct list of admitted (peers, ports): pods that are treated alike share it
    set     the addresses of one group of peers, or the ranges of one rule
"""

import functools
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgekube.api.selectors import Selector, from_label_selector
from edgekube.api.types import Key, Obj

FAMILIES = (4, 6)
_SIDES = (("in", "Ingress", "ingress"), ("out", "Egress", "egress"))

PortName = tuple[str, str, int]  # (name, protocol, number)
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A pod of this node that has addresses of its own."""

    key: Key
    labels: Mapping[str, str]
    addresses: tuple[str, ...]
    ports: tuple[PortName, ...] = ()


class SetRef(NamedTuple):
    """A set of the table: group number `group` of a slice, whole or those with one named port (within `ranges`, if there are any); or,
    without a slice, those ranges."""

    family: int
    slice: Key | None = None
    group: int = 0
    port: PortName | None = None
    ranges: tuple[str, ...] = ()


class Match(NamedTuple):
    """Admitted: traffic with `peers` (None: anybody) of `protocol` ("": any) to one of `ports` (none: all)."""

    peers: SetRef | None
    protocol: str = ""
    ports: Ranges = ()


Chain = frozenset[Match]


@dataclass(frozen=True, slots=True)
class Target:
    """How one pod is isolated: its side ("in", "out") and family -> what is admitted all the same."""

    addresses: tuple[str, ...]
    chains: Mapping[tuple[str, int], Chain]


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it. `verdicts`: (side, family) -> address -> chain."""

    verdicts: Mapping[tuple[str, int], Mapping[str, Chain]]
    sets: Mapping[SetRef, frozenset[str]]


@dataclass(slots=True)
class Group:
    """The peers of one entry of a slice. What is needed of it is worked out when first asked for."""

    raw: Mapping[str, Any]
    selector: Selector
    spaces: frozenset[str] | None
    names: frozenset[tuple[str, str]] = frozenset()  # the named ports that rules ask for
    local: dict[str, LocalPod] | None = None  # None: never asked for
    _elements: dict[tuple[PortName | None, int], frozenset[str]] = field(default_factory=dict)

    def selects(self, pod: LocalPod) -> bool:
        return (self.spaces is None or pod.key.namespace in self.spaces) and self.selector.matches(pod.labels)

    def place(self, uid: str, pod: LocalPod | None) -> None:
        """A pod of this node is or is not there."""
        if self.local is None:
            return
        if pod is not None and self.selects(pod):
            if self.local.get(uid) != pod:
                self.local[uid] = pod
                self._elements.clear()
        elif self.local.pop(uid, None) is not None:
            self._elements.clear()

    def ports(self) -> Iterator[PortName]:
        """The named ports that members have, as far as rules ask for them."""
        for entry in self.raw.get("named") or ():
            yield entry["name"], entry.get("protocol") or "TCP", entry["port"]
        for pod in (self.local or {}).values():
            yield from (port for port in pod.ports if port[:2] in self.names)

    def elements(self, port: PortName | None, family: int, node: str) -> frozenset[str]:
        """The addresses of the members (that have the named port)."""
        found = self._elements.get((port, family))
        if found is None:
            found = self._elements[port, family] = frozenset(a for a in self._members(port, node) if family_of(a) == family)
        return found

    def _members(self, port: PortName | None, node: str) -> Iterator[str]:
        sources = [self.raw] if port is None else [e for e in self.raw.get("named") or () if _port_of(e) == port]
        for source in sources:
            yield from source.get("addresses") or ()
            for name, addresses in (source.get("nodes") or {}).items():
                if name != node:
                    yield from addresses
        for pod in (self.local or {}).values():
            if port is None or port in pod.ports:
                yield from pod.addresses


@dataclass(frozen=True, slots=True)
class Slice:
    """One policy. `shape` is all of it but the members."""

    key: Key
    selector: Selector
    sides: Mapping[str, Sequence[Obj]]  # "in", "out" -> rules; a side that is not there does not isolate
    groups: Sequence[Group]
    shape: Any

    def selects(self, pod: LocalPod) -> bool:
        return pod.key.namespace == self.key.namespace and self.selector.matches(pod.labels)


def family_of(address: str) -> int:
    return 6 if ":" in address else 4


def _port_of(entry: Mapping[str, Any]) -> PortName:
    return entry["name"], entry.get("protocol") or "TCP", entry["port"]


def read_slice(key: Key, spec: Obj) -> Slice:
    """Raises ValueError or LookupError for what no controller of ours writes."""
    groups = []
    for raw in spec.get("peers") or ():
        spaces = None if raw.get("everyNamespace") else frozenset(raw.get("namespaces") or ())
        groups.append(Group(raw, from_label_selector(raw.get("podSelector") or {}), spaces))
    types = spec.get("policyTypes") or ()
    sides = {side: spec.get(direction) or () for side, name, direction in _SIDES if name in types}
    for rule in sides.get("out", ()):
        names = {(port["port"], port.get("protocol") or "TCP") for port in rule.get("ports") or () if isinstance(port.get("port"), str)}
        for index in (*(rule.get("peers") or ()), *(rule.get("named") or ())) if names else ():
            groups[index].names |= names
    for rules in sides.values():
        for rule in rules:
            [groups[index] for field in ("peers", "named") for index in rule.get(field) or ()]  # every one is there
    shape = (
        [spec.get(name) for name in ("podSelector", "policyTypes", "ingress", "egress")],
        [(g.spaces, g.selector, sorted({_port_of(entry) for entry in g.raw.get("named") or ()})) for g in groups],
    )
    return Slice(key, from_label_selector(spec.get("podSelector") or {}), sides, groups, shape)


class NodeModel:
    """Told of each change; `plan` says what the kernel should hold."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._slices: dict[str, dict[Key, Slice]] = {}
        self._pods: dict[str, LocalPod] = {}
        self._targets: dict[str, Target] = {}

    @property
    def idle(self) -> bool:
        """Whether there is no policy at all: then pods need not be told."""
        return not self._slices

    def uids(self) -> Sequence[str]:
        """The pods it was told of."""
        return tuple(self._pods)

    def set_slice(self, key: Key, new: Slice | None) -> None:
        """A policy as it is now; None: it is gone."""
        found = self._slices.setdefault(key.namespace, {})
        old = found.pop(key, None)
        if new is not None:
            found[key] = new
        if not found:
            del self._slices[key.namespace]
        if old is not None and new is not None and old.shape == new.shape:
            for before, after in zip(old.groups, new.groups, strict=True):
                after.local = before.local
            return
        for uid, pod in self._pods.items():
            if (old is not None and old.selects(pod)) or (new is not None and new.selects(pod)):
                self._targets.pop(uid, None)

    def set_pod(self, uid: str, pod: LocalPod | None) -> None:
        """A pod of this node as it is now; None: it is gone, or has no address of its own."""
        if self._pods.get(uid) == pod:
            return
        if pod is None:
            del self._pods[uid]
        else:
            self._pods[uid] = pod
        self._targets.pop(uid, None)
        for space in self._slices.values():
            for policy in space.values():
                for group in policy.groups:
                    group.place(uid, pod)
                    if group.names and group.local is not None:
                        self._forget(policy)

    def _forget(self, policy: Slice) -> None:
        """Which numbers its named ports have may have changed."""
        for uid, pod in self._pods.items():
            if policy.selects(pod):
                self._targets.pop(uid, None)

    def isolates(self, pod: LocalPod) -> bool:
        """Whether any policy selects the pod."""
        return any(policy.selects(pod) for policy in self._slices.get(pod.key.namespace, {}).values())

    def plan(self) -> Plan:
        verdicts: dict[tuple[str, int], dict[str, Chain]] = {}
        sets: dict[SetRef, frozenset[str]] = {}
        looked: set[Chain] = set()
        for uid, pod in self._pods.items():
            target = self._targets.get(uid)
            if target is None:
                target = self._targets[uid] = self._target(pod)
            for (side, family), chain in target.chains.items():
                for address in target.addresses:
                    if family_of(address) == family:
                        verdicts.setdefault((side, family), {})[address] = chain
            for chain in set(target.chains.values()) - looked:
                looked.add(chain)
                for match in chain:
                    if match.peers is not None and match.peers not in sets:
                        sets[match.peers] = self._elements(match.peers)
        return Plan(verdicts, sets)

    def _elements(self, ref: SetRef) -> frozenset[str]:
        if ref.slice is None:
            return frozenset(ref.ranges)
        found = self._group(ref.slice, ref.group).elements(ref.port, ref.family, self._node)
        if not ref.ranges:
            return found
        ranges = [ipaddress.ip_network(text) for text in ref.ranges]
        return frozenset(a for a in found if any(ipaddress.ip_address(a) in one for one in ranges))

    def _group(self, key: Key, index: int) -> Group:
        group = self._slices[key.namespace][key].groups[index]
        if group.local is None:
            group.local = {uid: pod for uid, pod in self._pods.items() if group.selects(pod)}
        return group

    def _target(self, pod: LocalPod) -> Target:
        policies = [policy for policy in self._slices.get(pod.key.namespace, {}).values() if policy.selects(pod)]
        chains: dict[tuple[str, int], Chain] = {}
        for side, _, _ in _SIDES:
            concerned = [policy for policy in policies if side in policy.sides]
            for family in {family_of(address) for address in pod.addresses} if concerned else ():
                chains[side, family] = frozenset(m for policy in concerned for m in self._matches(policy, side, pod, family))
        return Target(pod.addresses, chains)

    def _matches(self, policy: Slice, side: str, pod: LocalPod, family: int) -> Iterator[Match]:
        for rule in policy.sides[side]:
            wanted = rule.get("ports") or ()
            if not wanted:
                yield from (Match(peers) for peers in self._peers(policy, rule, family))
                continue
            numbered = numbers(wanted, pod.ports if side == "in" else ())
            for peers in self._peers(policy, rule, family) if numbered else ():
                yield from (Match(peers, protocol, ports) for protocol, ports in numbered.items())
            if side == "out":
                yield from self._named(policy, rule, family)

    def _peers(self, policy: Slice, rule: Obj, family: int) -> Iterator[SetRef | None]:
        if rule.get("everyone"):
            yield None
            return
        yield from (SetRef(family, policy.key, index) for index in rule.get("peers") or ())
        if rule.get("blocks"):
            ranges = _ranges(rule, family)
            if ranges in (("0.0.0.0/0",), ("::/0",)):
                yield None
            elif ranges:
                yield SetRef(family, ranges=ranges)

    def _named(self, policy: Slice, rule: Obj, family: int) -> Iterator[Match]:
        """Named ports of an egress rule: each peer has its own numbers for them."""
        names = {(port["port"], port.get("protocol") or "TCP") for port in rule["ports"] if isinstance(port.get("port"), str)}
        groups: list[tuple[int, tuple[str, ...]]] = [(index, ()) for index in rule.get("peers") or ()]
        within = _ranges(rule, family)
        if within or not rule.get("blocks"):
            groups += [(index, within) for index in rule.get("named") or ()]
        for index, ranges in groups if names else ():
            for port in {port for port in self._group(policy.key, index).ports() if port[:2] in names}:
                yield Match(SetRef(family, policy.key, index, port, ranges), port[1].lower(), ((port[2], port[2]),))


def _ranges(rule: Obj, family: int) -> tuple[str, ...]:
    return networks(tuple((b["cidr"], *(b.get("except") or ())) for b in rule.get("blocks") or ()), family)


def numbers(wanted: Iterable[Obj], named: Iterable[PortName]) -> Mapping[str, Ranges]:
    """Protocol -> ranges of ports, () for all of them. Names are looked up in `named`; one that is not there admits nothing."""
    found: dict[str, set[tuple[int, int]]] = {}
    for port in wanted:
        protocol, number = port.get("protocol") or "TCP", port.get("port")
        if number is None:
            found.setdefault(protocol, set()).add((0, 65535))
        elif isinstance(number, int):
            found.setdefault(protocol, set()).add((number, port.get("endPort") or number))
        else:
            for _, _, resolved in (one for one in named if one[:2] == (number, protocol)):
                found.setdefault(protocol, set()).add((resolved, resolved))
    return {protocol.lower(): () if (0, 65535) in ranges else _joined(ranges) for protocol, ranges in sorted(found.items())}


def _joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """In order, without overlaps."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return tuple(found)


@functools.lru_cache(maxsize=256)
def networks(blocks: tuple[tuple[str, ...], ...], family: int) -> tuple[str, ...]:
    """The ranges of one family that `blocks` ((cidr, exception, ...) each) admit together, disjoint and in order."""
    found: list[Any] = []
    for cidr, *exceptions in blocks:
        whole = ipaddress.ip_network(cidr, strict=False)
        if whole.version == family:
            left = [whole]
            for text in exceptions:
                hole = ipaddress.ip_network(text, strict=False)
                left = [part for one in left for part in _without(one, hole)]
            found += left
    return tuple(str(network) for network in ipaddress.collapse_addresses(found))


def _without(network: Any, hole: Any) -> Iterable[Any]:
    if network.version != hole.version or not network.overlaps(hole):
        return (network,)
    return () if network.subnet_of(hole) else network.address_exclude(hole)


@functools.lru_cache(maxsize=4096)
def set_name(ref: SetRef) -> str:
    """The set's name in the table: that of a group stays while its members change, ranges are named by what they are."""
    return f"{'b' if ref.slice is None else 'p'}{ref.family}_{_digest(ref)}"


def chain_name(side: str, family: int, chain: Chain) -> str:
    """Named by what it admits."""
    return f"{side}{family}_{_digest(sorted(map(repr, chain)))}"


def _digest(what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]
