"""NetworkPolicy (pkg/apis/networking/v1/defaults.go, validation/validation.go; pkg/registry/networking/networkpolicy/strategy.go)."""

import ipaddress
from collections.abc import Collection, Iterator

from edgekube.api import ipaddresses, problems
from edgekube.api import validate as rules
from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import printing
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.types import Obj
from edgekube.errors import Problem

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_TYPES = ("Ingress", "Egress")
_DIRECTIONS = (("ingress", "from"), ("egress", "to"))
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def default(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    for direction, _ in _DIRECTIONS:
        for rule in spec.get(direction) or ():
            for port in rule.get("ports") or ():
                if port.get("protocol") is None:
                    port["protocol"] = "TCP"
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def validate(new: Obj, old: Obj | None) -> Iterator[Problem]:
    spec = new.get("spec") or {}
    kept = frozenset(_ranges(old)) if old is not None else frozenset[str]()
    yield from rules.label_selector("spec.podSelector", spec.get("podSelector"))
    for direction, side in _DIRECTIONS:
        for index, rule in enumerate(spec.get(direction) or ()):
            at = f"spec.{direction}[{index}]"
            for number, port in enumerate(rule.get("ports") or ()):
                yield from _port_problems(f"{at}.ports[{number}]", port)
            for number, peer in enumerate(rule.get(side) or ()):
                yield from _peer_problems(f"{at}.{side}[{number}]", peer, kept)
    types = spec.get("policyTypes") or ()
    if len(types) > len(_TYPES):
        yield problems.invalid("spec.policyTypes", types, "may not specify more than two policyTypes")
        return
    for index, name in enumerate(types):
        if name not in _TYPES:
            yield problems.not_supported(f"spec.policyTypes[{index}]", name, _TYPES)


def _ranges(policy: Obj) -> Iterator[str]:
    """Every range the policy names: one that is there already stays allowed, even if today's rules would refuse it."""
    for direction, side in _DIRECTIONS:
        for rule in (policy.get("spec") or {}).get(direction) or ():
            for peer in rule.get(side) or ():
                block = peer.get("ipBlock") or {}
                yield block.get("cidr") or ""
                yield from block.get("except") or ()


def _port_problems(at: str, port: Obj) -> Iterator[Problem]:
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None and protocol not in _PROTOCOLS:
        yield problems.not_supported(f"{at}.protocol", protocol, _PROTOCOLS)
    if number is None:
        if end is not None:
            yield problems.invalid(f"{at}.endPort", end, "may not be specified when `port` is not specified")
    elif isinstance(number, int):
        yield from rules.each(f"{at}.port", number, rules.port_number(number))
        if end is not None:
            if end < number:
                yield problems.invalid(f"{at}.endPort", end, "must be greater than or equal to `port`")
            yield from rules.each(f"{at}.endPort", end, rules.port_number(end))
    else:
        if end is not None:
            yield problems.invalid(f"{at}.endPort", end, "may not be specified when `port` is non-numeric")
        yield from rules.each(f"{at}.port", number, rules.port_name(number))


def _peer_problems(at: str, peer: Obj, kept: Collection[str]) -> Iterator[Problem]:
    selectors = [name for name in ("podSelector", "namespaceSelector") if peer.get(name) is not None]
    for name in selectors:
        yield from rules.label_selector(f"{at}.{name}", peer[name])
    block = peer.get("ipBlock")
    if block is not None:
        yield from _block_problems(f"{at}.ipBlock", block, kept)
    if block is None and not selectors:
        yield problems.required(at, "must specify a peer")
    elif block is not None and selectors:
        yield problems.forbidden(at, "may not specify both ipBlock and another peer")


def _block_problems(at: str, block: Obj, kept: Collection[str]) -> Iterator[Problem]:
    cidr = block.get("cidr") or ""
    if not cidr:
        yield problems.required(f"{at}.cidr")
        return
    if cidr not in kept:
        yield from rules.each(f"{at}.cidr", cidr, ipaddresses.cidr(cidr))
    outer = _network(cidr)
    if outer is None:
        return
    for index, text in enumerate(block.get("except") or ()):
        where = f"{at}.except[{index}]"
        if text not in kept:
            yield from rules.each(where, text, ipaddresses.cidr(text))
        inner = _network(text)
        if inner is not None and not (inner.network_address in outer and outer.prefixlen < inner.prefixlen):
            yield problems.invalid(where, text, "must be a strict subset of `cidr`")


def _network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


NETWORK_POLICY = Kind(
    group="networking.k8s.io",
    version="v1",
    kind="NetworkPolicy",
    plural="networkpolicies",
    singular="networkpolicy",
    short=("netpol",),
    schema="io.k8s.api.networking.v1.NetworkPolicy",
    has_generation=True,
    default=default,
    validate=validate,
    columns=(
        NAME,
        Column(
            "Pod-Selector",
            lambda o, _: printing.selector((o.get("spec") or {}).get("podSelector")),
            description="Selects the pods to which this NetworkPolicy object applies.",
        ),
        AGE,
    ),
)
