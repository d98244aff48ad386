"""What one PolicySlice says, read once: its rules as they are, its groups of peers, the ports and ranges that rules name. Pure."""

import functools
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekube.api.selectors import Selector, from_label_selector
from edgekube.api.types import Key, Obj

SIDES = (("in", "Ingress", "ingress"), ("out", "Egress", "egress"))

PortName = tuple[str, str, int]  # (name, protocol, number)
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A pod of this node that has addresses of its own."""

    key: Key
    labels: Mapping[str, str]
    addresses: tuple[str, ...]
    ports: tuple[PortName, ...] = ()


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
    sides = {side: spec.get(direction) or () for side, name, direction in SIDES if name in types}
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


def ranges_of(rule: Obj, family: int) -> Ranges:
    """The addresses of one family, as numbers, that the rule's blocks admit."""
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
def networks(blocks: tuple[tuple[str, ...], ...], family: int) -> Ranges:
    """What `blocks` ((cidr, exception, ...) each) admit together of one family. A single pass: a block may have thousands of exceptions."""
    found: list[tuple[int, int]] = []
    for cidr, *exceptions in blocks:
        (first, last), version = _bounds(cidr)
        if version != family:
            continue
        for low, high in _joined(bounds for bounds, version in map(_bounds, exceptions) if version == family):
            if low > first:
                found.append((first, min(low - 1, last)))
            first = max(first, high + 1)
        if first <= last:
            found.append((first, last))
    return _joined((low, high) for low, high in found if low <= high)


def _bounds(cidr: str) -> tuple[tuple[int, int], int]:
    network = ipaddress.ip_network(cidr, strict=False)
    return (int(network.network_address), int(network.broadcast_address)), network.version
