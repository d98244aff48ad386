"""When a node counts as lost and what its object says then, pure. Words and rules of upstream's pkg/controller/nodelifecycle.

    heard of within the grace period -> nothing      else -> the kubelet's four conditions Unknown
    Ready False   -> taint not-ready:NoExecute       Ready Unknown -> unreachable:NoExecute       Ready True -> neither
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from edgekube.api.types import Obj

PREFIX = "node.kubernetes.io/"
NOT_READY, UNREACHABLE = PREFIX + "not-ready", PREFIX + "unreachable"
LOST = frozenset((NOT_READY, UNREACHABLE))
EXCLUDED = PREFIX + "exclude-disruption"
_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_ZONE, _REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
_UNHEALTHY = 0.55  # share of a zone's nodes above which it counts as disrupted
_LARGE = 50  # zones of more nodes go on, slowly, when they are
TAINT_SECONDS, SLOW_SECONDS = 10.0, 100.0  # between two nodes of a zone that get the taint


class Zone(Enum):
    """How the nodes of a zone are, together."""

    NORMAL = "Normal"
    PARTIAL = "PartialDisruption"
    FULL = "FullDisruption"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """`ready` is the condition's status, "" if the kubelet has never said."""

    ready: str
    zone: str
    excluded: bool
    reported: object  # changes with every report of the kubelet


def node_facts(node: Obj) -> NodeFacts:
    """What decisions about all nodes need to know of one."""
    labels = node["metadata"].get("labels") or {}
    found = ready_of(node)
    zone = f"{labels.get(_REGION, '')}:{labels.get(_ZONE, '')}"
    return NodeFacts((found or {}).get("status", ""), zone, EXCLUDED in labels, (found or {}).get("lastHeartbeatTime"))


def ready_of(node: Obj) -> Obj | None:
    return next((entry for entry in (node.get("status") or {}).get("conditions") or () if entry["type"] == "Ready"), None)


def plan_unknown(node: Obj, now: str) -> list[Obj] | None:
    """The conditions of a node that is not heard of any more; None if they say so already."""
    old: Sequence[Obj] = (node.get("status") or {}).get("conditions") or ()
    known = {entry["type"]: entry for entry in old}
    fresh: dict[str, Obj] = {}
    for kind in _CONDITIONS:
        entry = known.get(kind)
        if entry is None:
            fresh[kind] = {
                "type": kind,
                "status": "Unknown",
                "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": node["metadata"].get("creationTimestamp"),
                "lastTransitionTime": now,
            }
        elif entry["status"] != "Unknown":
            said = {"reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
            fresh[kind] = {**entry, "status": "Unknown", "lastTransitionTime": now, **said}
    if not fresh:
        return None
    return [fresh.pop(entry["type"], entry) for entry in old] + list(fresh.values())


def plan_no_execute(node: Obj, now: str, *, allowed: bool) -> Sequence[Obj] | None:
    """The node's taints with the right one of the two for lost nodes; None if they are right. Unless `allowed` no node gets one that has
    none: then only what is there changes or goes."""
    current: Sequence[Mapping[str, Any]] = (node.get("spec") or {}).get("taints") or ()
    wanted = {"False": NOT_READY, "Unknown": UNREACHABLE}.get((ready_of(node) or {}).get("status", ""), "")
    mine = [taint["key"] for taint in current if taint["effect"] == "NoExecute" and taint["key"] in LOST]
    if not mine and not allowed:
        wanted = ""
    if mine == ([wanted] if wanted else []):
        return None
    kept = [dict(taint) for taint in current if not (taint["effect"] == "NoExecute" and taint["key"] in LOST - {wanted})]
    if wanted and wanted not in mine:
        kept.append({"key": wanted, "effect": "NoExecute", "timeAdded": now})
    return kept


def lost_taint(node: Obj) -> bool:
    """Whether it carries one of the two."""
    return any(taint["effect"] == "NoExecute" and taint["key"] in LOST for taint in (node.get("spec") or {}).get("taints") or ())


def zone_states(nodes: Sequence[NodeFacts]) -> Mapping[str, Zone]:
    """Of every zone that has nodes that count."""
    zones: dict[str, list[bool]] = {}
    for node in nodes:
        if not node.excluded:
            zones.setdefault(node.zone, []).append(node.ready == "True")
    return {name: _state(ready) for name, ready in zones.items()}


def pause(state: Zone, size: int) -> float | None:
    """Seconds between two nodes of a zone that get a taint; None: none gets one."""
    if state is Zone.PARTIAL:
        return SLOW_SECONDS if size > _LARGE else None
    return TAINT_SECONDS


def _state(ready: Sequence[bool]) -> Zone:
    lost = len(ready) - sum(ready)
    if lost == len(ready):
        return Zone.FULL
    return Zone.PARTIAL if lost > 2 and lost / len(ready) >= _UNHEALTHY else Zone.NORMAL


def plan_pod_not_ready(pod: Obj, now: str) -> Obj | None:
    """The pod's Ready condition turned off, as a patch of its status; None if it is off."""
    conditions: Sequence[Obj] = (pod.get("status") or {}).get("conditions") or ()
    found = next((entry for entry in conditions if entry["type"] == "Ready"), None)
    if found is None or found["status"] == "False":
        return None
    return {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}]}
