"""What the server serves, as clients ask for it: legacy documents per group and version, and aggregated discovery in one answer.

Built from the Kinds alone. Clients that know it ask /api and /apis for aggregated discovery (`accepts_aggregated`).
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from edgekube.api.kind import Kind
from edgekube.api.types import Obj

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_GROUPS = (
    "", "apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling", "batch",
    "certificates.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "storage.k8s.io", "admissionregistration.k8s.io",
    "apiextensions.k8s.io", "scheduling.k8s.io", "coordination.k8s.io", "node.k8s.io", "discovery.k8s.io", "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
)  # fmt: skip
_READ_WRITE = ("get", "patch", "update")
# (resource or "", subresource) -> group, version, kind; a subresource not listed here speaks its resource's own kind.
_SUBRESOURCE_KINDS = {
    ("", "scale"): ("autoscaling", "v1", "Scale"),
    ("pods", "attach"): ("", "v1", "PodAttachOptions"),
    ("pods", "binding"): ("", "v1", "Binding"),
    ("pods", "eviction"): ("policy", "v1", "Eviction"),
    ("pods", "exec"): ("", "v1", "PodExecOptions"),
    ("pods", "portforward"): ("", "v1", "PodPortForwardOptions"),
    ("pods", "proxy"): ("", "v1", "PodProxyOptions"),
    ("services", "proxy"): ("", "v1", "ServiceProxyOptions"),
    ("nodes", "proxy"): ("", "v1", "NodeProxyOptions"),
    ("serviceaccounts", "token"): ("authentication.k8s.io", "v1", "TokenRequest"),
}
_FOREIGN = {"Scale", "Eviction", "TokenRequest"}  # legacy discovery names group and version for these only


def api_versions(server_address: str) -> Obj:
    """GET /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }


def api_groups(kinds: Sequence[Kind]) -> Obj:
    """GET /apis."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name, kinds) for name in groups(kinds) if name]}


def api_group(kinds: Sequence[Kind], group: str) -> Obj | None:
    """GET /apis/GROUP; None if nothing of it is served."""
    return {"kind": "APIGroup", "apiVersion": "v1"} | _group(group, kinds) if group and versions(kinds, group) else None


def api_resources(kinds: Sequence[Kind], group: str, version: str) -> Obj | None:
    """GET /api/v1 and /apis/GROUP/VERSION; None if nothing of it is served."""
    served = _of(kinds, group, version)
    if not served:
        return None
    found: Obj = {"kind": "APIResourceList"}
    if group:
        found["apiVersion"] = "v1"
    return found | {
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [resource for kind in served for resource in _legacy(kind)],
    }


def aggregated(kinds: Sequence[Kind], *, core: bool) -> Obj:
    """GET /api (`core`) or /apis with the AGGREGATED content type."""
    found = [name for name in groups(kinds) if (name == "") is core]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": name} if name else {},
                "versions": [
                    {"version": version, "resources": [_resource(kind) for kind in _of(kinds, name, version)], "freshness": "Current"}
                    for version in versions(kinds, name)
                ],
            }
            for name in found
        ],
    }


def accepts_aggregated(accept: str) -> bool:
    """Whether an Accept header asks for aggregated discovery before plain JSON."""
    for part in accept.split(","):
        media, *parameters = [piece.strip() for piece in part.split(";")]
        wanted = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        if media != "application/json":
            continue
        if wanted.get("as") == "APIGroupDiscoveryList":
            if wanted.get("g") == "apidiscovery.k8s.io" and wanted.get("v") == "v2":
                return True
        elif "as" not in wanted:
            return False
    return False


def groups(kinds: Sequence[Kind]) -> list[str]:
    """The groups served, in upstream's order of priority."""
    order = {name: index for index, name in enumerate(_GROUPS)}
    return sorted({kind.group for kind in kinds}, key=lambda name: (order.get(name, len(order)), name))


def versions(kinds: Sequence[Kind], group: str) -> list[str]:
    """The versions of a group, the preferred one first: stable before beta before alpha, newest first."""
    return sorted({kind.version for kind in kinds if kind.group == group}, key=_version_rank)


def storage_hash(kind: Kind) -> str:
    """Changes when the stored version does."""
    return base64.b64encode(hashlib.sha256(f"{kind.group}/{kind.version}/{kind.kind}".encode()).digest()[:8]).decode()


def subresources(kind: Kind) -> Iterable[tuple[str, tuple[str, str, str], Sequence[str]]]:
    """(name, (group, version, kind), verbs) of everything below a resource, sorted by name."""
    found: dict[str, Sequence[str]] = dict(kind.subresources)
    if kind.has_status:
        found["status"] = _READ_WRITE
    if kind.scale:
        found["scale"] = _READ_WRITE
    for name in sorted(found):
        speaks = _SUBRESOURCE_KINDS.get((kind.plural, name)) or _SUBRESOURCE_KINDS.get(("", name))
        yield name, speaks or (kind.group, kind.version, kind.kind), sorted(found[name])


def _group(name: str, kinds: Sequence[Kind]) -> Obj:
    found = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions(kinds, name)]
    return {"name": name, "versions": found, "preferredVersion": found[0]}


def _of(kinds: Sequence[Kind], group: str, version: str) -> list[Kind]:
    return sorted((kind for kind in kinds if (kind.group, kind.version) == (group, version)), key=lambda kind: kind.plural)


def _singular(kind: Kind) -> str:
    return kind.singular or kind.kind.lower()


def _legacy(kind: Kind) -> Iterable[Obj]:
    resource: Obj = {
        "name": kind.plural,
        "singularName": _singular(kind),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": sorted(kind.verbs),
    }
    if kind.short:
        resource["shortNames"] = list(kind.short)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    if "get" in kind.verbs:
        resource["storageVersionHash"] = storage_hash(kind)
    yield resource
    for name, (group, version, spoken), verbs in subresources(kind):
        below: Obj = {"name": f"{kind.plural}/{name}", "singularName": "", "namespaced": kind.namespaced}
        if spoken in _FOREIGN:
            below |= {"group": group, "version": version}
        yield below | {"kind": spoken, "verbs": verbs}


def _resource(kind: Kind) -> Obj:
    found: Obj = {
        "resource": kind.plural,
        "responseKind": _kind(kind.group, kind.version, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": _singular(kind),
        "verbs": sorted(kind.verbs),
    }
    if kind.short:
        found["shortNames"] = list(kind.short)
    if kind.categories:
        found["categories"] = list(kind.categories)
    below = [{"subresource": name, "responseKind": _kind(*spoken), "verbs": verbs} for name, spoken, verbs in subresources(kind)]
    return found | ({"subresources": below} if below else {})


def _kind(group: str, version: str, kind: str) -> Obj:
    return {"group": group, "version": version, "kind": kind}


def _version_rank(version: str) -> tuple[Any, ...]:
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if not found:
        return (1, 0, 0, 0, version)
    major, stage, minor = found.groups()
    return (0, {"": 0, "beta": 1, "alpha": 2}[stage or ""], -int(major), -int(minor or 0), version)
