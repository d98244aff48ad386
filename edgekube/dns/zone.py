"""Names of the cluster to answers: pure. Source: the Kubernetes DNS specification (github.com/kubernetes/dns) and CoreDNS's plugin.

SVC.NS.svc.DOMAIN                 A: cluster IP, or the ready endpoints of a headless Service; CNAME for ExternalName; SRV: all ports
_PORT._PROTO.SVC.NS.svc.DOMAIN    SRV
HOST.SVC.NS.svc.DOMAIN            A: one endpoint by its host name, or by its address with dashes
10-42-0-7.NS.pod.DOMAIN           A: the address itself
dns-version.DOMAIN                TXT
7.0.42.10.in-addr.arpa, .ip6.arpa PTR: the Service, or the endpoint's name in a headless Service
"""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edgekube.api.types import Obj

TTL = 5
VERSION = "1.1.0"
Status = Literal["NOERROR", "NXDOMAIN", "ELSEWHERE"]


@dataclass(frozen=True, slots=True)
class Record:
    """`data`: an address, a name, a text, or for SRV (port, target)."""

    name: str
    type: str
    data: str | tuple[int, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """ELSEWHERE: not ours, ask upstream. `follow` is a name outside whose addresses complete a CNAME."""

    status: Status
    records: Sequence[Record] = ()
    extra: Sequence[Record] = ()
    follow: str = ""


class Directory(Protocol):
    """What the zone looks up; implemented over the node's cache."""

    def service(self, namespace: str, name: str) -> Obj | None: ...

    def slices(self, namespace: str, name: str) -> Sequence[Obj]: ...

    def services_at(self, address: str) -> Sequence[Obj]: ...

    def slices_at(self, address: str) -> Sequence[Obj]: ...

    def has_namespace(self, namespace: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Endpoint:
    address: str
    host: str
    ports: Sequence[tuple[str, str, int]] = field(default=())  # name, protocol, number


_NOTHING = Answer("NOERROR")
_NO_SUCH_NAME = Answer("NXDOMAIN")
_ELSEWHERE = Answer("ELSEWHERE")


def answer(name: str, qtype: str, domain: str, directory: Directory) -> Answer:
    """`name` without the final dot, any case; the answer's names are as asked."""
    lower = name.lower()
    if lower.endswith((".in-addr.arpa", ".ip6.arpa")):
        return _reverse(name, lower, qtype, domain, directory)
    if lower == domain:
        return _NOTHING
    if not lower.endswith("." + domain):
        return _ELSEWHERE
    labels = lower.removesuffix("." + domain).split(".")
    if labels == ["dns-version"]:
        return Answer("NOERROR", (Record(name, "TXT", VERSION),)) if qtype in ("TXT", "ANY") else _NOTHING
    if labels[-1] == "svc":
        return _service_zone(name, labels[:-1], qtype, domain, directory)
    if labels[-1] == "pod":
        return _pod_zone(name, labels[:-1], qtype, directory)
    return _NO_SUCH_NAME


def _service_zone(name: str, labels: list[str], qtype: str, domain: str, directory: Directory) -> Answer:
    if len(labels) < 2:  # svc.DOMAIN or NS.svc.DOMAIN: an empty non-terminal
        return _NOTHING if not labels or directory.has_namespace(labels[0]) else _NO_SUCH_NAME
    namespace, service_name, below = labels[-1], labels[-2], labels[:-2]
    service = directory.service(namespace, service_name)
    if service is None:
        return _NO_SUCH_NAME
    spec = service.get("spec", {})
    if spec.get("type") == "ExternalName":
        return _external(name, spec.get("externalName", ""), qtype) if not below else _NO_SUCH_NAME
    full = f"{service_name}.{namespace}.svc.{domain}"
    headless = spec.get("clusterIP") in ("None", "")
    endpoints = list(_endpoints(directory.slices(namespace, service_name)))
    if not below:
        return _whole_service(name, full, spec, endpoints, headless, qtype)
    if len(below) == 2 and below[0].startswith("_") and below[1].startswith("_"):
        return _ports(name, full, spec, endpoints, headless, (below[0][1:], below[1][1:]), qtype)
    if len(below) == 1:
        found = [endpoint for endpoint in endpoints if endpoint.host.lower() == below[0]]
        return _addresses(name, [endpoint.address for endpoint in found], qtype) if found else _NO_SUCH_NAME
    return _NO_SUCH_NAME


def _external(name: str, target: str, qtype: str) -> Answer:
    target = target.rstrip(".")
    return Answer("NOERROR", (Record(name, "CNAME", target),), follow=target if qtype in ("A", "AAAA", "ANY") else "")


def _whole_service(name: str, full: str, spec: Obj, endpoints: list[_Endpoint], headless: bool, qtype: str) -> Answer:
    if qtype == "SRV":
        return _ports(name, full, spec, endpoints, headless, None, qtype)
    if headless:
        if not endpoints:
            return _NO_SUCH_NAME
        return _addresses(name, [endpoint.address for endpoint in endpoints], qtype)
    return _addresses(name, spec.get("clusterIPs") or [spec["clusterIP"]], qtype)


def _addresses(name: str, addresses: Sequence[str], qtype: str) -> Answer:
    records = [
        Record(name, kind, address)
        for address in dict.fromkeys(addresses)
        for kind in ("AAAA" if ":" in address else "A",)
        if qtype in (kind, "ANY")
    ]
    return Answer("NOERROR", records)


def _ports(
    name: str, full: str, spec: Obj, endpoints: list[_Endpoint], headless: bool, wanted: tuple[str, str] | None, qtype: str
) -> Answer:
    """SRV records of one port, or (wanted None) of all."""
    records: list[Record] = []
    extra: list[Record] = []
    if headless:
        for endpoint in endpoints:
            target = f"{endpoint.host}.{full}"
            ports = [number for port, protocol, number in endpoint.ports if wanted in (None, (port, protocol))]
            records += [Record(name, "SRV", (number, target)) for number in ports]
            if ports:
                extra.append(Record(target, "AAAA" if ":" in endpoint.address else "A", endpoint.address))
    else:
        for port in spec.get("ports") or ():
            if wanted in (None, (port.get("name") or "", port.get("protocol", "TCP").lower())):
                records.append(Record(name, "SRV", (port["port"], full)))
        extra = [Record(full, "AAAA" if ":" in address else "A", address) for address in spec.get("clusterIPs") or [spec["clusterIP"]]]
    if not records:
        return _NO_SUCH_NAME
    return Answer("NOERROR", records, extra) if qtype in ("SRV", "ANY") else _NOTHING


def _endpoints(slices: Sequence[Obj]) -> Iterator[_Endpoint]:
    for slice_ in slices:
        ports = [
            (port.get("name") or "", (port.get("protocol") or "TCP").lower(), port["port"])
            for port in slice_.get("ports") or ()
            if port.get("port")
        ]
        for entry in slice_.get("endpoints") or ():
            if (entry.get("conditions") or {}).get("ready") is not False:
                for address in entry["addresses"]:
                    yield _Endpoint(address, entry.get("hostname") or address.replace(".", "-").replace(":", "-"), ports)


def _pod_zone(name: str, labels: list[str], qtype: str, directory: Directory) -> Answer:
    if len(labels) < 2:
        return _NOTHING if not labels or directory.has_namespace(labels[0]) else _NO_SUCH_NAME
    if len(labels) > 2 or not directory.has_namespace(labels[1]):
        return _NO_SUCH_NAME
    for separator in (".", ":"):
        try:
            address = str(ipaddress.ip_address(labels[0].replace("-", separator)))
        except ValueError:
            continue
        return _addresses(name, [address], qtype)
    return _NO_SUCH_NAME


def _reverse(name: str, lower: str, qtype: str, domain: str, directory: Directory) -> Answer:
    address = _reversed_address(lower)
    names = [_service_name(service, domain) for service in directory.services_at(address)]
    if not names:
        for slice_ in directory.slices_at(address):
            metadata = slice_["metadata"]
            service = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
            names += [
                f"{endpoint.host}.{service}.{metadata['namespace']}.svc.{domain}"
                for endpoint in _endpoints([slice_])
                if endpoint.address == address
            ]
    if not names:
        return _ELSEWHERE
    return Answer("NOERROR", [Record(name, "PTR", target) for target in dict.fromkeys(names)]) if qtype in ("PTR", "ANY") else _NOTHING


def _reversed_address(name: str) -> str:
    """The address that a name below in-addr.arpa or ip6.arpa stands for; of an incomplete one, nothing that exists."""
    if name.endswith(".ip6.arpa"):
        digits = "".join(reversed(name.removesuffix(".ip6.arpa").split(".")))
        parts = ":".join(digits[start : start + 4] for start in range(0, len(digits), 4))
        try:
            return str(ipaddress.IPv6Address(parts))
        except ValueError:
            return ""
    return ".".join(reversed(name.removesuffix(".in-addr.arpa").split(".")))


def _service_name(service: Obj, domain: str) -> str:
    metadata = service["metadata"]
    return f"{metadata['name']}.{metadata['namespace']}.svc.{domain}"
