"""A Service's cluster addresses and address families: what they may be, and what of them may change (core/validation). Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekube.api import ipaddresses, problems, validate
from edgekube.errors import Problem

_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_KEPT = "may not change once set"
_AT, _AT_FAMILIES, _AT_POLICY = "spec.clusterIPs", "spec.ipFamilies", "spec.ipFamilyPolicy"

Spec = Mapping[str, Any]


def is_headless(spec: Spec) -> bool:
    return list(spec.get("clusterIPs") or ()) == ["None"]


def check_addresses(spec: Spec, before: Spec) -> Iterator[Problem]:
    """ValidateServiceClusterIPsRelatedFields. `before` is the stored spec, empty for a new service."""
    if spec.get("type") == "ExternalName":
        return
    addresses: Sequence[str] = spec.get("clusterIPs") or []
    families: Sequence[str] = spec.get("ipFamilies") or ()
    yield from _in_step(spec.get("clusterIP") or "", addresses)
    for index, family in enumerate(families):
        if family not in _FAMILIES:
            yield problems.not_supported(f"{_AT_FAMILIES}[{index}]", family, _FAMILIES)
        if family in families[:index]:
            yield problems.duplicate(f"{_AT_FAMILIES}[{index}]", family)
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _FAMILY_POLICIES:
        yield problems.not_supported(_AT_POLICY, policy, _FAMILY_POLICIES)
    wrong = list(_formats(addresses, before.get("clusterIPs") or ()))
    yield from wrong
    if len(addresses) > 2:
        yield problems.invalid(_AT, addresses, "may only hold up to 2 values")
    if wrong:
        return  # what follows would be said about something that is no address
    if len(addresses) > 1 and len({ipaddresses.is_ipv6(address) for address in addresses}) < 2:
        yield problems.invalid(_AT, addresses, "may specify no more than one IP for each IP family")
    if is_headless(spec):
        return
    for index, (address, family) in enumerate(zip(addresses, families, strict=False)):
        if family in _FAMILIES and (family == "IPv6") != ipaddresses.is_ipv6(address):
            yield problems.invalid(f"{_AT}[{index}]", address, f"expected an {family} value as indicated by `ipFamilies[{index}]`")


def _in_step(first: str, addresses: Sequence[str]) -> Iterator[Problem]:
    if first and not addresses:
        yield problems.required(_AT)
    elif first and addresses[0] != first:
        yield problems.invalid(_AT, addresses, "first value must match `clusterIP`")
    elif not first and addresses:
        yield problems.invalid(_AT, addresses, "must be empty when `clusterIP` is not specified")


def _formats(addresses: Sequence[str], kept: Sequence[str]) -> Iterator[Problem]:
    for index, address in enumerate(addresses):
        if index == 0 and address == "None":
            if len(addresses) > 1:
                yield problems.invalid(_AT, addresses, "'None' must be the first and only value")
        elif address not in kept:
            yield from validate.each(f"{_AT}[{index}]", address, ipaddresses.ip(address))


def check_addresses_update(spec: Spec, before: Spec) -> Iterator[Problem]:
    """What was given first stays; a second family may come and go."""
    if "ExternalName" in (spec.get("type"), before.get("type")):
        return
    new, old = is_headless(spec), is_headless(before)
    if not (new and old):
        yield from _addresses_update(spec, before)
    if not new and not old:
        yield from _families_update(spec, before)


def _addresses_update(spec: Spec, before: Spec) -> Iterator[Problem]:
    new, old = spec.get("clusterIPs") or [], before.get("clusterIPs") or []
    shown = new or None
    if len(new) == len(old):
        for index, address in enumerate(old):
            if address != new[index]:
                yield problems.invalid(f"{_AT}[{index}]", shown, _KEPT)
        return
    if len(new) < len(old) and not new:
        yield problems.invalid(f"{_AT}[0]", shown, "primary clusterIP can not be unset")
    if new and old and new[0] != old[0]:
        yield problems.invalid(f"{_AT}[0]", shown, _KEPT)
    if len(new) == 1 and len(old) > 1 and spec.get("ipFamilyPolicy") != "SingleStack":
        yield problems.invalid(
            _AT_POLICY, spec.get("ipFamilyPolicy"), "must be set to 'SingleStack' when releasing the secondary clusterIP"
        )


def _families_update(spec: Spec, before: Spec) -> Iterator[Problem]:
    new, old = spec.get("ipFamilies") or [], before.get("ipFamilies") or []
    if len(new) == len(old):
        for index, family in enumerate(old):
            if family != new[index]:
                yield problems.invalid(f"{_AT_FAMILIES}[0]", new, _KEPT)
        return
    if len(new) < len(old) and not spec.get("clusterIPs"):
        yield problems.invalid(f"{_AT_FAMILIES}[0]", new or None, "primary ipFamily can not be unset")
    if new and old and new[0] != old[0]:
        yield problems.invalid(f"{_AT_FAMILIES}[0]", spec.get("clusterIPs"), _KEPT)  # upstream shows the addresses here
    if len(new) == 1 and len(old) > 1 and spec.get("ipFamilyPolicy") != "SingleStack":
        yield problems.invalid(_AT_POLICY, spec.get("ipFamilyPolicy"), "must be set to 'SingleStack' when releasing the secondary ipFamily")
