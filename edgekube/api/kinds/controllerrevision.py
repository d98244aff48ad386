"""ControllerRevision: an immutable snapshot of a workload's template (pkg/registry/apps/controllerrevision)."""

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds.printing import AGE, NAME, NONE
from edgekube.api.types import Obj


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
    columns=(NAME, Column("Controller", _controller), Column("Revision", lambda o, _: o.get("revision", 0), "integer"), AGE),
)
