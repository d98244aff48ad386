"""EndpointSlice (pkg/apis/discovery/v1/defaults.go, pkg/registry/discovery/endpointslice/strategy.go)."""

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import printing
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.types import Obj


def default(obj: Obj) -> None:
    for port in obj.get("ports") or ():
        if port.get("name") is None:
            port["name"] = ""
        if port.get("protocol") is None:
            port["protocol"] = "TCP"


def _ports(obj: Obj, _now: float) -> str:
    found = obj.get("ports")
    if not found:
        return "<unset>"
    return printing.more([str(port["port"]) if port.get("port") is not None else "*" for port in found], 3)


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
    columns=(
        NAME,
        Column("AddressType", lambda o, _: o.get("addressType", ""), description="Kind of the addresses."),
        Column("Ports", _ports, description="Ports of the endpoints."),
        Column("Endpoints", _endpoints, description="Addresses of the endpoints."),
        AGE,
    ),
)
