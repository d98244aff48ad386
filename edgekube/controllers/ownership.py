"""What becomes of an object whose owners changed, pure: keep it, drop some of its owner references, or delete it.

Source of the rules: pkg/controller/garbagecollector/garbagecollector.go (attemptToDeleteItem).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from edgekube.api.types import Obj

FOREGROUND_FINALIZER = "foregroundDeletion"
ORPHAN_FINALIZER = "orphan"


class Owner(Enum):
    """How an owner reference stands."""

    SOLID = "there, and to stay"
    DANGLING = "not there, or another object of that name"
    WAITING = "being deleted, waiting for its dependents"


@dataclass(frozen=True, slots=True)
class Fate:
    """`drop` these owners' references, or delete with `policy`; neither: leave it. `unblock` first breaks a circle."""

    drop: Sequence[str] = ()
    policy: str = ""
    unblock: bool = False


def plan_fate(owners: Mapping[str, Owner], *, has_dependents: bool, in_circle: bool, finalizers: Iterable[str]) -> Fate:
    """`owners` maps the uid of each owner reference to how it stands; `in_circle`: a dependent waits for this object in turn."""
    if not owners:
        return Fate()
    solid = [uid for uid, state in owners.items() if state is Owner.SOLID]
    waiting = [uid for uid, state in owners.items() if state is Owner.WAITING]
    if solid:
        return Fate(drop=tuple(uid for uid in owners if uid not in solid))
    if waiting and has_dependents:
        return Fate(policy="Foreground", unblock=in_circle)
    if ORPHAN_FINALIZER in finalizers:
        return Fate(policy="Orphan")
    if FOREGROUND_FINALIZER in finalizers:
        return Fate(policy="Foreground")
    return Fate(policy="Background")


def blocks(dependent: Obj, owner_uid: str) -> bool:
    """Whether `dependent` keeps its owner from going in foreground deletion."""
    references = dependent["metadata"].get("ownerReferences") or ()
    return any(ref.get("uid") == owner_uid and ref.get("blockOwnerDeletion") for ref in references)
