"""What a namespace that is being deleted says about itself, pure: conditions in upstream's words.

Source of the words: pkg/controller/namespace/deletion/status_condition_utils.go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgekube.api.types import Obj

_FINE = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


@dataclass(slots=True)
class Remains:
    """What a round of deletion left. Keys of `counts` are `plural.group`, those of `finalizers` names of finalizers."""

    counts: dict[str, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    wait: float = 0.0  # seconds until what ends gracefully may have ended


def plan_conditions(current: Sequence[Obj], remains: Remains, stamp: str) -> list[Obj]:
    """The conditions after a round; a transition time moves with the status only."""
    trouble = _trouble(remains)
    known = {condition["type"]: condition for condition in current}
    planned = [condition for condition in current if condition["type"] not in _FINE]
    for kind, (reason, message) in _FINE.items():
        status = "False"
        if kind in trouble:
            status, (reason, message) = "True", trouble[kind]
        old = known.get(kind)
        since = old["lastTransitionTime"] if old is not None and old.get("status") == status else stamp
        planned.append({"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message})
    return planned


def _trouble(remains: Remains) -> Mapping[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    left = sum(remains.counts.values())
    if remains.errors:
        joined = remains.errors[0] if len(remains.errors) == 1 else "[" + ", ".join(sorted(remains.errors)) + "]"
        message = f"Failed to delete all resource types, {len(remains.errors)} remaining: {joined}"
        found["NamespaceDeletionContentFailure"] = ("ContentDeletionFailed", message)
    if left:
        parts = sorted(f"{name} has {count} resource instances" for name, count in remains.counts.items() if count)
        found["NamespaceContentRemaining"] = ("SomeResourcesRemain", f"Some resources are remaining: {', '.join(parts)}")
    if remains.finalizers:
        parts = sorted(f"{name} in {count} resource instances" for name, count in remains.finalizers.items())
        message = f"Some content in the namespace has finalizers remaining: {', '.join(parts)}"
        found["NamespaceFinalizersRemaining"] = ("SomeFinalizersRemain", message)
    return found
