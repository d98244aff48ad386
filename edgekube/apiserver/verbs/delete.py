"""delete: now, after a grace period, or once the last finalizer is gone.

    graceful kinds (pods)  -> deletionTimestamp + grace, gone when the kubelet deletes again with grace 0
    finalizers             -> deletionTimestamp, gone when the last finalizer is removed (update.py)
    else                   -> gone

Source of the rules: registry/rest/delete.go and registry/generic/registry/store.go (Delete, updateForGracefulDeletionAndFinalizers).
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from edgekube.api import catalog, meta, problems
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.verbs.finalizers import pending, wanted
from edgekube.apiserver.verbs.metadata import precondition_failed
from edgekube.errors import Conflict, Invalid
from edgekube.lib.clock import Clock, parse_rfc3339, rfc3339

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

_ATTEMPTS = 25
_POLICIES = ("Foreground", "Background", "Orphan")
# These answer a delete with the object; all others with a Status (ReturnDeletedObject in their storage).
_SHOWN = frozenset(
    (
        "pods", "services", "serviceaccounts", "persistentvolumes", "persistentvolumeclaims", "podtemplates", "resourcequotas",
        "storageclasses.storage.k8s.io", "csidrivers.storage.k8s.io", "csinodes.storage.k8s.io", "volumeattachments.storage.k8s.io",
        "volumeattributesclasses.storage.k8s.io",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """metav1.DeleteOptions as far as one object is concerned. `uid` and `revision` are preconditions."""

    grace_seconds: int | None = None
    propagation: str = ""
    uid: str = ""
    revision: str = ""
    orphan_dependents: bool | None = None

    @classmethod
    def of(cls, body: Obj) -> "DeleteOptions":
        """Raises Invalid for what makes no sense."""
        grace, orphan, propagation = body.get("gracePeriodSeconds"), body.get("orphanDependents"), body.get("propagationPolicy") or ""
        if orphan is not None and propagation:
            why = "orphanDependents and deletionPropagation cannot be both set"
            raise Invalid.of("meta.k8s.io", "DeleteOptions", "", [problems.invalid("propagationPolicy", propagation, why)])
        if propagation not in ("", *_POLICIES):
            unknown = problems.not_supported("propagationPolicy", propagation, (*_POLICIES, "nil"))
            raise Invalid.of("meta.k8s.io", "DeleteOptions", "", [unknown])
        if orphan is not None:
            propagation = "Orphan" if orphan else "Background"
        if grace is not None and grace < 0:
            grace = 1
        preconditions = body.get("preconditions") or {}
        return cls(grace, propagation, preconditions.get("uid") or "", preconditions.get("resourceVersion") or "", orphan)


class Outcome(Enum):
    GONE = "gone"
    KEPT = "kept"  # it waits for finalizers or for the end of its grace period


@dataclass(frozen=True, slots=True)
class Deleted:
    """How the delete ended; `item` is the object as it is left or was last."""

    outcome: Outcome
    item: Item

    def body(self, kind: Kind) -> tuple[bytes, bool]:
        """What the client gets: the object (True) while it exists and for some kinds, else a Status."""
        resource = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        if self.outcome is Outcome.KEPT or resource in _SHOWN:
            return self.item.raw, True
        details = {"name": self.item.name, "group": kind.group, "kind": kind.plural, "uid": self.item.uid}
        details = {name: value for name, value in details.items() if value}
        return meta.encode({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}), False


class _Step(Enum):
    REMOVE = "remove"
    MARK = "mark"
    NOTHING = "nothing"


async def delete(server: "Server", op: Operation, options: DeleteOptions) -> Deleted:
    """Raises NotFound, Conflict (preconditions), what admission says."""
    for attempt in range(_ATTEMPTS):
        current = server.registry.latest(op.kind, op.namespace, op.name)
        obj = current.decode()
        _check_preconditions(op, obj, options)
        await server.admit(op, "DELETE", None, obj)
        step = plan(op.kind, obj, options, server.clock)
        if step is _Step.NOTHING:
            return Deleted(Outcome.KEPT, current)
        outcome = Outcome.GONE if step is _Step.REMOVE else Outcome.KEPT
        if op.dry_run:
            return Deleted(outcome, meta.item_of(op.kind, meta.encode(obj), current.revision, obj))
        try:
            if step is _Step.REMOVE:
                return Deleted(outcome, await server.registry.delete(op.kind, obj, current.revision))
            if obj == current.decode():
                return Deleted(outcome, current)
            return Deleted(outcome, await server.registry.update(op.kind, obj, current.revision))
        except Conflict:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _check_preconditions(op: Operation, obj: Obj, options: DeleteOptions) -> None:
    metadata = obj["metadata"]
    if options.uid and options.uid != metadata.get("uid"):
        raise precondition_failed(op, f"UID in precondition: {options.uid}, UID in object meta: {metadata.get('uid', '')}")
    if options.revision and options.revision != metadata["resourceVersion"]:
        why = f"ResourceVersion in precondition: {options.revision}, ResourceVersion in object meta: {metadata['resourceVersion']}"
        raise precondition_failed(op, why)


def plan(kind: Kind, obj: Obj, options: DeleteOptions, clock: Clock) -> _Step:
    """Decide, and change `obj` to what is to be stored (or shown as the last version)."""
    metadata = obj["metadata"]
    if kind == catalog.NAMESPACE:
        return _plan_namespace(obj, options, clock)
    graceful = kind.grace_seconds is not None
    if graceful and "deletionTimestamp" in metadata and metadata.get("deletionGracePeriodSeconds") is not None:
        if options.grace_seconds is None or options.grace_seconds >= metadata["deletionGracePeriodSeconds"]:
            return _Step.NOTHING
        _shorten(metadata, options.grace_seconds)
        grace = options.grace_seconds
    elif graceful and "deletionTimestamp" not in metadata:
        grace = _grace(kind, obj, options)
        _mark(metadata, grace, clock)
    else:
        grace = 0
    finalizers = wanted(kind, metadata.get("finalizers") or (), options.propagation)
    _set_finalizers(metadata, finalizers)
    if finalizers:
        if "deletionTimestamp" not in metadata:
            _mark(metadata, 0, clock)
        return _Step.MARK
    return _Step.MARK if grace > 0 else _Step.REMOVE


def _plan_namespace(obj: Obj, options: DeleteOptions, clock: Clock) -> _Step:
    """A namespace first turns Terminating; it goes when its own finalizers and those of its spec are gone."""
    metadata = obj["metadata"]
    if "deletionTimestamp" not in metadata:
        metadata["deletionTimestamp"] = rfc3339(clock.now())
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        _set_finalizers(metadata, wanted(catalog.NAMESPACE, metadata.get("finalizers") or (), options.propagation))
        return _Step.MARK
    return _Step.NOTHING if pending(catalog.NAMESPACE, obj) else _Step.REMOVE


def _grace(kind: Kind, obj: Obj, options: DeleteOptions) -> int:
    """Seconds this object gets; 0 where nothing runs that needs them, whatever the client asked for."""
    default = kind.grace_seconds(obj) if kind.grace_seconds is not None else 0
    if options.grace_seconds is None or default <= 0:
        return max(default, 0)
    return options.grace_seconds


def _mark(metadata: dict[str, Any], grace: int, clock: Clock) -> None:
    metadata["deletionTimestamp"] = rfc3339(clock.now() + timedelta(seconds=grace))
    metadata["deletionGracePeriodSeconds"] = grace
    if metadata.get("generation"):
        metadata["generation"] += 1


def _shorten(metadata: dict[str, Any], grace: int) -> None:
    asked = parse_rfc3339(metadata["deletionTimestamp"]) - timedelta(seconds=metadata["deletionGracePeriodSeconds"])
    metadata["deletionTimestamp"] = rfc3339(asked + timedelta(seconds=grace))
    metadata["deletionGracePeriodSeconds"] = grace


def _set_finalizers(metadata: dict[str, Any], finalizers: list[str]) -> None:
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
