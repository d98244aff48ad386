"""From a NetworkPolicy to the PolicySlice that nodes read. Pure.

Rules keep their ports and ranges; selected peers become groups with their members' addresses by node. A named port is resolved where it
is: in ingress on the isolated pod, by its own node; in egress on each peer, here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekube.api.selectors import EVERYTHING, from_label_selector
from edgekube.api.types import Key, Obj
from edgekube.controllers.policypeers import Member, PeerIndex, PeerKey

Names = frozenset[tuple[str, str]]  # (name, protocol)


@dataclass(frozen=True, slots=True)
class Entry:
    """One group of peers that the policy refers to; `selector` as it was written; `names`: the named ports that rules ask it for."""

    key: PeerKey
    selector: Mapping[str, Any]
    names: Names


@dataclass(slots=True)
class PolicyFacts:
    """A policy read once. `spec` is that of its slice, without peers."""

    key: Key
    uid: str
    spec: Obj
    entries: list[Entry] = field(default_factory=list)
    _positions: dict[tuple[PeerKey, Names], int] = field(default_factory=dict)

    def entry(self, entry: Entry) -> int:
        """The position of the group, which is added if it is new."""
        position = self._positions.setdefault((entry.key, entry.names), len(self.entries))
        if position == len(self.entries):
            self.entries.append(entry)
        return position


def read_policy(policy: Obj) -> PolicyFacts:
    """What the policy says. It was validated; a selector that makes no sense all the same raises ValueError."""
    about, spec = policy["metadata"], policy["spec"]
    types = spec.get("policyTypes") or ()
    facts = PolicyFacts(Key(about["namespace"], about["name"]), about.get("uid", ""), {"podSelector": spec.get("podSelector") or {}})
    if types:
        facts.spec["policyTypes"] = list(types)
    for name, direction, side in (("Ingress", "ingress", "from"), ("Egress", "egress", "to")):
        rules = spec.get(direction) or ()
        if name in types and rules:
            facts.spec[direction] = [_rule(facts, rule, rule.get(side) or (), egress=side == "to") for rule in rules]
    return facts


def _rule(facts: PolicyFacts, rule: Obj, sides: Iterable[Obj], *, egress: bool) -> Obj:
    ports = list(rule.get("ports") or ())
    names: Names = frozenset()
    if egress:
        names = frozenset((port["port"], port.get("protocol") or "TCP") for port in ports if isinstance(port.get("port"), str))
    found: Obj = {"ports": ports} if ports else {}
    peers, blocks = [], []
    for peer in sides:
        if peer.get("ipBlock") is not None:
            blocks.append(peer["ipBlock"])
        else:
            peers.append(facts.entry(_entry(facts.key.namespace, peer, names)))
    if not peers and not blocks:
        found["everyone"] = True
    if names and (blocks or not peers):  # wherever they are, only pods have ports with names
        found["named"] = [facts.entry(Entry(PeerKey("", EVERYTHING, EVERYTHING), {}, names))]
    if peers:
        found["peers"] = sorted(set(peers))
    if blocks:
        found["blocks"] = blocks
    return found


def _entry(namespace: str, peer: Obj, names: Names) -> Entry:
    selector = peer.get("podSelector") or {}
    pods = from_label_selector(selector)
    if peer.get("namespaceSelector") is None:
        return Entry(PeerKey(namespace, None, pods), selector, names)
    return Entry(PeerKey("", from_label_selector(peer["namespaceSelector"]), pods), selector, names)


def slice_spec(facts: PolicyFacts, index: PeerIndex) -> Obj:
    """The whole spec, with the members as they are now. Empty things are left out, as the API stores it."""
    if not facts.entries:
        return facts.spec
    return facts.spec | {"peers": [_peers(entry, index) for entry in facts.entries]}


def _peers(entry: Entry, index: PeerIndex) -> Obj:
    members = index.members(entry.key).values()
    spaces = index.spaces(entry.key)
    found: Obj = {"podSelector": entry.selector, **_by_node(members)}
    if spaces is None:
        found["everyNamespace"] = True
    elif names := sorted(spaces):
        found["namespaces"] = names
    if entry.names:
        resolved: dict[tuple[str, str, int], list[Member]] = {}
        for member in members:
            for port in {port for port in member.ports if port[:2] in entry.names}:
                resolved.setdefault(port, []).append(member)
        if resolved:
            found["named"] = [_named(port, resolved[port]) for port in sorted(resolved)]
    return found


def _named(port: tuple[str, str, int], members: Iterable[Member]) -> Obj:
    name, protocol, number = port
    return {"protocol": protocol, "name": name, "port": number, **_by_node(members)}


def _by_node(members: Iterable[Member]) -> Obj:
    nodes: dict[str, list[str]] = {}
    for member in members:
        nodes.setdefault(member.node, []).extend(member.addresses)
    for addresses in nodes.values():
        addresses.sort()
    loose = nodes.pop("", None)
    found: Obj = {"nodes": dict(sorted(nodes.items()))} if nodes else {}
    if loose:
        found["addresses"] = loose
    return found
