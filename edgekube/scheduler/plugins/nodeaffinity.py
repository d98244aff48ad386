"""NodeAffinity: nodeSelector and node affinity, required and preferred."""

from collections.abc import Sequence
from typing import Any

from edgekube.scheduler.framework import NODE_ADD, NODE_LABEL, SKIP, TARGET_UPDATE, Reject, spread_out
from edgekube.scheduler.snapshot import NodeInfo, PodInfo

_REASON = Reject.of("node(s) didn't match Pod's node affinity/selector", resolvable=False)


def wanted(pod: PodInfo, node: NodeInfo) -> bool:
    """Whether the node satisfies what the pod requires of labels and name."""
    if any(node.labels.get(key) != value for key, value in pod.node_selector.items()):
        return False
    return pod.required_nodes is None or any(term.matches(node.name, node.labels) for term in pod.required_nodes)


class NodeAffinity:
    name = "NodeAffinity"
    wakes_on = (NODE_ADD, NODE_LABEL, TARGET_UPDATE)
    weight = 2

    def candidates(self, pod: PodInfo) -> frozenset[str] | None:
        """Terms are alternatives: only if each names its nodes is the choice narrowed."""
        if not pod.required_nodes:
            return None
        found: set[str] = set()
        for term in pod.required_nodes:
            names = term.names()
            if names is None:
                return None
            found |= names
        return frozenset(found)

    def prepare(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Any:
        return SKIP if not pod.node_selector and pod.required_nodes is None else None

    def filter(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> Reject | None:
        return None if wanted(pod, node) else _REASON

    def prepare_score(self, pod: PodInfo, nodes: Sequence[NodeInfo], everywhere: Sequence[NodeInfo]) -> Any:
        return None if pod.preferred_nodes else SKIP

    def score(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> float:
        return sum(weight for weight, term in pod.preferred_nodes if term.matches(node.name, node.labels))

    def normalize(self, scores: Sequence[float], prepared: Any) -> Sequence[int]:
        return spread_out(scores)
