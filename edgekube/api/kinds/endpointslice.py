"""EndpointSlice (pkg/apis/discovery/v1/defaults.go, validation/validation.go; pkg/registry/discovery/endpointslice/strategy.go)."""

from collections.abc import Callable, Collection, Iterator, Sequence

from edgekube.api import ipaddresses, problems
from edgekube.api import validate as rules
from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import printing
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.kinds.service_ports import protocol
from edgekube.api.types import Obj
from edgekube.errors import Problem

_TYPES = ("FQDN", "IPv4", "IPv6")
_MOST_ENDPOINTS, _MOST_ADDRESSES, _MOST_PORTS, _MOST_LABELS, _MOST_HINTS = 1000, 100, 20000, 16, 8


def default(obj: Obj) -> None:
    for port in obj.get("ports") or ():
        if port.get("name") is None:
            port["name"] = ""
        if port.get("protocol") is None:
            port["protocol"] = "TCP"


def validate(new: Obj, old: Obj | None) -> Iterator[Problem]:
    kind = new.get("addressType") or ""
    if not kind:
        yield problems.required("addressType")
    elif kind not in _TYPES:
        yield problems.not_supported("addressType", kind, _TYPES)
    endpoints = new.get("endpoints") or ()
    kept = {address for entry in (old or {}).get("endpoints") or () for address in entry.get("addresses") or ()}
    if len(endpoints) > _MOST_ENDPOINTS:
        yield problems.too_many("endpoints", len(endpoints), _MOST_ENDPOINTS)
    else:
        for index, endpoint in enumerate(endpoints):
            yield from _endpoint_problems(f"endpoints[{index}]", endpoint, kind, kept)
    yield from _port_problems(new.get("ports") or ())
    if old is not None:
        yield from rules.immutable("addressType", kind, old.get("addressType") or "")


def _endpoint_problems(at: str, endpoint: Obj, kind: str, kept: Collection[str]) -> Iterator[Problem]:
    addresses = endpoint.get("addresses") or ()
    if not addresses:
        yield problems.required(f"{at}.addresses", "must contain at least 1 address")
    elif len(addresses) > _MOST_ADDRESSES:
        yield problems.too_many(f"{at}.addresses", len(addresses), _MOST_ADDRESSES)
    for index, address in enumerate(addresses):
        yield from _address_problems(f"{at}.addresses[{index}]", address, kind, kept)
    node, host, topology = endpoint.get("nodeName"), endpoint.get("hostname"), endpoint.get("deprecatedTopology") or {}
    if node is not None:
        yield from rules.each(f"{at}.nodeName", node, rules.subdomain(node))
    if len(topology) > _MOST_LABELS:
        yield problems.too_many(f"{at}.deprecatedTopology", len(topology), _MOST_LABELS)
    yield from rules.labels(f"{at}.deprecatedTopology", topology)
    if host is not None:
        yield from rules.each(f"{at}.hostname", host, rules.label(host))
    hints = endpoint.get("hints") or {}
    yield from _hint_problems(f"{at}.hints.forZones", hints.get("forZones") or (), rules.label_value)
    yield from _hint_problems(f"{at}.hints.forNodes", hints.get("forNodes") or (), rules.subdomain)


def _address_problems(at: str, address: str, kind: str, kept: Collection[str]) -> Iterator[Problem]:
    if kind == "FQDN":
        if not address:
            yield problems.required(at)
        else:
            yield from rules.each(at, address, rules.domain(address))
    if kind not in ("IPv4", "IPv6"):
        return
    messages = () if address in kept else ipaddresses.ip(address)
    if messages:
        yield from rules.each(at, address, messages)
        return
    if ipaddresses.is_ipv6(address) != (kind == "IPv6"):
        yield problems.invalid(at, address, f"must be an {kind} address")
    yield from ipaddresses.non_special_ip(at, address)


def _hint_problems(at: str, hints: Sequence[Obj], rule: Callable[[str], Sequence[str]]) -> Iterator[Problem]:
    if len(hints) > _MOST_HINTS:
        yield problems.too_many(at, len(hints), _MOST_HINTS)
        return
    seen: set[str] = set()
    for index, hint in enumerate(hints):
        name = hint.get("name") or ""
        if name in seen:
            yield problems.duplicate(f"{at}[{index}].name", name)
        seen.add(name)
        yield from rules.each(f"{at}[{index}].name", name, rule(name))


def _port_problems(ports: Sequence[Obj]) -> Iterator[Problem]:
    if len(ports) > _MOST_PORTS:
        yield problems.too_many("ports", len(ports), _MOST_PORTS)
        return
    seen: set[str] = set()
    for index, port in enumerate(ports):
        at, name, application = f"ports[{index}]", port.get("name") or "", port.get("appProtocol")
        if name:
            yield from rules.each(f"{at}.name", name, rules.label(name))
        if name in seen:
            yield problems.duplicate(f"{at}.name", name)
        seen.add(name)
        yield from protocol(f"{at}.protocol", port.get("protocol"))
        if application is not None:
            yield from rules.each(f"{at}.appProtocol", application, rules.qualified(application))


def _ports(obj: Obj, _now: float) -> str:
    """A port without a number stands for all; it is shown by its name if it has one."""
    found = [str(port["port"]) if port.get("port") is not None else port.get("name", "*") for port in obj.get("ports") or ()]
    return printing.more(found, 3) if any(found) else "<unset>"


def _endpoints(obj: Obj, _now: float) -> str:
    found = [address for entry in obj.get("endpoints") or () for address in entry.get("addresses") or ()]
    return printing.more(found, 3) if found else "<unset>"


ENDPOINT_SLICE = Kind(
    group="discovery.k8s.io",
    version="v1",
    kind="EndpointSlice",
    plural="endpointslices",
    singular="endpointslice",
    schema="io.k8s.api.discovery.v1.EndpointSlice",
    has_generation=True,
    default=default,
    validate=validate,
    columns=(
        NAME,
        Column("AddressType", lambda o, _: o.get("addressType", ""), description="Kind of the addresses."),
        Column("Ports", _ports, description="Ports of the endpoints."),
        Column("Endpoints", _endpoints, description="Addresses of the endpoints."),
        AGE,
    ),
)
