"""A node's NoSchedule taints equal its conditions, so that no pod is put where it cannot run. Pure; nodelifecycle.py writes them.

As upstream's doNoScheduleTaintingPass: a new node carries `not-ready` from admission until its kubelet says Ready; pressure conditions
and `spec.unschedulable` are shown as taints. Taints of other keys are left alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgekube.api.types import Obj

_PREFIX = "node.kubernetes.io/"
_BY_CONDITION: Mapping[str, Mapping[str, str]] = {
    "Ready": {"False": _PREFIX + "not-ready", "Unknown": _PREFIX + "unreachable"},
    "MemoryPressure": {"True": _PREFIX + "memory-pressure"},
    "DiskPressure": {"True": _PREFIX + "disk-pressure"},
    "PIDPressure": {"True": _PREFIX + "pid-pressure"},
    "NetworkUnavailable": {"True": _PREFIX + "network-unavailable"},
}
_UNSCHEDULABLE = _PREFIX + "unschedulable"
_OURS = frozenset(key for states in _BY_CONDITION.values() for key in states.values()) | {_UNSCHEDULABLE}


def plan_taints(node: Obj, now: str) -> Sequence[Obj] | None:
    """The taints the node should have, or None if it has them."""
    spec = node.get("spec") or {}
    current: Sequence[Mapping[str, Any]] = spec.get("taints") or ()
    wanted = _wanted(node)
    kept = [dict(taint) for taint in current if not _outdated(taint, wanted)]
    there = {taint["key"] for taint in kept if taint["effect"] == "NoSchedule"}
    added = [{"key": key, "effect": "NoSchedule", "timeAdded": now} for key in sorted(wanted - there)]
    return [*kept, *added] if added or len(kept) != len(current) else None


def _wanted(node: Obj) -> set[str]:
    conditions = (node.get("status") or {}).get("conditions") or ()
    found = {_BY_CONDITION.get(entry["type"], {}).get(entry.get("status", ""), "") for entry in conditions}
    if not any(entry["type"] == "Ready" for entry in conditions):
        found.add(_PREFIX + "not-ready")
    if (node.get("spec") or {}).get("unschedulable"):
        found.add(_UNSCHEDULABLE)
    return found - {""}


def _outdated(taint: Mapping[str, Any], wanted: set[str]) -> bool:
    return taint["effect"] == "NoSchedule" and taint["key"] in _OURS and taint["key"] not in wanted
