"""Validation of Deployments and ReplicaSets (pkg/apis/apps/validation/validation.go, their strategies in pkg/registry/apps). Pure."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from edgekube.api import problems, selectors, validate
from edgekube.api.kinds.pod_rules import validate_template
from edgekube.api.types import Obj
from edgekube.errors import Problem

_PERCENT = re.compile(r"[0-9]+%").fullmatch
_PERCENT_RULE = "a valid percent string must be a numeric string followed by an ending '%'"
_PERCENT_TEXT = f"{_PERCENT_RULE} (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
_OVER = "cannot be greater than status.replicas"
_DEPLOYMENT_COUNTS = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas", "terminatingReplicas")
_REPLICA_SET_COUNTS = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "terminatingReplicas")


def validate_deployment(obj: Obj, old: Obj | None) -> Iterable[Problem]:
    """A new Deployment or its update."""
    found: list[Problem] = []
    spec = obj.get("spec") or {}
    found += validate.nonnegative("spec.replicas", spec.get("replicas"))
    _selector_and_template(found, spec)
    _strategy(found, "spec.strategy", spec.get("strategy") or {})
    ready, deadline = spec.get("minReadySeconds", 0), spec.get("progressDeadlineSeconds")
    found += validate.nonnegative("spec.minReadySeconds", ready)
    found += validate.nonnegative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    found += validate.nonnegative("spec.progressDeadlineSeconds", deadline)
    if deadline is not None and deadline <= ready:
        found.append(problems.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    _same_selector(found, spec, old)
    return found


def validate_replica_set(obj: Obj, old: Obj | None) -> Iterable[Problem]:
    """A new ReplicaSet or its update."""
    found: list[Problem] = []
    spec = obj.get("spec") or {}
    found += validate.nonnegative("spec.replicas", spec.get("replicas"))
    found += validate.nonnegative("spec.minReadySeconds", spec.get("minReadySeconds"))
    _selector_and_template(found, spec)
    _same_selector(found, spec, old)
    return found


def _same_selector(found: list[Problem], spec: Obj, old: Obj | None) -> None:
    """Pods are found through it: another selector would leave them behind."""
    if old is not None:
        found += validate.immutable("spec.selector", spec.get("selector"), (old.get("spec") or {}).get("selector"))


def _selector_and_template(found: list[Problem], spec: Obj) -> None:
    selector = spec.get("selector")
    if selector is None:
        found.append(problems.required("spec.selector"))
    else:
        found += validate.label_selector("spec.selector", selector)
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            # upstream says "deployment" of ReplicaSets as well
            found.append(problems.invalid("spec.selector", selector, "empty selector is invalid for deployment"))
    try:
        chosen = selectors.from_label_selector(selector)
    except ValueError:
        found.append(problems.invalid("spec.selector", selector, "invalid label selector"))
        return
    _template(found, "spec.template", spec.get("template") or {}, chosen)


def _template(found: list[Problem], at: str, template: Obj, chosen: selectors.Selector) -> None:
    """ValidatePodTemplateSpecForReplicaSet. No selector at all chooses nothing, which matches no labels either."""
    labels = (template.get("metadata") or {}).get("labels")
    if not chosen.empty and not chosen.matches(labels or {}):
        found.append(problems.invalid(f"{at}.metadata.labels", labels, "`selector` does not match template `labels`"))
    validate_template(found, at, template)
    spec = template.get("spec") or {}
    policy = spec.get("restartPolicy", "")
    if policy != "Always":
        found.append(problems.not_supported(f"{at}.spec.restartPolicy", policy, ("Always",)))
    if spec.get("activeDeadlineSeconds") is not None:
        found.append(problems.forbidden(f"{at}.spec.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported"))


def _strategy(found: list[Problem], at: str, strategy: Obj) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            found.append(problems.forbidden(f"{at}.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'"))
    elif kind == "RollingUpdate":
        if rolling is None:
            found.append(problems.required(f"{at}.rollingUpdate", "this should be defaulted and never be nil"))
        else:
            _rolling(found, f"{at}.rollingUpdate", rolling)
    else:
        shown = {"Type": kind, "RollingUpdate": rolling and {name[0].upper() + name[1:]: value for name, value in rolling.items()}}
        found.append(problems.not_supported(at, shown, ("Recreate", "RollingUpdate")))


def _rolling(found: list[Problem], at: str, rolling: Obj) -> None:
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    found += int_or_percent(f"{at}.maxUnavailable", unavailable)
    found += int_or_percent(f"{at}.maxSurge", surge)
    if _amount(unavailable) == 0 and _amount(surge) == 0:
        found.append(problems.invalid(f"{at}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    if isinstance(unavailable, str) and _PERCENT(unavailable) and _amount(unavailable) > 100:
        found.append(problems.invalid(f"{at}.maxUnavailable", unavailable, "must not be greater than 100%"))


def int_or_percent(field: str, value: int | str) -> Sequence[Problem]:
    """ValidatePositiveIntOrPercent."""
    if isinstance(value, str):
        return () if _PERCENT(value) else (problems.invalid(field, value, _PERCENT_TEXT),)
    return tuple(validate.nonnegative(field, value))


def _amount(value: int | str) -> int:
    """The number, or the number of per cent; what is neither counts as 0."""
    if isinstance(value, str):
        return int(value[:-1]) if _PERCENT(value) else 0
    return value


def validate_deployment_status(obj: Obj, old: Obj | None) -> Iterable[Problem]:
    """What the controller wrote, and that it never reuses a name by counting collisions down."""
    found = list(_counts(obj.get("status") or {}, _DEPLOYMENT_COUNTS, ("updatedReplicas", "readyReplicas", "availableReplicas")))
    new, before = (obj.get("status") or {}).get("collisionCount"), ((old or {}).get("status") or {}).get("collisionCount")
    found += validate.nonnegative("status.collisionCount", new)
    if before is not None and (new is None or new < before):
        found.append(problems.invalid("status.collisionCount", new or 0, "cannot be decremented"))
    return found


def validate_replica_set_status(obj: Obj, _old: Obj | None) -> Iterable[Problem]:
    """What the controller wrote."""
    return _counts(obj.get("status") or {}, _REPLICA_SET_COUNTS, ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"))


def _counts(status: dict[str, Any], names: Sequence[str], parts: Sequence[str]) -> Iterable[Problem]:
    yield from validate.nonnegative("status.observedGeneration", status.get("observedGeneration"))
    for name in names:
        yield from validate.nonnegative(f"status.{name}", status.get(name))
    for name in parts:
        if status.get(name, 0) > status.get("replicas", 0):
            yield problems.invalid(f"status.{name}", status.get(name, 0), _OVER)
    if status.get("availableReplicas", 0) > status.get("readyReplicas", 0):
        yield problems.invalid("status.availableReplicas", status["availableReplicas"], "cannot be greater than readyReplicas")
