"""Endpoints of this node's own pods while the server is away: they follow what the kubelet sees, since nobody else says it.

Pure. Only endpoints that name a pod of this node are touched: whether it is ready, and where it is after a reboot gave it another address.
As the server's controller would say it: ready is ready (or published all the same) and not ending.
"""

from collections.abc import Mapping
from typing import Any

from edgekube.api.types import Obj


def adjusted(endpoints: Obj, pods: Mapping[str, Obj], *, publish_all: bool) -> Obj | None:
    """The slice with what `pods` (by uid, with their newest status) say; None: it says so already."""
    found = [_endpoint(entry, pods, endpoints.get("addressType") or "IPv4", publish_all) for entry in endpoints.get("endpoints") or ()]
    return None if found == (endpoints.get("endpoints") or []) else endpoints | {"endpoints": found}


def _endpoint(entry: Obj, pods: Mapping[str, Obj], family: str, publish_all: bool) -> Obj:
    target: Mapping[str, Any] = entry.get("targetRef") or {}
    pod = pods.get(target.get("uid") or "") if target.get("kind") == "Pod" else None
    if pod is None:
        return entry
    status = pod.get("status") or {}
    serving = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())
    ending = bool(pod["metadata"].get("deletionTimestamp"))
    conditions = {"ready": (serving or publish_all) and not ending, "serving": serving, "terminating": ending}
    addresses = [one["ip"] for one in status.get("podIPs") or () if (":" in one["ip"]) == (family == "IPv6")]
    return entry | {"conditions": conditions, "addresses": addresses[:1] or entry["addresses"]}
