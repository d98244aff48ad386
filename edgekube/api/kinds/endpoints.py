"""Endpoints, the older view of what EndpointSlices say (pkg/apis/core/v1/defaults.go SetDefaults_Endpoints)."""

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import printing
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.types import Obj


def default(obj: Obj) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


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
    default=default,
    columns=(NAME, Column("Endpoints", _shown, description="Addresses and ports that are ready."), AGE),
)
