"""Validation of taints and of scheduling gates (pkg/apis/core/validation/validation.go)."""

from collections.abc import Sequence

from edgekube.api import problems, validate
from edgekube.api.types import Obj
from edgekube.errors import Problem

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def taints(found: list[Problem], at: str, listed: Sequence[Obj]) -> None:
    """validateNodeTaints."""
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(listed):
        here = f"{at}[{index}]"
        key, value, effect = taint.get("key", ""), taint.get("value", ""), taint.get("effect", "")
        found += validate.each(f"{here}.key", key, validate.qualified(key))
        if wrong := validate.label_value(value):
            found.append(problems.invalid(f"{here}.value", value, ";".join(wrong)))
        if not effect:
            found.append(problems.required(f"{here}.effect"))
        elif effect not in EFFECTS:
            found.append(problems.not_supported(f"{here}.effect", effect, EFFECTS))
        if (key, effect) in seen:
            shown = {"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            problem = problems.duplicate(here, shown)
            found.append(Problem(here, problem.reason, problem.message + ": taints must be unique by key and effect pair"))
        seen.add((key, effect))


def gates(found: list[Problem], at: str, listed: Sequence[Obj]) -> None:
    """validateSchedulingGates."""
    seen: set[str] = set()
    for index, gate in enumerate(listed):
        name = gate.get("name", "")
        found += validate.each(f"{at}[{index}]", name, validate.qualified(name))
        if name in seen:
            found.append(problems.duplicate(f"{at}[{index}]", name))
        seen.add(name)
