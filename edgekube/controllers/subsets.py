"""The subsets of a legacy Endpoints object, pure: addresses grouped by the ports they have, in one canonical order.

Source of the rules: pkg/controller/endpoint/endpoints_controller.go and pkg/api/v1/endpoints/util.go.
"""

from collections.abc import Iterable, Sequence

from edgekube.api.types import Obj
from edgekube.controllers.pods import PodFacts
from edgekube.controllers.services import ServiceFacts, belongs, family, hostname, port_number

MAX_ADDRESSES = 1000

_Port = tuple[str, int, str, str]


def plan_subsets(service: ServiceFacts, pods: Iterable[PodFacts]) -> list[Obj]:
    """All subsets. A pod's ports decide which it is in; a Service without ports and address gives subsets without ports."""
    groups: dict[tuple[_Port, ...], tuple[list[Obj], list[Obj]]] = {}
    for pod in pods:
        if not belongs(pod, include_terminating=service.publish_unready):
            continue
        ip = next((ip for ip in pod.ips if family(ip) == service.families[0]), None)
        if ip is None:
            continue
        ports = _ports(service, pod)
        if service.ports and not ports:
            continue
        ready, unready = groups.setdefault(ports, ([], []))
        (ready if service.publish_unready or pod.ready else unready).append(_address(service, pod, ip))
    return [_subset(ports, *groups[ports]) for ports in sorted(groups)]


def _ports(service: ServiceFacts, pod: PodFacts) -> tuple[_Port, ...]:
    found: list[_Port] = []
    for port in service.ports:
        number = port_number(pod, port)
        if number is not None:
            found.append((str(port.get("name") or ""), number, str(port.get("protocol", "TCP")), str(port.get("appProtocol") or "")))
    return tuple(sorted(found))


def _address(service: ServiceFacts, pod: PodFacts, ip: str) -> Obj:
    address: Obj = {"ip": ip}
    name = hostname(pod, service)
    if name:
        address["hostname"] = name
    if pod.node:
        address["nodeName"] = pod.node
    return address | {"targetRef": {"kind": "Pod", "namespace": pod.key.namespace, "name": pod.key.name, "uid": pod.uid}}


def _subset(ports: Sequence[_Port], ready: list[Obj], unready: list[Obj]) -> Obj:
    subset: Obj = {}
    for name, addresses in (("addresses", ready), ("notReadyAddresses", unready)):
        if addresses:
            subset[name] = sorted(addresses, key=lambda address: (address["ip"], address["targetRef"]["uid"]))
    if ports:
        subset["ports"] = [_port(*port) for port in ports]
    return subset


def _port(name: str, number: int, protocol: str, app_protocol: str) -> Obj:
    port: Obj = {"port": number, "protocol": protocol}
    if name:
        port["name"] = name
    if app_protocol:
        port["appProtocol"] = app_protocol
    return port


def truncate(subsets: Sequence[Obj], limit: int = MAX_ADDRESSES) -> tuple[list[Obj], bool]:
    """At most `limit` addresses, ready ones first. Tells whether any were left out."""
    count = sum(len(s.get("addresses") or ()) + len(s.get("notReadyAddresses") or ()) for s in subsets)
    if count <= limit:
        return list(subsets), False
    kept = [{"ports": subset["ports"]} if "ports" in subset else {} for subset in subsets]
    for name in ("addresses", "notReadyAddresses"):
        for subset, result in zip(subsets, kept, strict=True):
            taken = (subset.get(name) or [])[:limit]
            limit -= len(taken)
            if taken:
                result[name] = taken
    return [subset for subset in kept if "addresses" in subset or "notReadyAddresses" in subset], True
