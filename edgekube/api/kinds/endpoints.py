"""Endpoints, the older view of what EndpointSlices say (pkg/apis/core/v1/defaults.go, pkg/apis/core/validation ValidateEndpoints)."""

from collections.abc import Collection, Iterator

from edgekube.api import ipaddresses, problems
from edgekube.api import validate as rules
from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import printing
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.kinds.service_ports import protocol
from edgekube.api.types import Obj
from edgekube.errors import Problem

_ADDRESSES = ("addresses", "notReadyAddresses")


def default(obj: Obj) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def validate(new: Obj, old: Obj | None) -> Iterator[Problem]:
    """Addresses that the stored object has already are not judged by the stricter rules of today."""
    before = (old or {}).get("subsets") or ()
    kept = {entry["ip"] for subset in before for name in _ADDRESSES for entry in subset.get(name) or () if entry.get("ip")}
    for index, subset in enumerate(new.get("subsets") or ()):
        at = f"subsets[{index}]"
        if not any(subset.get(name) for name in _ADDRESSES):
            yield problems.required(at, "must specify `addresses` or `notReadyAddresses`")
        for name in _ADDRESSES:
            for number, entry in enumerate(subset.get(name) or ()):
                yield from _address_problems(f"{at}.{name}[{number}]", entry, kept)
        ports = subset.get("ports") or ()
        for number, port in enumerate(ports):
            yield from _port_problems(f"{at}.ports[{number}]", port, named=len(ports) > 1)


def _address_problems(at: str, entry: Obj, kept: Collection[str]) -> Iterator[Problem]:
    address, host, node = entry.get("ip") or "", entry.get("hostname"), entry.get("nodeName")
    if address not in kept:
        yield from rules.each(f"{at}.ip", address, ipaddresses.ip(address))
    if host:
        yield from rules.each(f"{at}.hostname", host, rules.label(host))
    if node is not None:
        yield from rules.each(f"{at}.nodeName", node, rules.subdomain(node))
    yield from ipaddresses.non_special_ip(f"{at}.ip", address)


def _port_problems(at: str, port: Obj, *, named: bool) -> Iterator[Problem]:
    name, number, application = port.get("name") or "", port.get("port") or 0, port.get("appProtocol")
    if name:
        yield from rules.each(f"{at}.name", name, rules.label(name))
    elif named:
        yield problems.required(f"{at}.name")
    yield from rules.each(f"{at}.port", number, rules.port_number(number))
    yield from protocol(f"{at}.protocol", port.get("protocol"))
    if application is not None:
        yield from rules.each(f"{at}.appProtocol", application, rules.qualified(application))


def _shown(obj: Obj, _now: float) -> str:
    texts: list[str] = []
    for subset in obj.get("subsets") or ():
        ports: list[Obj] = subset.get("ports") or [{}]
        for port in ports:
            suffix = f":{port['port']}" if port.get("port") else ""
            texts += [f"{_address(entry['ip'], suffix)}" for entry in subset.get("addresses") or ()]
    return printing.more(texts, 3)


def _address(ip: str, suffix: str) -> str:
    return f"[{ip}]{suffix}" if ":" in ip and suffix else f"{ip}{suffix}"


ENDPOINTS = Kind(
    group="",
    version="v1",
    kind="Endpoints",
    plural="endpoints",
    singular="endpoints",
    short=("ep",),
    schema="io.k8s.api.core.v1.Endpoints",
    deprecated="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    default=default,
    validate=validate,
    columns=(NAME, Column("Endpoints", _shown, description="Addresses and ports that are ready."), AGE),
)
