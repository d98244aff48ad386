"""What a Service may look like (pkg/apis/core/validation: ValidateService, ValidateServiceUpdate, ValidateServiceStatusUpdate). Pure.

Addresses and ports have been handed out by then, so what is judged is what would be stored. Names of fields that upstream misspells are
misspelled here too. A service keeps what it had: addresses that were fine when written are not judged again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from edgekube.api import ipaddresses, problems, validate
from edgekube.api.kinds.service_addresses import check_addresses, check_addresses_update, is_headless
from edgekube.api.kinds.service_ports import check_duplicates, check_node_ports, check_ports
from edgekube.api.types import Obj
from edgekube.errors import Problem

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_AFFINITIES = ("ClientIP", "None")
_POLICIES = ("Cluster", "Local")
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
_LONGEST_AFFINITY = 86400
_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_MODE = "service.kubernetes.io/topology-mode"
_HINTS = "service.kubernetes.io/topology-aware-hints"
_ONLY_BALANCER = "may only be used when `type` is 'LoadBalancer'"

Spec = Mapping[str, Any]


def check(new: Obj, old: Obj | None) -> Iterator[Problem]:
    """Create and update."""
    spec = new.get("spec") or {}
    before: Spec = (old or {}).get("spec") or {}
    if old is not None:
        yield from check_addresses_update(spec, before)
        yield from _update(spec, before)
    yield from _annotations(new)
    yield from _type(spec)
    yield from check_ports(spec)
    yield from validate.labels("spec.selector", spec.get("selector"))
    yield from _affinity(spec)
    yield from check_addresses(spec, before)
    yield from _external_addresses(spec, before)
    if not spec.get("type"):
        yield problems.required("spec.type")
    elif spec["type"] not in _TYPES:
        yield problems.not_supported("spec.type", spec["type"], _TYPES)
    yield from check_node_ports(spec)
    yield from check_duplicates(spec)
    yield from _source_ranges(new, before)
    yield from _balancer(spec)
    yield from _external_policy(spec)
    yield from _traffic(spec)


def _annotations(service: Obj) -> Iterator[Problem]:
    found = service["metadata"].get("annotations") or {}
    if _MODE in found and _HINTS in found and found[_MODE] != found[_HINTS]:
        why = f"must match annotations[{_HINTS}] when both are specified"
        yield problems.invalid(f"metadata.annotations[{_MODE}]", found[_MODE], why)


def _type(spec: Spec) -> Iterator[Problem]:
    kind, headless = spec.get("type"), is_headless(spec)
    if not spec.get("ports") and not headless and kind != "ExternalName":
        yield problems.required("spec.ports")
    if kind in ("LoadBalancer", "NodePort") and headless:
        yield problems.invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    if kind != "ExternalName":
        return
    for name in ("clusterIPs", "ipFamilies"):
        if spec.get(name):
            yield problems.forbidden(f"spec.{name}", "may not be set for ExternalName services")
    if spec.get("ipFamilyPolicy") is not None:
        yield problems.forbidden("spec.ipFamilyPolicy", "may not be set for ExternalName services")
    target = str(spec.get("externalName") or "").removesuffix(".")
    if not target:
        yield problems.required("spec.externalName")
    else:
        yield from validate.each("spec.externalName", target, validate.subdomain(target))


def _affinity(spec: Spec) -> Iterator[Problem]:
    affinity = spec.get("sessionAffinity")
    config: Any = spec.get("sessionAffinityConfig")
    if not affinity:
        yield problems.required("spec.sessionAffinity")
    elif affinity not in _AFFINITIES:
        yield problems.not_supported("spec.sessionAffinity", affinity, _AFFINITIES)
    at = "spec.sessionAffinityConfig"
    if affinity == "None" and config is not None:
        yield problems.forbidden(at, "must not be set when session affinity is None")
    if affinity != "ClientIP":
        return
    for name in ("", "clientIP", "timeoutSeconds"):
        if name:
            at, config = f"{at}.{name}", config.get(name)
        if config is None:
            yield problems.required(at, "when session affinity type is ClientIP")
            return
    if not 0 < config <= _LONGEST_AFFINITY:
        yield problems.invalid(at, config, f"must be greater than 0 and less than {_LONGEST_AFFINITY}")


def _external_addresses(spec: Spec, before: Spec) -> Iterator[Problem]:
    kept: Collection[str] = before.get("externalIPs") or ()
    for index, text in enumerate(spec.get("externalIPs") or ()):
        at = f"spec.externalIPs[{index}]"
        messages = () if text in kept else ipaddresses.ip(text)
        if messages:
            yield from validate.each(at, text, messages)
        else:
            yield from ipaddresses.non_special_ip(at, text)


def _source_ranges(service: Obj, before: Spec) -> Iterator[Problem]:
    spec, annotations = service.get("spec") or {}, service["metadata"].get("annotations") or {}
    ranges: Sequence[str] = spec.get("loadBalancerSourceRanges") or ()
    if ranges:
        at = "spec.LoadBalancerSourceRanges"
        places = [(f"{at}[{index}]", text) for index, text in enumerate(ranges)]
    elif _RANGES in annotations:
        at = f"metadata.annotations[{_RANGES}]"
        places = [(at, text) for text in annotations[_RANGES].split(",")] if annotations[_RANGES].strip() else []
    else:
        return
    if spec.get("type") != "LoadBalancer":
        yield problems.forbidden(at, _ONLY_BALANCER)
    kept = {text.strip() for text in before.get("loadBalancerSourceRanges") or ()}
    for place, text in places:
        plain = text.strip()
        if plain not in kept:
            yield from validate.each(place, plain, ipaddresses.cidr(plain))


def _balancer(spec: Spec) -> Iterator[Problem]:
    balancer, allocate, which = spec.get("type") == "LoadBalancer", spec.get("allocateLoadBalancerNodePorts"), spec.get("loadBalancerClass")
    if allocate is not None and not balancer:
        yield problems.forbidden("spec.allocateLoadBalancerNodePorts", _ONLY_BALANCER)
    if allocate is None and balancer:
        yield problems.required("allocateLoadBalancerNodePorts")
    if which is not None and balancer:
        yield from validate.each("spec.loadBalancerClass", which, validate.qualified(which))
    elif which is not None:
        yield problems.forbidden("spec.loadBalancerClass", _ONLY_BALANCER)


def is_external(spec: Spec) -> bool:
    """ExternallyAccessible: reached from outside through a port of the node, a balancer or an address."""
    kind = spec.get("type")
    return kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def _has_health_port(spec: Spec) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _external_policy(spec: Spec) -> Iterator[Problem]:
    policy, port = spec.get("externalTrafficPolicy"), spec.get("healthCheckNodePort") or 0
    at = "spec.externalTrafficPolicy"
    if not is_external(spec):
        if policy:
            yield problems.invalid(at, policy, "may only be set for externally-accessible services")
    elif not policy:
        yield problems.required(at)
    elif policy not in _POLICIES:
        yield problems.not_supported(at, policy, _POLICIES)
    at = "spec.healthCheckNodePort"
    if not _has_health_port(spec):
        if port:
            yield problems.invalid(at, port, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")
    elif not port:
        yield problems.required(at)
    else:
        yield from validate.each(at, port, validate.port_number(port))


def _traffic(spec: Spec) -> Iterator[Problem]:
    inside, spread = spec.get("internalTrafficPolicy"), spec.get("trafficDistribution")
    if inside is None and spec.get("type") in ("NodePort", "LoadBalancer", "ClusterIP"):
        yield problems.required("spec.internalTrafficPolicy")
    if inside is not None and inside not in _POLICIES:
        yield problems.not_supported("spec.internalTrafficPolicy", inside, _POLICIES)
    if spread is not None and spread not in _DISTRIBUTIONS:
        yield problems.not_supported("spec.trafficDistribution", spread, _DISTRIBUTIONS)


def _update(spec: Spec, before: Spec) -> Iterator[Problem]:
    if spec.get("type") == before.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") != before.get("loadBalancerClass"):
        yield problems.invalid("spec.loadBalancerClass", spec.get("loadBalancerClass"), "may not change once set")
    if _has_health_port(spec) and _has_health_port(before) and spec.get("healthCheckNodePort") != before.get("healthCheckNodePort"):
        yield problems.forbidden("spec.healthCheckNodePort", validate.IMMUTABLE)


def check_status(new: Obj, old: Obj | None) -> Iterator[Problem]:
    """ValidateLoadBalancerStatus."""
    found = _ingress(new)
    kept = {entry.get("ip") for entry in _ingress(old or {})}
    if found and (new.get("spec") or {}).get("type") != "LoadBalancer":
        yield problems.forbidden("status.loadBalancer.ingress", "may only be used when `spec.type` is LoadBalancer")
        return
    for index, entry in enumerate(found):
        at = f"status.loadBalancer.ingress[{index}]"
        address, mode, host = entry.get("ip") or "", entry.get("ipMode"), entry.get("hostname") or ""
        if address and address not in kept:
            yield from validate.each(f"{at}.ip", address, ipaddresses.ip(address))
        if address and mode is None:
            yield problems.required(f"{at}.ipMode", "must be specified when `ip` is set")
        elif mode is not None and not address:
            yield problems.forbidden(f"{at}.ipMode", "may not be specified when `ip` is not set")
        elif mode is not None and mode not in ("Proxy", "VIP"):
            yield problems.not_supported(f"{at}.ipMode", mode, ("Proxy", "VIP"))
        if host:
            yield from validate.each(f"{at}.hostname", host, validate.subdomain(host))
            if not ipaddresses.ip(host):
                yield problems.invalid(f"{at}.hostname", host, "must be a DNS name, not an IP address")


def _ingress(service: Obj) -> Sequence[Spec]:
    found: Sequence[Spec] = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return found
