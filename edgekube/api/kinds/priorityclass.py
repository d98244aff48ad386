"""PriorityClass (pkg/apis/scheduling/v1/defaults.go)."""

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.types import Obj


def default(obj: Obj) -> None:
    if obj.get("preemptionPolicy") is None:
        obj["preemptionPolicy"] = "PreemptLowerPriority"


PRIORITY_CLASS = Kind(
    group="scheduling.k8s.io",
    version="v1",
    kind="PriorityClass",
    plural="priorityclasses",
    singular="priorityclass",
    short=("pc",),
    namespaced=False,
    schema="io.k8s.api.scheduling.v1.PriorityClass",
    has_generation=True,
    default=default,
    columns=(
        NAME,
        Column("Value", lambda o, _: o.get("value", 0), "integer", description="The priority pods of this class get."),
        Column("Global-Default", lambda o, _: bool(o.get("globalDefault")), "boolean", description="Whether pods without a class get it."),
        AGE,
        Column("PreemptionPolicy", lambda o, _: o.get("preemptionPolicy") or "", description="Whether its pods may push others out."),
    ),
)
