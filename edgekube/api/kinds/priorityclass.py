"""PriorityClass (pkg/apis/scheduling/v1/defaults.go, pkg/apis/scheduling/validation)."""

from collections.abc import Iterator

from edgekube.api import problems
from edgekube.api import validate as rules
from edgekube.api.kind import Column, Kind
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.types import Obj
from edgekube.errors import Problem

_SYSTEM = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
_HIGHEST = 1000000000
_POLICIES = ("PreemptLowerPriority", "Never")


def default(obj: Obj) -> None:
    if obj.get("preemptionPolicy") is None:
        obj["preemptionPolicy"] = "PreemptLowerPriority"


def validate(new: Obj, old: Obj | None) -> Iterator[Problem]:
    if old is not None:
        if (new.get("value") or 0) != (old.get("value") or 0):
            yield problems.forbidden("value", "may not be changed in an update.")
        yield from rules.immutable("preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"))
        return
    name, value, policy = new["metadata"].get("name") or "", new.get("value") or 0, new.get("preemptionPolicy")
    if name.startswith("system-"):
        if why := _not_of_the_system(name, value, default=bool(new.get("globalDefault"))):
            lead = "priority class names with 'system-' prefix are reserved for system use only. error: "
            yield problems.forbidden("metadata.name", lead + why)
    elif value > _HIGHEST:
        yield problems.forbidden("value", f"maximum allowed value of a user defined priority is {_HIGHEST}")
    if policy == "":
        yield problems.required("preemptionPolicy")
    elif policy is not None and policy not in _POLICIES:
        yield problems.not_supported("preemptionPolicy", policy, _POLICIES)


def _not_of_the_system(name: str, value: int, *, default: bool) -> str:
    """IsKnownSystemPriorityClass."""
    if name not in _SYSTEM:
        return f"{name} is not a known system priority class"
    if value != _SYSTEM[name]:
        return f"value of {name} PriorityClass must be {_SYSTEM[name]}"
    return f"globalDefault of {name} PriorityClass must be false" if default else ""


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
    validate=validate,
    columns=(
        NAME,
        Column("Value", lambda o, _: o.get("value", 0), "integer", description="The priority pods of this class get."),
        Column("Global-Default", lambda o, _: bool(o.get("globalDefault")), "boolean", description="Whether pods without a class get it."),
        AGE,
        Column("PreemptionPolicy", lambda o, _: o.get("preemptionPolicy") or "", description="Whether its pods may push others out."),
    ),
)
