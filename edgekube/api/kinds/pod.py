"""Pod: names, defaults, what create and update reset, and the functions of its sibling files."""

from collections.abc import Mapping
from typing import Any

from edgekube.api import pods
from edgekube.api.kind import Kind
from edgekube.api.kinds.pod_columns import COLUMNS
from edgekube.api.kinds.pod_defaults import default_pod
from edgekube.api.kinds.pod_rules import validate_pod, validate_status
from edgekube.api.types import Obj

SCHEDULER_GATED = "Scheduling is blocked due to non-empty scheduling gates"


def prepare(pod: Obj, old: Obj | None) -> None:
    """A new pod is Pending; an update of the spec keeps the status."""
    if old is not None:
        pod["status"] = old.get("status") or {}
        return
    pod["status"] = {"phase": "Pending", "qosClass": pods.qos_class(pod)}
    if pod["spec"].get("schedulingGates"):
        gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": SCHEDULER_GATED}
        pod["status"]["conditions"] = [gated]
    _match_label_keys(pod)


def _match_label_keys(pod: Obj) -> None:
    """Keys whose values the selectors of affinity and spreading take from the pod itself become part of those selectors."""
    labels, spec = pod["metadata"].get("labels") or {}, pod["spec"]
    for constraint in spec.get("topologySpreadConstraints") or ():
        _add_keys(constraint, labels, "matchLabelKeys", "In")
    for kind in ("podAffinity", "podAntiAffinity"):
        found = (spec.get("affinity") or {}).get(kind) or {}
        terms = list(found.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        terms += [one.get("podAffinityTerm") or {} for one in found.get("preferredDuringSchedulingIgnoredDuringExecution") or ()]
        for term in terms:
            _add_keys(term, labels, "matchLabelKeys", "In")
            _add_keys(term, labels, "mismatchLabelKeys", "NotIn")


def _add_keys(term: Obj, labels: Mapping[str, str], field: str, operator: str) -> None:
    selector = term.get("labelSelector")
    if selector is not None:
        added = [{"key": key, "operator": operator, "values": [labels[key]]} for key in term.get(field) or () if key in labels]
        if added:
            selector["matchExpressions"] = [*(selector.get("matchExpressions") or ()), *added]


def prepare_status(pod: Obj, old: Obj | None) -> None:
    """A status update changes only the status; the class a pod was born with stays."""
    if old is None:
        return
    pod["spec"] = old["spec"]
    metadata: dict[str, Any] = pod["metadata"]
    metadata.pop("deletionTimestamp", None)
    if old["metadata"].get("deletionTimestamp"):
        metadata["deletionTimestamp"] = old["metadata"]["deletionTimestamp"]
    metadata["ownerReferences"] = old["metadata"].get("ownerReferences") or []
    if not metadata["ownerReferences"]:
        del metadata["ownerReferences"]
    qos = (old.get("status") or {}).get("qosClass")
    if qos:
        pod.setdefault("status", {})["qosClass"] = qos


def grace_seconds(pod: Obj) -> int:
    """Nothing to wait for where no kubelet has the pod, or where all is over."""
    spec = pod["spec"]
    if not spec.get("nodeName") or pods.is_terminal(pod):
        return 0
    seconds = spec.get("terminationGracePeriodSeconds")
    return 30 if seconds is None else int(seconds)


def _spec(field: str) -> Any:
    return lambda pod: str((pod.get("spec") or {}).get(field) or "")


def _status(field: str) -> Any:
    return lambda pod: str((pod.get("status") or {}).get(field) or "")


POD = Kind(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    singular="pod",
    short=("po",),
    categories=("all",),
    schema="io.k8s.api.core.v1.Pod",
    has_status=True,
    has_generation=True,
    columns=COLUMNS,
    default=default_pod,
    prepare=prepare,
    prepare_status=prepare_status,
    validate=validate_pod,
    validate_status=validate_status,
    grace_seconds=grace_seconds,
    selectable={
        "spec.nodeName": _spec("nodeName"),
        "spec.restartPolicy": _spec("restartPolicy"),
        "spec.schedulerName": _spec("schedulerName"),
        "spec.serviceAccountName": _spec("serviceAccountName"),
        "spec.hostNetwork": lambda pod: "true" if (pod.get("spec") or {}).get("hostNetwork") else "false",
        "status.phase": _status("phase"),
        "status.podIP": _status("podIP"),
        "status.nominatedNodeName": _status("nominatedNodeName"),
    },
    subresources={
        "attach": ("create", "get"),
        "binding": ("create",),
        "ephemeralcontainers": ("get", "patch", "update"),
        "eviction": ("create",),
        "exec": ("create", "get"),
        "log": ("get",),
        "portforward": ("create", "get"),
        "proxy": ("create", "delete", "get", "patch", "update"),
    },
)
