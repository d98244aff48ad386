"""Who must still act before an object may go: finalizers, and what a delete asks of the garbage collector. Pure.

Source of the rules: deletionFinalizersForGarbageCollection and ShouldDeleteDuringUpdate in registry/generic/registry/store.go.
"""

from collections.abc import Sequence

from edgekube.api import catalog
from edgekube.api.kind import Kind
from edgekube.api.types import Obj

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"


def pending(kind: Kind, obj: Obj) -> Sequence[str]:
    """The finalizers that keep the object; a namespace has more in its spec."""
    found: list[str] = list(obj["metadata"].get("finalizers") or ())
    if kind == catalog.NAMESPACE:
        found += (obj.get("spec") or {}).get("finalizers") or ()
    return found


def emptied(kind: Kind, new: Obj, old: Obj) -> bool:
    """Whether this update takes away the last reason to keep an object that was to be deleted."""
    if "deletionTimestamp" not in old["metadata"] or pending(kind, new):
        return False
    return not old["metadata"].get("deletionGracePeriodSeconds")


def wanted(kind: Kind, finalizers: Sequence[str], propagation: str) -> list[str]:
    """The finalizers after a delete with that propagation policy ("": the object's own wish, else the kind's default)."""
    found = [name for name in finalizers if name not in (ORPHAN, FOREGROUND)]
    policy = propagation
    if not policy:
        if ORPHAN in finalizers:
            policy = "Orphan"
        elif FOREGROUND in finalizers:
            policy = "Foreground"
        elif kind.default_propagation == "Orphan":
            policy = "Orphan"
    if policy == "Orphan":
        found.append(ORPHAN)
    elif policy == "Foreground":
        found.append(FOREGROUND)
    return found
