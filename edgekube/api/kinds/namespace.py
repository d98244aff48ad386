"""Namespace (pkg/registry/core/namespace/strategy.go, pkg/apis/core/validation ValidateNamespace)."""

from collections.abc import Iterator

from edgekube.api import problems
from edgekube.api import validate as rules
from edgekube.api.kind import Column, Kind
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.types import Obj
from edgekube.errors import Problem

FINALIZER = "kubernetes"
_FINALIZERS = (FINALIZER, "orphan", "foregroundDeletion")
NAME_LABEL = "kubernetes.io/metadata.name"


def default(obj: Obj) -> None:
    """Every namespace can be selected by its name."""
    name = obj["metadata"].get("name")
    if name:
        obj["metadata"].setdefault("labels", {})[NAME_LABEL] = name


def prepare(obj: Obj, old: Obj | None) -> None:
    """New ones are active and end only when the namespace controller says so."""
    if old is None:
        obj["status"] = {"phase": "Active"}
        finalizers = obj.setdefault("spec", {}).setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)
        return
    obj["spec"] = {"finalizers": list((old.get("spec") or {}).get("finalizers") or [])}
    obj["status"] = old.get("status") or {}


def prepare_status(obj: Obj, old: Obj | None) -> None:
    if old is not None:
        obj["spec"] = old.get("spec") or {}


def validate(new: Obj, old: Obj | None) -> Iterator[Problem]:
    """Finalizers are judged on create and when the finalize subresource changes them; no other update can."""
    names = (new.get("spec") or {}).get("finalizers") or ()
    if old is not None and names == ((old.get("spec") or {}).get("finalizers") or ()):
        return
    for index, name in enumerate(names):
        field = "spec.finalizers" if old is None else f"spec.finalizers[{index}]"
        yield from rules.each(field, name, rules.qualified(name))
        if "/" not in name and name not in _FINALIZERS:
            yield problems.invalid(field, name, "name is neither a standard finalizer name nor is it fully qualified")


def validate_status(new: Obj, _old: Obj | None) -> Iterator[Problem]:
    ending = bool(new["metadata"].get("deletionTimestamp"))
    phase, expected = (new.get("status") or {}).get("phase") or "", "Terminating" if ending else "Active"
    if phase != expected:
        condition = "not empty" if ending else "empty"
        yield problems.invalid("status.Phase", phase, f"may only be '{expected}' if `deletionTimestamp` is {condition}")


NAMESPACE = Kind(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    singular="namespace",
    short=("ns",),
    namespaced=False,
    schema="io.k8s.api.core.v1.Namespace",
    has_status=True,
    verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    subresources={"finalize": ("update",)},
    default=default,
    prepare=prepare,
    prepare_status=prepare_status,
    validate=validate,
    validate_status=validate_status,
    validate_name=rules.label,
    selectable={"status.phase": lambda o: str((o.get("status") or {}).get("phase") or "")},
    columns=(
        NAME,
        Column("Status", lambda o, _: (o.get("status") or {}).get("phase", ""), description="The status of the namespace"),
        AGE,
    ),
)
