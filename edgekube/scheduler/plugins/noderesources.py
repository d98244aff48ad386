"""NodeResourcesFit and NodeResourcesBalancedAllocation: room on the node, spare room, and evenness of what is used."""

from collections.abc import Sequence
from typing import Any

from edgekube.scheduler.framework import (
    MAX_SCORE,
    NODE_ADD,
    NODE_ALLOCATABLE,
    POD_DELETE,
    POD_UPDATE,
    SKIP,
    TARGET_UPDATE,
    Reject,
    as_they_are,
)
from edgekube.scheduler.snapshot import NodeInfo, PodInfo

_FIRST = ("cpu", "memory", "ephemeral-storage")


class NodeResourcesFit:
    name = "NodeResourcesFit"
    wakes_on = (NODE_ADD, NODE_ALLOCATABLE, POD_DELETE, POD_UPDATE, TARGET_UPDATE)
    weight = 1

    def prepare(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Any:
        wanted = {name: amount for name, amount in pod.requests.items() if amount > 0}
        return [(name, wanted[name]) for name in (*_FIRST, *sorted(wanted.keys() - set(_FIRST))) if name in wanted]

    def filter(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> Reject | None:
        reasons, resolvable = [], True
        if len(node.pods) + 1 > node.allocatable.get("pods", 0):
            reasons.append("Too many pods")
        for name, amount in prepared:
            have = node.allocatable.get(name, 0)
            if amount > have - node.requested[name]:
                reasons.append(f"Insufficient {name}")
                resolvable = resolvable and amount <= have
        return Reject(tuple(reasons), resolvable) if reasons else None

    def prepare_score(self, pod: PodInfo, nodes: Sequence[NodeInfo], everywhere: Sequence[NodeInfo]) -> Any:
        return None

    def score(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> float:
        """LeastAllocated: the mean free share of CPU and memory once the pod is there."""
        shares = [
            _free_share(node.allocatable.get("cpu", 0), node.usual_cpu + pod.usual[0]),
            _free_share(node.allocatable.get("memory", 0), node.usual_memory + pod.usual[1]),
        ]
        counted = [share for share in shares if share is not None]
        return sum(counted) // len(counted) if counted else 0

    def normalize(self, scores: Sequence[float], prepared: Any) -> Sequence[int]:
        return as_they_are(scores)


def _free_share(capacity: int, used: int) -> int | None:
    if capacity == 0:
        return None
    return 0 if used > capacity else (capacity - used) * MAX_SCORE // capacity


class NodeResourcesBalancedAllocation:
    name = "NodeResourcesBalancedAllocation"
    weight = 1

    def prepare_score(self, pod: PodInfo, nodes: Sequence[NodeInfo], everywhere: Sequence[NodeInfo]) -> Any:
        return SKIP if pod.best_effort else None

    def score(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> float:
        shares = [
            min(1.0, (node.requested[name] + pod.requests.get(name, 0)) / capacity)
            for name in ("cpu", "memory")
            if (capacity := node.allocatable.get(name, 0))
        ]
        deviation = abs(shares[0] - shares[1]) / 2 if len(shares) == 2 else 0.0
        return int((1 - deviation) * MAX_SCORE)

    def normalize(self, scores: Sequence[float], prepared: Any) -> Sequence[int]:
        return as_they_are(scores)
