"""Requests and limits as the cgroups want them, with upstream's formulas. Pure.

CPU: shares = milli * 1024 / 1000 (2 to 262144), quota = milli * 100 per period of 100 ms (at least 1 ms). oom_score_adj by QoS class:
Guaranteed -997, BestEffort 1000, Burstable 1000 - 1000 * memory request / node memory, kept within [3, 999].
"""

from collections.abc import Mapping

from edgekube.api import pods as pod_facts
from edgekube.api import quantity
from edgekube.api.types import Obj
from edgekube.kubelet.podspec import init_containers, is_sidecar
from edgekube.kubelet.runtime.protocol import Resources

MIN_SHARES, MAX_SHARES = 2, 262144
PERIOD = 100_000
MIN_QUOTA = 1000


def cpu_shares(milli: int) -> int:
    return min(MAX_SHARES, max(MIN_SHARES, milli * 1024 // 1000)) if milli > 0 else MIN_SHARES


def cpu_quota(milli: int) -> int:
    """0: no limit."""
    return max(MIN_QUOTA, milli * PERIOD // 1000) if milli > 0 else 0


def amount(values: Mapping[str, str] | None, name: str) -> int:
    """CPU in milli, everything else in units; 0 when not there."""
    text = (values or {}).get(name)
    if text is None:
        return 0
    return quantity.milli(text) if name == "cpu" else quantity.value(text)


def container_resources(pod: Obj, container: Obj, *, node_memory: int, pids_limit: int = 0) -> Resources:
    """For one container of the pod."""
    stated = container.get("resources") or {}
    requests, limits = stated.get("requests"), stated.get("limits")
    cpu_limit = amount(limits, "cpu")
    cpu_request = amount(requests, "cpu") if requests and "cpu" in requests else cpu_limit
    return Resources(
        cpu_shares=cpu_shares(cpu_request),
        cpu_quota=cpu_quota(cpu_limit),
        cpu_period=PERIOD if cpu_limit else 0,
        memory_limit=amount(limits, "memory"),
        pids_limit=pids_limit,
        oom_score_adj=oom_score_adj(pod, container, node_memory=node_memory),
    )


def pod_resources(pod: Obj) -> Resources:
    """For the pod's own cgroup: limits only where every container has one, as upstream."""
    requests, limits = pod_facts.requests(pod), pod_facts.limits(pod)
    everyone = [*init_containers(pod), *pod["spec"]["containers"]]
    own = (pod["spec"].get("resources") or {}).get("limits") or {}

    def limited(name: str) -> bool:
        return name in own or all(amount((c.get("resources") or {}).get("limits"), name) for c in everyone)

    quota = cpu_quota(limits.get("cpu", 0)) if limited("cpu") else 0
    return Resources(
        cpu_shares=cpu_shares(requests.get("cpu", 0)),
        cpu_quota=quota,
        cpu_period=PERIOD if quota else 0,
        memory_limit=limits.get("memory", 0) if limited("memory") else 0,
    )


def oom_score_adj(pod: Obj, container: Obj, *, node_memory: int) -> int:
    """How early the kernel kills this container when memory ends."""
    if pod["spec"].get("priorityClassName") == "system-node-critical":
        return -997
    qos = pod_facts.qos_class(pod)
    if qos == "Guaranteed":
        return -997
    if qos == "BestEffort" or node_memory <= 0:
        return 1000
    request = amount((container.get("resources") or {}).get("requests"), "memory")
    score = 1000 - 1000 * request // node_memory
    if is_sidecar(container):
        others = [amount((c.get("resources") or {}).get("requests"), "memory") for c in pod["spec"]["containers"]]
        score = min(score, min((1000 - 1000 * each // node_memory for each in others), default=score))
    if score < 1000 + -997:
        return 1000 + -997
    return score - 1 if score == 1000 else score


def effective_requests(pod: Obj) -> dict[str, int]:
    """What the pod takes from the node: its requests and one of the `pods`."""
    return dict(pod_facts.requests(pod)) | {"pods": 1}
