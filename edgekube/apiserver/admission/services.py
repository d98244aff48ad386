"""What the API server itself fills into Services: address families, cluster IPs, node ports, the health check port.

Upstream does this in the Service's storage (pkg/registry/core/service/storage/alloc.go), between admission and the write; here it is the
last mutating plugin, so that the object that is validated is the object that is stored. Reservations are let go through `Admission.done`.
"""

from collections.abc import Mapping
from typing import Any

from edgekube.api import problems
from edgekube.api.kinds.service_addresses import check_addresses
from edgekube.api.types import Obj
from edgekube.apiserver.admission.common import BasePlugin, is_write_of
from edgekube.apiserver.admission.families import init_families
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.allocators import Full, OutOfRange, ServiceValues, Taken, cluster_addresses, used_ports
from edgekube.errors import ApiError, Invalid, Problem

_ADDRESS_TYPES = ("ClusterIP", "NodePort", "LoadBalancer")


class ServiceAllocation(BasePlugin):
    """Reserves before the write; a write that fails gives back."""

    name = "ServiceAllocation"
    kinds = ("services",)

    def __init__(self, values: ServiceValues) -> None:
        self._values = values

    async def mutate(self, request: Admission) -> None:
        if request.obj is None or request.operation not in ("CREATE", "UPDATE") or not is_write_of(request, "services"):
            return
        request.finish()  # of an earlier attempt that lost a race
        service, old = request.obj, request.old
        spec = service.setdefault("spec", {})
        if old is not None:
            carry_over(spec, old.get("spec") or {})
        before = (old or {}).get("spec")
        self._check(request, sctp_problems(spec, before or {}))
        normalize_addresses(spec, before)
        self._check(request, list(check_addresses(spec, before or {})))
        self._check(request, init_families(spec, before, self._values.families))
        try:
            self._addresses(request, spec, old)
            self._ports(request, spec, old)
        except ApiError:
            request.finish()
            raise

    def _addresses(self, request: Admission, spec: Obj, old: Obj | None) -> None:
        if spec.get("type", "ClusterIP") not in _ADDRESS_TYPES:
            return
        mine = set(cluster_addresses(old or {}))
        addresses = list(spec.get("clusterIPs") or ())
        if addresses == ["None"]:
            return
        for index, family in enumerate(spec["ipFamilies"]):
            if index >= len(addresses):
                addresses.append(self._choose_address(request, family))
            elif addresses[index] not in mine:
                self._take_address(request, addresses, addresses[index])
        spec["clusterIP"], spec["clusterIPs"] = addresses[0], addresses

    def _choose_address(self, request: Admission, family: str) -> str:
        pools = self._values.addresses
        try:
            address = pools.choose(family)
        except Full:
            raise ApiError("failed to allocate a serviceIP: range is full") from None
        request.done.append(_release(pools.release, address))
        return address

    def _take_address(self, request: Admission, wanted: list[str], address: str) -> None:
        pools = self._values.addresses
        try:
            pools.take(address)
        except Taken:
            self._refuse_address(request, wanted, address, "provided IP is already allocated")
        except OutOfRange:
            self._refuse_address(request, wanted, address, "the provided network does not match the current range")
        request.done.append(_release(pools.release, address))

    def _refuse_address(self, request: Admission, wanted: list[str], address: str, why: str) -> None:
        problem = problems.invalid("spec.clusterIPs", wanted, f"failed to allocate IP {address}: {why}")
        self._check(request, [problem])

    def _ports(self, request: Admission, spec: Obj, old: Obj | None) -> None:
        """Ports that the old version holds are kept; explicit ones are taken before any is chosen."""
        mine = set(used_ports(old or {}))
        ports = [port for port in spec.get("ports") or () if isinstance(port, dict)]
        if wants_node_ports(spec):
            chosen: dict[Any, int] = {}  # port number -> node port: TCP and UDP of one port share it
            for index, port in enumerate(ports):
                number = port.get("nodePort")
                if not isinstance(number, int) or not number:
                    continue
                if number not in mine:
                    self._take_port(request, f"spec.ports[{index}].nodePort", number)
                    mine.add(number)
                chosen[port.get("port"), port.get("protocol", "TCP")] = number
            for port in ports:
                if not port.get("nodePort"):
                    port["nodePort"] = self._shared(port, chosen) or self._choose_port(request)
                    chosen[port.get("port"), port.get("protocol", "TCP")] = port["nodePort"]
        if wants_health_port(spec):
            number = spec.get("healthCheckNodePort")
            if isinstance(number, int) and number:
                if number not in mine:
                    self._take_port(request, "spec.healthCheckNodePort", number)
            else:
                spec["healthCheckNodePort"] = self._choose_port(request)

    @staticmethod
    def _shared(port: Mapping[str, Any], chosen: Mapping[Any, int]) -> int:
        """The node port that the same port number has under another protocol."""
        number, protocol = port.get("port"), port.get("protocol", "TCP")
        return next((value for (other, its), value in chosen.items() if other == number and its != protocol), 0)

    def _take_port(self, request: Admission, field: str, number: int) -> None:
        pool = self._values.ports
        try:
            pool.take(number)
        except Taken:
            self._check(request, [problems.invalid(field, number, "provided port is already allocated")])
        except OutOfRange:
            why = f"provided port is not in the valid range. The range of valid ports is {self._values.port_range}"
            self._check(request, [problems.invalid(field, number, why)])
        request.done.append(_release(pool.release, number))

    def _choose_port(self, request: Admission) -> int:
        pool = self._values.ports
        try:
            number = pool.choose()
        except Full:
            raise ApiError("failed to allocate a nodePort: range is full") from None
        request.done.append(_release(pool.release, number))
        return number

    @staticmethod
    def _check(request: Admission, found: list[Problem]) -> None:
        if found:
            name = str(((request.obj or {}).get("metadata") or {}).get("name", ""))
            raise Invalid.of(request.kind.group, request.kind.kind, name, found)


