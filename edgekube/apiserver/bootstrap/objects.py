"""The bootstrap data as API objects. Pure: the same input gives the same objects."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgekube.api.types import Obj
from edgekube.apiserver.bootstrap import policy
from edgekube.apiserver.bootstrap.controllers import CONTROLLERS

RBAC = "rbac.authorization.k8s.io"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
CLUSTER_SETTINGS = "edgekube-cluster"  # ConfigMap in kube-system
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


def parse_rule(line: str) -> Obj:
    """One line of the policy as a PolicyRule; lists are sorted, as upstream's helpers do."""
    parts = [part.split() for part in line.split(" : ")]
    if parts[1] == ["url"]:
        return {"verbs": sorted(parts[0]), "nonResourceURLs": sorted(parts[2])}
    groups = sorted("" if group == "core" else group for group in parts[1])
    rule: Obj = {"verbs": sorted(parts[0]), "apiGroups": groups, "resources": sorted(parts[2])}
    return rule | ({"resourceNames": sorted(parts[3])} if len(parts) > 3 else {})


def cluster_roles() -> list[Obj]:
    """All default ClusterRoles. The aggregated ones come with the rules that the default roles give them."""
    roles = {name: _role(name, lines) for name, lines in policy.CLUSTER_ROLES.items()}
    roles |= {name: _role(name, lines) for name, lines in _controllers()}
    for name, into in policy.AGGREGATE_INTO.items():
        roles[name]["metadata"]["labels"][f"{RBAC}/aggregate-to-{into}"] = "true"
    for name, target in policy.AGGREGATED.items():
        roles[name]["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {f"{RBAC}/aggregate-to-{target}": "true"}}]}
    for name in ("view", "edit", "admin"):  # each collects the one before it
        sources = sorted(source for source, into in policy.AGGREGATE_INTO.items() if into == name)
        rules: list[Obj] = []
        for source in sources:
            rules += [rule for rule in roles[source].get("rules") or () if rule not in rules]
        roles[name]["rules"] = rules
    return list(roles.values())


def cluster_role_bindings() -> list[Obj]:
    own = [_binding(name, "", "ClusterRole", role, subjects) for name, role, subjects in policy.CLUSTER_ROLE_BINDINGS]
    for name, _ in _controllers():
        account = name.removeprefix("system:controller:")
        own.append(_binding(name, "", "ClusterRole", name, (f"ServiceAccount kube-system/{account}",)))
    return own


def roles() -> list[Obj]:
    return [_role(name, lines, namespace) for (namespace, name), lines in policy.NAMESPACE_ROLES.items()]


def role_bindings() -> list[Obj]:
    return [_binding(name, namespace, "Role", role, subjects) for namespace, name, role, subjects in policy.NAMESPACE_ROLE_BINDINGS]


def namespaces() -> list[Obj]:
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES]


def priority_classes() -> list[Obj]:
    return [
        _priority("system-node-critical", 2000001000, "Used for system critical pods that must not be moved from their current node."),
        _priority(
            "system-cluster-critical",
            2000000000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]


def cluster_settings(values: Mapping[str, str]) -> Obj:
    """What agents must know of the cluster to be nodes of it. The server's own settings are the truth, this is their copy."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CLUSTER_SETTINGS, "namespace": "kube-system"},
        "data": dict(values),
    }


def kubernetes_service(cluster_ip: str, port: int) -> Obj:
    """The Service under which pods reach the API."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": cluster_ip,
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    }


def kubernetes_endpoints(addresses: Sequence[str], port: int) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [
            {"addresses": [{"ip": address} for address in sorted(addresses)], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}
        ],
    }


def kubernetes_slice(addresses: Sequence[str], port: int) -> Obj:
    family = "IPv6" if any(":" in address for address in addresses) else "IPv4"
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in sorted(addresses)],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }


def dns_service(cluster_dns: str) -> Obj:
    """The address of the cluster's DNS, or one of each family. It has no endpoints: every node answers on it in process."""
    addresses = cluster_dns.split(",")
    several = {"clusterIPs": addresses, "ipFamilyPolicy": "PreferDualStack"} if len(addresses) > 1 else {}
    labels = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    ports = (("dns", 53, "UDP"), ("dns-tcp", 53, "TCP"), ("metrics", 9153, "TCP"))
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "spec": {
            "clusterIP": addresses[0],
            **several,
            "ports": [{"name": name, "port": port, "protocol": protocol, "targetPort": port} for name, port, protocol in ports],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    }


def _controllers() -> Iterable[tuple[str, Sequence[str]]]:
    return ((f"system:controller:{name}", lines) for name, lines in CONTROLLERS.items())


def _metadata(name: str, namespace: str) -> Obj:
    metadata: Obj = {"name": name, "labels": dict(_LABELS), "annotations": {AUTOUPDATE: "true"}}
    return metadata | ({"namespace": namespace} if namespace else {})


def _role(name: str, lines: Sequence[str], namespace: str = "") -> Obj:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role" if namespace else "ClusterRole",
        "metadata": _metadata(name, namespace),
        "rules": [parse_rule(line) for line in lines],
    }


def _binding(name: str, namespace: str, role_kind: str, role: str, subjects: Sequence[str]) -> Obj:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": _metadata(name, namespace),
        "roleRef": {"apiGroup": RBAC, "kind": role_kind, "name": role},
        "subjects": [_subject(text) for text in subjects],
    }


def _subject(text: str) -> dict[str, Any]:
    kind, _, name = text.partition(" ")
    if kind == "ServiceAccount":
        namespace, _, account = name.partition("/")
        return {"kind": kind, "name": account, "namespace": namespace}
    return {"apiGroup": RBAC, "kind": kind, "name": name}


def _priority(name: str, value: int, description: str) -> Obj:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": description,
        "preemptionPolicy": "PreemptLowerPriority",
    }
