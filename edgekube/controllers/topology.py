"""Zone hints for Services with `service.kubernetes.io/topology-mode: Auto`, pure: traffic stays in its zone while no zone is overloaded.

Source of the rules: staging/src/k8s.io/endpointslice/topologycache. Each zone gets endpoints in proportion to the CPUs of its nodes; where
that can not be done without loading an endpoint more than a fifth above its share, nobody gets hints. Unlike upstream nothing is
remembered between two looks: what the slices show is the state, and hints that still fit are kept.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekube.api import quantity
from edgekube.api.types import Obj

MODE, OLD_MODE = "service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"
_OVERLOAD = 0.2
_ZONE = "topology.kubernetes.io/zone"
_EXCLUDED = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")

ENABLED = "Topology Aware Hints has been enabled"
DISABLED = "Topology Aware Hints has been disabled"
_NO_NODES = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
_FEW = "Insufficient number of endpoints"
_OVERLOADED = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
_NO_ZONE = "One or more endpoints do not have a zone specified"


def wants_hints(annotations: Mapping[str, str]) -> bool:
    return annotations.get(OLD_MODE, annotations.get(MODE, "")) in ("Auto", "auto")


@dataclass(frozen=True, slots=True)
class NodeShare:
    """What a node adds to its zone. `cpu` in thousandths; nodes that do not count have None as zone."""

    zone: str | None
    cpu: int


def node_share(node: Obj) -> NodeShare:
    """Control plane nodes and those that are not ready do not count."""
    labels, status = node["metadata"].get("labels") or {}, node.get("status") or {}
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    if not ready or any(label in labels for label in _EXCLUDED):
        return NodeShare(None, 0)
    return NodeShare(labels.get(_ZONE, ""), quantity.milli((status.get("allocatable") or {}).get("cpu") or "0"))


def ratios(shares: Iterable[NodeShare]) -> dict[str, float]:
    """Zone -> its part of all CPUs; {} if that is not known of all nodes, or there is only one zone."""
    by_zone: Counter[str] = Counter()
    for share in shares:
        if share.zone is None:
            continue
        if not share.zone or not share.cpu:
            return {}
        by_zone[share.zone] += share.cpu
    total = sum(by_zone.values())
    return {zone: cpu / total for zone, cpu in by_zone.items()} if len(by_zone) > 1 else {}


@dataclass(frozen=True, slots=True)
class Hints:
    """A zone for each ready endpoint by its first address; or why there are none."""

    zones: Mapping[str, str]
    why_not: str = ""


@dataclass(slots=True)
class _Share:
    minimum: int
    desired: float
    maximum: int = 0


def plan_hints(endpoints: Sequence[Mapping[str, Any]], share: Mapping[str, float], before: Mapping[str, str]) -> Hints:
    """`before`: hints the slices have now."""
    ready = sorted((e for e in endpoints if e["conditions"].get("ready")), key=_address)
    shares, why_not = _shares(share, len(ready))
    if not shares:
        return Hints({}, why_not)
    if not all(endpoint.get("zone") for endpoint in ready):
        return Hints({}, _NO_ZONE)
    zones = _start(ready, shares, before)
    giving, receiving = _exchange(shares, Counter(zones.values()))
    for endpoint in ready:
        address = _address(endpoint)
        zone = zones[address]
        if giving[zone] > 0 and (target := next((name for name in sorted(receiving) if receiving[name] > 0), "")):
            zones[address] = target
            giving[zone] -= 1
            receiving[target] -= 1
    return Hints(zones)


def _address(endpoint: Mapping[str, Any]) -> str:
    return str(endpoint["addresses"][0])


def _shares(share: Mapping[str, float], count: int) -> tuple[dict[str, _Share], str]:
    if not share:
        return {}, _NO_NODES
    if len(share) > count:
        return {}, f"{_FEW} ({count} endpoints, {len(share)} zones)"
    found: dict[str, _Share] = {}
    for zone, ratio in share.items():
        desired = ratio * count
        minimum = math.ceil(desired / (1 + _OVERLOAD))
        found[zone] = _Share(minimum, max(desired, minimum))
    spare = count - sum(each.minimum for each in found.values())
    if spare < 0:
        return {}, f"{_OVERLOADED} ({count} endpoints, {len(share)} zones)"
    for each in found.values():
        each.maximum = each.minimum + spare
    return found, ""


def _start(ready: Sequence[Mapping[str, Any]], shares: Mapping[str, _Share], before: Mapping[str, str]) -> dict[str, str]:
    """Hints that still fit are kept, the others begin in their own zone."""
    counted: Counter[str] = Counter()
    zones: dict[str, str] = {}
    for endpoint in ready:
        kept = before.get(_address(endpoint), "")
        if kept in shares and counted[kept] < shares[kept].maximum:
            zones[_address(endpoint)] = kept
            counted[kept] += 1
    for endpoint in ready:
        zones.setdefault(_address(endpoint), endpoint["zone"])
    return zones


def _exchange(shares: Mapping[str, _Share], have: Mapping[str, int]) -> tuple[Counter[str], Counter[str]]:
    """How many endpoints each zone gives away, and gets."""
    over = {zone: have.get(zone, 0) - share.desired for zone, share in shares.items()}
    giving: Counter[str] = Counter()
    receiving: Counter[str] = Counter()
    while True:
        giver, taker = max(sorted(over), key=over.__getitem__), min(sorted(over), key=over.__getitem__)
        give, take = over[giver], -over[taker]
        if (give < 1 and take < 1) or give < 0.5 or take < 0.5:
            return giving, receiving
        giving[giver] += 1
        receiving[taker] += 1
        over[giver] -= 1
        over[taker] += 1
