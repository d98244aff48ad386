"""How a ReplicaSet gets to its number of pods, pure: how many to create or delete, which ones, and what its status says then.

Source of the rules: pkg/controller/controller_utils.go (ActivePodsWithRanks) and pkg/controller/replicaset/replica_set_utils.go.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgekube.api.types import Obj
from edgekube.controllers.pods import PodFacts

BURST = 500  # pods created or deleted in one go
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """`create` so many pods, or delete those of `delete`."""

    create: int = 0
    delete: Sequence[PodFacts] = ()


def plan_replicas(wanted: int, active: Sequence[PodFacts], related: Iterable[PodFacts], now: float) -> ReplicaPlan:
    """`active` are this set's own pods; `related` also those of its sibling sets, which count when pods are spread over nodes."""
    difference = len(active) - wanted
    if difference < 0:
        return ReplicaPlan(create=min(-difference, BURST))
    count = min(difference, BURST)
    if count == 0:
        return ReplicaPlan()
    if count >= len(active):
        return ReplicaPlan(delete=tuple(active))
    return ReplicaPlan(delete=tuple(rank(active, related, now)[:count]))


def rank(active: Sequence[PodFacts], related: Iterable[PodFacts], now: float) -> list[PodFacts]:
    """The pods in the order in which they should be deleted."""
    on_node = Counter(pod.node for pod in related if pod.active)

    def compare(one: PodFacts, two: PodFacts) -> int:
        return (
            _prefer(not one.node, not two.node)
            or _less(_PHASES.get(one.phase, 0), _PHASES.get(two.phase, 0))
            or _prefer(not one.ready, not two.ready)
            or _less(one.deletion_cost, two.deletion_cost)
            or _less(on_node[two.node], on_node[one.node])
            or _by_ready_time(one, two, now)
            or _less(two.restarts, one.restarts)
            or _less(two.sidecar_restarts, one.sidecar_restarts)
            or _younger(one.created_at, two.created_at, one.uid, two.uid, now)
        )

    return sorted(active, key=functools.cmp_to_key(compare))


def _less(one: float, two: float) -> int:
    return (one > two) - (one < two)


def _prefer(one: bool, two: bool) -> int:
    return int(two) - int(one)


def _by_ready_time(one: PodFacts, two: PodFacts, now: float) -> int:
    if not (one.ready and two.ready):
        return 0
    return _younger(one.ready_at, two.ready_at, one.uid, two.uid, now)


def _younger(one: float, two: float, uid_one: str, uid_two: str, now: float) -> int:
    """Ages are compared by their power of two, so that pods of about one age go in no order (LogarithmicScaleDown)."""
    if one == two:
        return 0
    if not one or not two:
        return -1 if not one else 1
    difference = _magnitude(now - one) - _magnitude(now - two)
    if difference == 0:
        return -1 if uid_one < uid_two else 1
    return -1 if difference < 0 else 1


def _magnitude(age: float) -> int:
    return int(math.log2(age * 1e9)) if age > 0 else -1


def plan_status(
    rs: Obj,
    active: Sequence[tuple[PodFacts, Mapping[str, str]]],
    terminating: int,
    failure: Mapping[str, str] | None,
    now: float,
    stamp: str,
) -> Obj:
    """The whole status. `active` pairs pods with their labels; `failure` is {"reason", "message"} of what went wrong just now."""
    spec, old = rs["spec"], rs.get("status") or {}
    template = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    minimum = spec.get("minReadySeconds", 0)
    status: Obj = {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(all(labels.get(k) == v for k, v in template.items()) for _, labels in active),
        "readyReplicas": sum(pod.ready for pod, _ in active),
        "availableReplicas": sum(pod.available(minimum, now) for pod, _ in active),
        "terminatingReplicas": terminating,
        "observedGeneration": rs["metadata"].get("generation", 0),
    }
    keep_zero = ("replicas", "terminatingReplicas")
    status = {name: value for name, value in status.items() if value or name in keep_zero}
    conditions = _conditions(old.get("conditions") or (), failure, stamp)
    if conditions:
        status["conditions"] = conditions
    return status


def _conditions(old: Sequence[Obj], failure: Mapping[str, str] | None, stamp: str) -> list[Obj]:
    """ReplicaFailure comes with the first failure and goes with the next success."""
    present = any(c["type"] == "ReplicaFailure" for c in old)
    if failure is None:
        return [c for c in old if c["type"] != "ReplicaFailure"]
    if present:
        return list(old)
    fresh = {"type": "ReplicaFailure", "status": "True", "lastTransitionTime": stamp} | dict(failure)
    return [*old, fresh]


def next_check(pods: Iterable[PodFacts], minimum: int, now: float) -> float | None:
    """Seconds until the next pod has been ready for `minimum` seconds."""
    waits = [pod.ready_at + minimum - now for pod in pods if minimum and pod.ready and not pod.available(minimum, now)]
    return max(0.0, min(waits)) if waits else None
