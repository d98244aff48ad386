"""Service: defaults, columns; addresses and ports are handed out by the API server's allocators (pkg/registry/core/service)."""

from edgekube.api import validate
from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import printing, service_validation
from edgekube.api.kinds.printing import AGE, NAME, NONE
from edgekube.api.kinds.service_validation import is_external
from edgekube.api.types import Obj


def default(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    if spec["sessionAffinity"] == "ClientIP":
        client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        if client.get("timeoutSeconds") is None:
            client["timeoutSeconds"] = 10800
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port")
    if is_external(spec) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec["type"] != "ExternalName" and spec.get("internalTrafficPolicy") is None:
        spec["internalTrafficPolicy"] = "Cluster"
    if spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is None:
        spec["allocateLoadBalancerNodePorts"] = True
    for ingress in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
        if ingress.get("ip") and ingress.get("ipMode") is None:
            ingress["ipMode"] = "VIP"


def prepare(obj: Obj, old: Obj | None) -> None:
    """The status is the load balancer's; a type without balancer has none. What only the old type needed goes with it."""
    if old is not None:
        _drop_unneeded(obj["spec"], old.get("spec") or {})
    obj["status"] = {"loadBalancer": {}} if old is None else old.get("status") or {"loadBalancer": {}}
    if obj["spec"].get("type") != "LoadBalancer":
        obj["status"] = {**obj["status"], "loadBalancer": {}}


def _drop_unneeded(spec: Obj, before: Obj) -> None:
    """dropTypeDependentFields, as far as no address or port is involved. A field that was changed too is left for validation to refuse."""
    balancer = before.get("type") == "LoadBalancer" and spec.get("type") != "LoadBalancer"
    hidden = is_external(before) and not is_external(spec)
    names = ("allocateLoadBalancerNodePorts", "loadBalancerClass") if balancer else ()
    for name in (*names, *(("externalTrafficPolicy",) if hidden else ())):
        if name in spec and spec[name] == before.get(name):
            del spec[name]


def prepare_status(obj: Obj, old: Obj | None) -> None:
    if old is not None:
        obj["spec"] = old["spec"]


def _cluster_ip(obj: Obj, _now: float) -> str:
    spec = obj.get("spec") or {}
    found = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return str(found[0] or NONE)


def _external_ip(obj: Obj, _now: float) -> str:
    spec = obj.get("spec") or {}
    outside = ",".join(spec.get("externalIPs") or ())
    kind = spec.get("type")
    if kind == "ExternalName":
        return str(spec.get("externalName", ""))
    if kind == "LoadBalancer":
        found = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        balancer = ",".join(sorted({entry.get("ip") or entry.get("hostname", "") for entry in found} - {""}))
        return ",".join(filter(None, [balancer, outside])) or "<pending>"
    return outside or NONE


def _ports(obj: Obj, _now: float) -> str:
    found = (obj.get("spec") or {}).get("ports") or ()
    shown = []
    for port in found:
        node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port['port']}{node_port}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or NONE


SERVICE = Kind(
    group="",
    version="v1",
    kind="Service",
    plural="services",
    singular="service",
    short=("svc",),
    categories=("all",),
    schema="io.k8s.api.core.v1.Service",
    has_status=True,
    subresources={"proxy": ("create", "delete", "get", "patch", "update")},
    default=default,
    prepare=prepare,
    prepare_status=prepare_status,
    validate=service_validation.check,
    validate_status=service_validation.check_status,
    validate_name=validate.label,
    selectable={
        "spec.clusterIP": lambda o: str((o.get("spec") or {}).get("clusterIP") or ""),
        "spec.type": lambda o: str((o.get("spec") or {}).get("type") or ""),
    },
    columns=(
        NAME,
        Column("Type", lambda o, _: (o.get("spec") or {}).get("type", ""), description="Type determines how the Service is exposed."),
        Column("Cluster-IP", _cluster_ip, description="Address of the Service inside the cluster."),
        Column("External-IP", _external_ip, description="Addresses of the Service outside the cluster."),
        Column("Port(s)", _ports, description="Ports the Service is reached at."),
        AGE,
        Column("Selector", lambda o, _: printing.joined_labels((o.get("spec") or {}).get("selector")), priority=1),
    ),
)