def sctp_problems(spec: Mapping[str, Any], before: Mapping[str, Any]) -> list[Problem]:
    """No proxy of ours carries SCTP: said when it is asked for, not when packets vanish. A headless Service needs none."""
    headless = spec.get("clusterIP") == "None" or (spec.get("clusterIPs") or [""])[0] == "None"
    if spec.get("type") == "ExternalName" or headless:
        return []
    kept = {(port.get("name"), port.get("port")) for port in before.get("ports") or () if port.get("protocol") == "SCTP"}
    why = "SCTP is not carried by this cluster's service proxy, only TCP and UDP are; a headless Service (clusterIP: None) may have it"
    ports = [port if isinstance(port, dict) else {} for port in spec.get("ports") or ()]
    return [
        problems.forbidden(f"spec.ports[{index}].protocol", why)
        for index, port in enumerate(ports)
        if port.get("protocol") == "SCTP" and (port.get("name"), port.get("port")) not in kept
    ]


def wants_node_ports(spec: Mapping[str, Any]) -> bool:
    kind = spec.get("type")
    return kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False)


def wants_health_port(spec: Mapping[str, Any]) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def carry_over(spec: Obj, old: Mapping[str, Any]) -> None:
    """An update that leaves out what was allocated keeps it; one that leaves the type that needed it gives it up."""
    if spec.get("type", "ClusterIP") in _ADDRESS_TYPES and old.get("type", "ClusterIP") in _ADDRESS_TYPES:
        if not spec.get("clusterIP") and not spec.get("clusterIPs"):
            for field in ("clusterIP", "clusterIPs"):
                if field in old:
                    spec[field] = old[field] if field == "clusterIP" else list(old[field])
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if not spec.get(field) and old.get(field):
                spec[field] = list(old[field]) if field == "ipFamilies" else old[field]
    _carry_ports(spec, old)
    if wants_health_port(spec) and wants_health_port(old):
        spec.setdefault("healthCheckNodePort", old.get("healthCheckNodePort"))
    if wants_health_port(old) and not wants_health_port(spec) and spec.get("healthCheckNodePort") == old.get("healthCheckNodePort"):
        spec.pop("healthCheckNodePort", None)
    if spec.get("type") == "ExternalName" and old.get("type") != "ExternalName":
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(field) == old.get(field):
                spec.pop(field, None)


def _carry_ports(spec: Obj, old: Mapping[str, Any]) -> None:
    before = {(port.get("port"), port.get("protocol", "TCP")): port.get("nodePort") for port in old.get("ports") or ()}
    ports = [port for port in spec.get("ports") or () if isinstance(port, dict)]
    if wants_node_ports(spec):
        taken = {port.get("nodePort") for port in ports if port.get("nodePort")}
        for port in ports:
            number = before.get((port.get("port"), port.get("protocol", "TCP")))
            if not port.get("nodePort") and number and number not in taken:
                port["nodePort"] = number
    elif old.get("type") in ("NodePort", "LoadBalancer") and spec.get("type") != old.get("type"):
        for port in ports:
            if port.get("nodePort") in before.values():
                port.pop("nodePort", None)


def normalize_addresses(spec: Obj, old: Mapping[str, Any] | None) -> None:
    """Keep clusterIP and clusterIPs[0] the same thing, whichever of them the user set or changed."""
    single, several = spec.get("clusterIP"), spec.get("clusterIPs")
    if old is None:
        if single and not several:
            spec["clusterIPs"] = [single]
        elif several and not single:
            spec["clusterIP"] = several[0]
        return
    changed_single, changed_several = single != old.get("clusterIP"), several != old.get("clusterIPs")
    if changed_single and not changed_several:
        if single:
            spec["clusterIPs"] = [single]
        else:
            spec.pop("clusterIPs", None)
    elif changed_several and not changed_single:
        if several:
            spec["clusterIP"] = several[0]
        else:
            spec.pop("clusterIP", None)


def _release(release: Any, value: Any) -> Any:
    """A callback that gives `value` back."""
    return lambda: release(value)
