"""ipFamilyPolicy and ipFamilies of a Service, filled in and judged before addresses are handed out: pure.

Source of the rules: k8s.io/kubernetes/pkg/registry/core/service/storage/alloc.go (initIPFamilyFields). A Service never changes between one
family and two without being told so; one that prefers two keeps what it has when the cluster changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgekube.api import problems
from edgekube.api.ipaddresses import is_ipv6
from edgekube.api.types import Obj
from edgekube.errors import Problem

SINGLE, PREFER, REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
_AT_POLICY = "spec.ipFamilyPolicy"
_SECOND = {"IPv4": "IPv6", "IPv6": "IPv4"}

Spec = Mapping[str, Any]


def init_families(spec: Obj, before: Spec | None, configured: Sequence[str]) -> list[Problem]:
    """`configured`: the cluster's families, its own first. `before`: the stored spec of an update. Addresses must be well-formed."""
    if spec.get("type") == "ExternalName":
        return []
    if before is not None and _keeps_preference(spec, before):
        return []
    if not spec.get("ipFamilyPolicy"):
        unbound = spec.get("clusterIP") == "None" and not spec.get("selector")
        spec["ipFamilyPolicy"] = (before or {}).get("ipFamilyPolicy") or (REQUIRE if unbound else SINGLE)
    if before is not None:
        _release_second(spec, before)
    found = [*_reduced(spec, before or {}), *_too_many(spec), *_infer(spec, configured)]
    if found:
        return found
    headless = spec.get("clusterIP") == "None"
    if not (headless and not spec.get("selector")):
        found = _not_configured(spec, configured)
        if found:
            return found
    families = list(spec.get("ipFamilies") or configured[:1])
    if len(families) == 1 and spec["ipFamilyPolicy"] != SINGLE and (len(configured) == 2 or (headless and not spec.get("selector"))):
        families.append(_SECOND.get(families[0], families[0]))
    spec["ipFamilies"] = families
    return []


def _keeps_preference(spec: Spec, before: Spec) -> bool:
    """An update that leaves everything as it was, of a Service that only prefers two."""
    if before.get("type") == "ExternalName" or not spec.get("ipFamilies"):
        return False
    same = all((spec.get(name) or []) == (before.get(name) or []) for name in ("clusterIPs", "ipFamilies"))
    return same and spec.get("ipFamilyPolicy") == before.get("ipFamilyPolicy") == PREFER


def _release_second(spec: Obj, before: Spec) -> None:
    """SingleStack alone says clearly that the second family may go."""
    if spec["ipFamilyPolicy"] == SINGLE:
        for name in ("clusterIPs", "ipFamilies"):
            values = spec.get(name) or []
            if len(values) > 1 and values == (before.get(name) or []):
                spec[name] = values[:1]


def _reduced(spec: Spec, before: Spec) -> list[Problem]:
    policy, found = spec["ipFamilyPolicy"], []
    if policy == SINGLE or before.get("type") == "ExternalName":
        return []
    for name, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        new, old = spec.get(name) or [], before.get(name) or []
        if len(new) == 1 and len(old) == 2 and new[0] == old[0]:
            found.append(problems.invalid(_AT_POLICY, policy, f"must be 'SingleStack' to release the secondary {what}"))
    return found


def _too_many(spec: Spec) -> list[Problem]:
    found = []
    if spec["ipFamilyPolicy"] == SINGLE:
        for name, what in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")):
            if len(spec.get(name) or ()) == 2:
                why = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                found.append(problems.invalid(_AT_POLICY, SINGLE, why))
    return found


def _infer(spec: Obj, configured: Sequence[str]) -> list[Problem]:
    """Families that the given addresses tell."""
    found, families = [], list(spec.get("ipFamilies") or ())
    addresses = spec.get("clusterIPs") or []
    for index, address in enumerate(addresses):
        if address == "None":
            break
        family = "IPv6" if is_ipv6(address) else "IPv4"
        if index >= len(families):
            if family in configured:
                families.append(family)
            else:
                found.append(problems.invalid(f"spec.clusterIPs[{index}]", addresses, f"{family} is not configured on this cluster"))
    if families:
        spec["ipFamilies"] = families
    return found


def _not_configured(spec: Spec, configured: Sequence[str]) -> list[Problem]:
    found = []
    if spec["ipFamilyPolicy"] == REQUIRE and len(configured) < 2:
        found.append(problems.invalid(_AT_POLICY, REQUIRE, "this cluster is not configured for dual-stack services"))
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in configured:
            found.append(problems.invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster"))
    return found
