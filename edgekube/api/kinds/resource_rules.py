"""Validation of requests, limits and resource names (pkg/apis/core/validation/validation.go, pkg/apis/core/helper/helpers.go)."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence

from edgekube.api import problems, quantity, validate
from edgekube.api.types import Obj
from edgekube.errors import Problem

_COMPUTE = ("cpu", "memory")
_CONTAINER = frozenset(("cpu", "memory", "ephemeral-storage"))
_INTEGER = frozenset((
    "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps", "persistentvolumeclaims",
    "services.nodeports", "services.loadbalancers",
))  # fmt: skip
_STANDARD = _CONTAINER | _INTEGER | frozenset((
    "requests.cpu", "requests.memory", "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
    "requests.storage", "storage",
))  # fmt: skip
NOT_INTEGER = "must be an integer"
_Amounts = tuple[tuple[str, str], ...]
_NameCheck = Callable[[str], Sequence[str]]


def is_huge(name: str) -> bool:
    return name.startswith("hugepages-")


def is_native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """IsExtendedResourceName."""
    return not is_native(name) and not name.startswith("requests.") and not validate.qualified(f"requests.{name}")


def overcommits(name: str) -> bool:
    """IsOvercommitAllowed."""
    return is_native(name) and not is_huge(name)


@functools.lru_cache(maxsize=512)
def resource_name(name: str) -> Sequence[str]:
    """validateResourceName."""
    if wrong := validate.qualified(name):
        return wrong
    if "/" not in name and name not in _STANDARD and not name.startswith(("hugepages-", "requests.hugepages-")):
        return ("must be a standard resource type or fully qualified",)
    return ()


@functools.lru_cache(maxsize=512)
def container_resource_name(name: str) -> Sequence[str]:
    """validateContainerResourceName."""
    if name in _CONTAINER:
        return ()
    wrong = list(resource_name(name))
    if "/" not in name:
        if not is_huge(name):
            wrong.append("must be a standard resource for containers")
    elif not is_native(name) and not is_extended(name):
        wrong.append("doesn't follow extended resource name standard")
    return wrong


@functools.lru_cache(maxsize=512)
def pod_resource_name(name: str) -> Sequence[str]:
    """validatePodResourceName: what may be asked for at pod level."""
    if name in _COMPUTE:
        return ()
    wrong = list(resource_name(name))
    if "/" not in name and not is_huge(name):
        wrong.append("must be a standard resource for pods")
    return wrong


@functools.lru_cache(maxsize=4096)
def amount(name: str, text: str) -> Sequence[str]:
    """ValidateResourceQuantityValue."""
    value = quantity.parse(text)
    wrong = [validate.NOT_NEGATIVE] if value < 0 else []
    if (name in _INTEGER or is_extended(name)) and quantity.milli(text) % 1000:
        wrong.append(NOT_INTEGER)
    return wrong


def requirements(
    found: list[Problem],
    at: str,
    resources: Obj,
    claims: Collection[str],
    check_name: _NameCheck = container_resource_name,
) -> None:
    """ValidateContainerResourceRequirements."""
    limits: Mapping[str, str] = resources.get("limits") or {}
    requests: Mapping[str, str] = resources.get("requests") or {}
    if not _fine(tuple(limits.items()), tuple(requests.items()), check_name):
        _amounts(found, at, limits, requests, check_name)
    if resources.get("claims"):
        _claims(found, f"{at}.claims", resources["claims"], claims)


@functools.lru_cache(maxsize=1024)
def _fine(limits: _Amounts, requests: _Amounts, check_name: _NameCheck) -> bool:
    """Remembered: the pods of a workload all ask for the same."""
    found: list[Problem] = []
    _amounts(found, "", dict(limits), dict(requests), check_name)
    return not found


def _amounts(found: list[Problem], at: str, limits: Mapping[str, str], requests: Mapping[str, str], check_name: _NameCheck) -> None:
    huge = compute = False
    for name, text in limits.items():
        _one(found, at, "limits", name, text, check_name)
        huge, compute = huge or is_huge(name), compute or name in _COMPUTE
    for name, text in requests.items():
        _one(found, at, "requests", name, text, check_name)
        huge, compute = huge or is_huge(name), compute or name in _COMPUTE
        _against_limit(found, at, name, text, limits.get(name))
    if huge and not compute:
        found.append(problems.forbidden(at, "HugePages require cpu or memory"))


def _one(found: list[Problem], at: str, which: str, name: str, text: str, check_name: _NameCheck) -> None:
    if wrong := check_name(name):
        found += validate.each(f"{at}.{which}[{name}]", name, wrong)
    if wrong := amount(name, text):
        found += validate.each(f"{at}.{which}[{name}]", text, wrong)
    if is_huge(name):
        try:
            page = quantity.parse(name.removeprefix("hugepages-"))
        except ValueError:
            return
        if page <= 0 or quantity.parse(text) % page:
            why = f"{text} is not positive integer multiple of {name}"
            found.append(problems.invalid(f"{at}.{which}[{name}]", text, why))


def _against_limit(found: list[Problem], at: str, name: str, text: str, limit: str | None) -> None:
    if limit is None:
        if not overcommits(name):
            found.append(problems.required(f"{at}.limits", "Limit must be set for non overcommitable resources"))
        return
    if text == limit:
        return
    order = _compared(text, limit)
    if order and not overcommits(name):
        found.append(problems.invalid(f"{at}.requests", text, f"must be equal to {name} limit of {limit}"))
    elif order > 0:
        found.append(problems.invalid(f"{at}.requests", text, f"must be less than or equal to {name} limit of {limit}"))


@functools.lru_cache(maxsize=1024)
def _compared(text: str, other: str) -> int:
    """Quantity.Cmp."""
    left, right = quantity.parse(text), quantity.parse(other)
    return (left > right) - (left < right)


def _claims(found: list[Problem], at: str, listed: Sequence[Obj], known: Collection[str]) -> None:
    seen: set[tuple[str, str]] = set()
    for index, claim in enumerate(listed):
        name = claim.get("name", "")
        if not name:
            found.append(problems.required(f"{at}[{index}]"))
            continue
        if (name, claim.get("request", "")) in seen:
            found.append(problems.duplicate(f"{at}[{index}]", name))
        seen.add((name, claim.get("request", "")))
        if name not in known:
            why = ": must be one of the names in pod.spec.resourceClaims"
            why += ": " + ", ".join(sorted(known)) if known else " which is empty"
            problem = problems.not_found(f"{at}[{index}]", name)
            found.append(Problem(problem.field, problem.reason, problem.message + why))
