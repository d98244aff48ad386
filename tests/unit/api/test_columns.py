"""The tables that kubectl prints: headers in upstream's order (those in brackets only with -o wide), and cells that are more than a field."""

from typing import Any

import pytest

from edgekube.api import catalog
from edgekube.api.kind import Kind
from edgekube.api.types import Obj

NOW = 1767225600.0  # 2026-01-01T00:00:00Z
MINUTE_AGO = "2025-12-31T23:59:00Z"
EVENT = "Last Seen, Type, Reason, Object, [Subobject], [Source], Message, [First Seen], [Count], [Name]"
BINDING = "Name, Role, Age, [Users], [Groups], [ServiceAccounts]"


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        (catalog.NAMESPACE, "Name, Status, Age"),
        (catalog.NODE,
         "Name, Status, Roles, Age, Version, [Internal-IP], [External-IP], [OS-Image], [Kernel-Version], [Container-Runtime]"),
        (catalog.POD, "Name, Ready, Status, Restarts, Age, [IP], [Node], [Nominated Node], [Readiness Gates]"),
        (catalog.SERVICE, "Name, Type, Cluster-IP, External-IP, Port(s), Age, [Selector]"),
        (catalog.ENDPOINTS, "Name, Endpoints, Age"),
        (catalog.ENDPOINT_SLICE, "Name, AddressType, Ports, Endpoints, Age"),
        (catalog.CONFIG_MAP, "Name, Data, Age"),
        (catalog.SECRET, "Name, Type, Data, Age"),
        (catalog.SERVICE_ACCOUNT, "Name, Age"),
        (catalog.EVENT, EVENT),
        (catalog.EVENT_V1, EVENT),
        (catalog.LEASE, "Name, Holder, Age"),
        (catalog.DEPLOYMENT, "Name, Ready, Up-to-date, Available, Age, [Containers], [Images], [Selector]"),
        (catalog.REPLICA_SET, "Name, Desired, Current, Ready, Age, [Containers], [Images], [Selector]"),
        (catalog.CONTROLLER_REVISION, "Name, Controller, Revision, Age"),
        (catalog.ROLE, "Name, Created At"),
        (catalog.CLUSTER_ROLE, "Name, Created At"),
        (catalog.ROLE_BINDING, BINDING),
        (catalog.CLUSTER_ROLE_BINDING, BINDING),
        (catalog.PRIORITY_CLASS, "Name, Value, Global-Default, Age, PreemptionPolicy"),
    ],
    ids=lambda value: value.plural if isinstance(value, Kind) else "",
)  # fmt: skip
def test_headers(kind: Kind, headers: str) -> None:
    assert ", ".join(f"[{one.name}]" if one.priority else one.name for one in kind.columns) == headers


def cell(kind: Kind, name: str, obj: Obj) -> Any:
    column = next(one for one in kind.columns if one.name == name)
    return column.cell({"metadata": {"name": "x", "creationTimestamp": MINUTE_AGO}, **obj}, NOW)


def balanced(*ingress: Obj, outside: tuple[str, ...] = ()) -> Obj:
    return {"spec": {"type": "LoadBalancer", "externalIPs": list(outside)}, "status": {"loadBalancer": {"ingress": list(ingress)}}}


def ports(*numbers: int) -> list[Obj]:
    return [{"port": number} for number in numbers]


SERIES = {"series": {"count": 7, "lastObservedTime": "2025-12-31T23:59:50.000000Z"}, "lastTimestamp": MINUTE_AGO, "count": 1}


@pytest.mark.parametrize(
    ("kind", "name", "obj", "shown"),
    [
        (catalog.NODE, "Version", {"status": {}}, ""),
        (catalog.NODE, "OS-Image", {}, "<unknown>"),
        (catalog.NODE, "Status", {"spec": {"unschedulable": True}}, "Unknown,SchedulingDisabled"),
        (catalog.NODE, "Roles", {}, "<none>"),
        (catalog.SERVICE, "Cluster-IP", {"spec": {"type": "ExternalName"}}, "<none>"),
        (catalog.SERVICE, "External-IP", balanced(), "<pending>"),
        (catalog.SERVICE, "External-IP", balanced({"ip": "192.0.2.2"}, {"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}, outside=("192.0.2.9",)),
         "192.0.2.1,192.0.2.2,192.0.2.9"),
        (catalog.SERVICE, "Port(s)", {"spec": {"ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}},
         "80:30000/TCP,53/UDP"),
        (catalog.ENDPOINTS, "Endpoints", {}, "<none>"),
        (catalog.ENDPOINTS, "Endpoints", {"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "::1"}], "ports": ports(80, 81)}]},
         "10.0.0.1:80,[::1]:80,10.0.0.1:81 + 1 more..."),
        (catalog.ENDPOINT_SLICE, "Ports", {}, "<unset>"),
        (catalog.ENDPOINT_SLICE, "Ports", {"ports": [{"name": "http"}, {"port": 80, "name": ""}]}, "http,80"),
        (catalog.ENDPOINT_SLICE, "Ports", {"ports": ports(1, 2, 3, 4)}, "1,2,3 + 1 more..."),
        (catalog.ENDPOINT_SLICE, "Endpoints", {"endpoints": [{"addresses": ["10.0.0.1", "10.0.0.2"]}]}, "10.0.0.1,10.0.0.2"),
        (catalog.CONFIG_MAP, "Data", {"data": {"a": "b"}, "binaryData": {"c": ""}}, 2),
        (catalog.EVENT, "Last Seen", SERIES, "10s"),
        (catalog.EVENT, "Count", SERIES, 7),
        (catalog.EVENT, "Last Seen", {"eventTime": "2025-12-31T23:59:30.000000Z"}, "30s"),
        (catalog.EVENT_V1, "Last Seen", {"deprecatedFirstTimestamp": MINUTE_AGO}, "60s"),
        (catalog.ROLE, "Created At", {}, MINUTE_AGO),
        (catalog.CONTROLLER_REVISION, "Controller", {}, "<none>"),
        (catalog.LEASE, "Age", {}, "60s"),
    ],
)  # fmt: skip
def test_cells(kind: Kind, name: str, obj: Obj, shown: Any) -> None:
    assert cell(kind, name, obj) == shown
