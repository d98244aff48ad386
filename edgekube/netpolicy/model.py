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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edgekube.api.types import Key, Obj
from edgekube.netpolicy.slices import SIDES, Group, LocalPod, PortName, Ranges, Slice, family_of, numbers, ranges_of

FAMILIES = (4, 6)
EVERY_ADDRESS = {4: ((0, 2**32 - 1),), 6: ((0, 2**128 - 1),)}


class SetRef(NamedTuple):
    """A set of the table: group number `group` of a slice, whole or those with one named port (within `ranges`, if there are any); or,
    without a slice, those ranges."""

    family: int
    slice: Key | None = None
    group: int = 0
    port: PortName | None = None
    ranges: Ranges = ()


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


class NodeModel:
    """Told of each change; `plan` says what the kernel should hold."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._slices: dict[str, dict[Key, Slice]] = {}
        self._pods: dict[str, LocalPod] = {}
        self._targets: dict[str, Target] = {}
        self.version = 0  # counts changes

    @property
    def idle(self) -> bool:
        """Whether there is no policy at all: then pods need not be told."""
        return not self._slices

    def uids(self) -> Sequence[str]:
        """The pods it was told of."""
        return tuple(self._pods)

    def set_slice(self, key: Key, new: Slice | None) -> None:
        """A policy as it is now; None: it is gone."""
        self.version += 1
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
        self.version += 1
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
            return frozenset(_span(ref.family, low, high) for low, high in ref.ranges)
        found = self._group(ref.slice, ref.group).elements(ref.port, ref.family, self._node)
        if not ref.ranges:
            return found
        return frozenset(a for a in found if any(low <= int(ipaddress.ip_address(a)) <= high for low, high in ref.ranges))

    def _group(self, key: Key, index: int) -> Group:
        group = self._slices[key.namespace][key].groups[index]
        if group.local is None:
            group.local = {uid: pod for uid, pod in self._pods.items() if group.selects(pod)}
        return group

    def _target(self, pod: LocalPod) -> Target:
        policies = [policy for policy in self._slices.get(pod.key.namespace, {}).values() if policy.selects(pod)]
        chains: dict[tuple[str, int], Chain] = {}
        for side, _, _ in SIDES:
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
            ranges = ranges_of(rule, family)
            if ranges == EVERY_ADDRESS[family]:
                yield None
            elif ranges:
                yield SetRef(family, ranges=ranges)

    def _named(self, policy: Slice, rule: Obj, family: int) -> Iterator[Match]:
        """Named ports of an egress rule: each peer has its own numbers for them."""
        names = {(port["port"], port.get("protocol") or "TCP") for port in rule["ports"] if isinstance(port.get("port"), str)}
        groups: list[tuple[int, Ranges]] = [(index, ()) for index in rule.get("peers") or ()]
        within = ranges_of(rule, family)
        if within or not rule.get("blocks"):
            groups += [(index, within) for index in rule.get("named") or ()]
        for index, ranges in groups if names else ():
            for port in {port for port in self._group(policy.key, index).ports() if port[:2] in names}:
                yield Match(SetRef(family, policy.key, index, port, ranges), port[1].lower(), ((port[2], port[2]),))


@functools.lru_cache(maxsize=4096)
def set_name(ref: SetRef) -> str:
    """The set's name in the table: that of a group stays while its members change, ranges are named by what they are."""
    return f"{'b' if ref.slice is None else 'p'}{ref.family}_{_digest(ref)}"


def _span(family: int, low: int, high: int) -> str:
    """A range as nft writes it."""
    make = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return str(make(low)) if low == high else f"{make(low)}-{make(high)}"


def chain_name(side: str, family: int, chain: Chain) -> str:
    """Named by what it admits."""
    return f"{side}{family}_{_digest(sorted(map(repr, chain)))}"


def _digest(what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]
