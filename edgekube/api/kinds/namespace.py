"""Namespace (pkg/registry/core/namespace/strategy.go)."""

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.types import Obj

FINALIZER = "kubernetes"
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
    selectable={"status.phase": lambda o: str((o.get("status") or {}).get("phase") or "")},
    columns=(
        NAME,
        Column("Status", lambda o, _: (o.get("status") or {}).get("phase", ""), description="The status of the namespace"),
        AGE,
    ),
)
