"""Whether this node takes a pod that was bound to it: the scheduler's view may be older than the node's. Pure.

Upstream: pkg/kubelet/lifecycle/predicate.go. Answers upstream's reason and message.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgekube.api import pods as pod_facts
from edgekube.api import quantity
from edgekube.api.types import Obj
from edgekube.kubelet import security
from edgekube.kubelet.demands import Demand, demand

Refusal = tuple[str, str]


def refuse(pod: Obj, node: Obj, others: Sequence[Demand], *, memory_pressure: bool = False) -> Refusal | None:
    """None: take it. `others` is what the pods on the node take already."""
    if memory_pressure and pod_facts.qos_class(pod) == "BestEffort" and not _tolerates_pressure(pod):
        return "Evicted", "The node had condition: [MemoryPressure]. "
    if why := security.forbidden_sysctl(pod):
        return "SysctlForbidden", why
    own = demand(pod)
    if found := _resources(own, node, others):
        return found
    if not matches_node(pod, node):
        return "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
    taken = {port for other in others for port in other.ports}
    if any(_clash(port, taken) for port in own.ports):
        return "NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
    if not _tolerated(pod, node):
        return "TaintToleration", "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
    return None


def _tolerates_pressure(pod: Obj) -> bool:
    key = "node.kubernetes.io/memory-pressure"
    return any(
        t.get("key") in (key, None, "") and t.get("effect") in ("NoSchedule", None, "") for t in pod["spec"].get("tolerations") or ()
    )


def _resources(own: Demand, node: Obj, others: Sequence[Demand]) -> Refusal | None:
    allocatable: Mapping[str, str] = (node.get("status") or {}).get("allocatable") or {}
    wanted = own.requests
    used: dict[str, int] = {}
    for other in others:
        for name, amount in other.requests.items():
            used[name] = used.get(name, 0) + amount
    for name in ("pods", *sorted(wanted.keys() - {"pods"})):
        amount = wanted[name]
        if amount == 0 or (name not in allocatable and name in ("cpu", "memory", "ephemeral-storage", "pods")):
            continue
        text = allocatable.get(name, "0")
        capacity = quantity.milli(text) if name == "cpu" else quantity.value(text)
        if amount > capacity - used.get(name, 0):
            return (
                f"OutOf{name}",
                f"Node didn't have enough resource: {name}, requested: {amount}, used: {used.get(name, 0)}, capacity: {capacity}",
            )
    return None


def _clash(port: tuple[str, str, int], taken: Iterable[tuple[str, str, int]]) -> bool:
    address, protocol, number = port
    wild = ("", "0.0.0.0")
    return any(protocol == p and number == n and (address == a or address in wild or a in wild) for a, p, n in taken)


def matches_node(pod: Obj, node: Obj) -> bool:
    """nodeSelector and required node affinity."""
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    if any(labels.get(name) != value for name, value in (pod["spec"].get("nodeSelector") or {}).items()):
        return False
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if affinity is None:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(_term(term, labels, fields) for term in affinity.get("nodeSelectorTerms") or ())


def _term(term: Mapping[str, Any], labels: Mapping[str, str], fields: Mapping[str, str]) -> bool:
    expressions, on_fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not on_fields:
        return False
    return all(_requirement(e, labels) for e in expressions) and all(_requirement(e, fields) for e in on_fields)


def _requirement(one: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    key, operator = one["key"], one["operator"]
    wanted: Sequence[str] = one.get("values") or ()
    if operator == "Exists":
        return key in values
    if operator == "DoesNotExist":
        return key not in values
    if operator == "In":
        return values.get(key) in wanted
    if operator == "NotIn":
        return values.get(key) not in wanted
    try:
        number, limit = int(values[key]), int(wanted[0])
    except (KeyError, ValueError, IndexError):
        return False
    return number > limit if operator == "Gt" else number < limit


def _tolerated(pod: Obj, node: Obj) -> bool:
    taints = [t for t in (node["spec"].get("taints") or ()) if t.get("effect") == "NoExecute"]
    return all(any(tolerates(t, taint) for t in pod["spec"].get("tolerations") or ()) for taint in taints)


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if (toleration.get("operator") or "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")
