"""ControllerRevision: an immutable snapshot of a workload's template (pkg/registry/apps/controllerrevision)."""

from collections.abc import Iterator

from edgekube.api import problems
from edgekube.api import validate as rules
from edgekube.api.kind import Column, Kind
from edgekube.api.kinds.printing import AGE, NAME, NONE
from edgekube.api.types import Obj
from edgekube.errors import Problem


def validate(new: Obj, old: Obj | None) -> Iterator[Problem]:
    if new.get("data") is None:
        yield problems.required("data", "data is mandatory")
    yield from rules.nonnegative("revision", new.get("revision"))
    if old is not None:
        yield from rules.immutable("data", new.get("data"), old.get("data"))


def _controller(obj: Obj, _now: float) -> str:
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            group = owner["apiVersion"].partition("/")[0] if "/" in owner["apiVersion"] else ""
            return f"{owner['kind'].lower()}.{group}/{owner['name']}" if group else f"{owner['kind'].lower()}/{owner['name']}"
    return NONE


CONTROLLER_REVISION = Kind(
    group="apps",
    version="v1",
    kind="ControllerRevision",
    plural="controllerrevisions",
    singular="controllerrevision",
    schema="io.k8s.api.apps.v1.ControllerRevision",
    validate=validate,
    columns=(NAME, Column("Controller", _controller), Column("Revision", lambda o, _: o.get("revision", 0), "integer"), AGE),
)
