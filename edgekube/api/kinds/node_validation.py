"""What a Node may look like (pkg/apis/core/validation: ValidateNode, ValidateNodeUpdate). Pure.

Upstream judges updates of spec and of status by the same rules, and reports taints under `metadata`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from edgekube.api import ipaddresses, problems, quantity, validate
from edgekube.api.types import Obj
from edgekube.errors import Problem

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_WHOLE = frozenset((
    "pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims",
    "services.nodeports", "services.loadbalancers",
))  # fmt: skip
_ONCE = 'node updates may not change {} except from "" to valid'
_AT_RANGES = "spec.podCIDRs"


def check(new: Obj, old: Obj | None) -> Iterator[Problem]:
    spec, status = new.get("spec") or {}, new.get("status") or {}
    if old is None:
        yield from _taints(spec)
        yield from _resources(status)
        yield from _ranges(spec)
        return
    before = old.get("spec") or {}
    yield from _resources(status)
    yield from _addresses(status)
    ranges = before.get("podCIDRs") or []
    if ranges and ranges != (spec.get("podCIDRs") or []):
        yield problems.forbidden(_AT_RANGES, _ONCE.format("podCIDR"))
    if before.get("providerID") and before["providerID"] != spec.get("providerID"):
        yield problems.forbidden("spec.providerID", _ONCE.format("providerID"))
    yield from _taints(spec)
    if (spec.get("externalID") or "") != (before.get("externalID") or ""):
        yield problems.forbidden("spec.externalID", "may not be updated")


def _taints(spec: Mapping[str, Any]) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        at, key, value, effect = f"metadata.taints[{index}]", taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""
        yield from validate.each(f"{at}.key", key, validate.qualified(key))
        if messages := validate.label_value(value):
            yield problems.invalid(f"{at}.value", value, ";".join(messages))
        if not effect:
            yield problems.required(f"{at}.effect")
        elif effect not in _EFFECTS:
            yield problems.not_supported(f"{at}.effect", effect, _EFFECTS)
        if (key, effect) in seen:  # shown as upstream's internal type, which has names in Go's spelling
            shown = {"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            problem = problems.duplicate(at, shown)
            yield Problem(problem.field, problem.reason, f"{problem.message}: taints must be unique by key and effect pair")
        seen.add((key, effect))


def _resources(status: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("capacity", "allocatable"):
        for resource, amount in (status.get(name) or {}).items():
            at = f"status.{name}.{resource}"
            if quantity.parse(amount) < 0:
                yield problems.invalid(at, quantity.canonical(str(amount)), validate.NOT_NEGATIVE)
            if _is_whole(resource) and quantity.milli(amount) % 1000:
                yield problems.invalid(at, quantity.canonical(str(amount)), "must be an integer")


def _is_whole(resource: str) -> bool:
    """IsIntegerResourceName: counts, and extended resources."""
    extended = "/" in resource and "kubernetes.io/" not in resource and not resource.startswith("requests.")
    return resource in _WHOLE or (extended and not validate.qualified(f"requests.{resource}"))


def _addresses(status: Mapping[str, Any]) -> Iterator[Problem]:
    seen: set[tuple[Any, Any]] = set()
    for index, entry in enumerate(status.get("addresses") or ()):
        key = (entry.get("type") or "", entry.get("address") or "")
        if key in seen:
            yield problems.duplicate(f"status.addresses[{index}]", {"Type": key[0], "Address": key[1]})
        seen.add(key)


def _ranges(spec: Mapping[str, Any]) -> Iterator[Problem]:
    ranges = spec.get("podCIDRs") or []
    for index, text in enumerate(ranges):
        yield from validate.each(f"{_AT_RANGES}[{index}]", text, ipaddresses.cidr(text))
    if len(ranges) < 2:
        return
    if len(ranges) > 2 or len({ipaddresses.is_ipv6(text) for text in ranges}) < 2:
        yield problems.invalid(_AT_RANGES, ranges, "may specify no more than one CIDR for each IP family")
    for index, text in enumerate(ranges):
        if text in ranges[:index]:
            yield problems.duplicate(f"{_AT_RANGES}[{index}]", text)
