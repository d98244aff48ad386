"""InterPodAffinity: near these pods, far from those, and what pods already there said about newcomers.

Works on topology pairs (label key, value): every rule counts matching pods per pair once for all nodes, then each node is judged by its own
pairs. Needs the labels of namespaces for terms with a namespaceSelector.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekube.scheduler.affinity import PodTerm
from edgekube.scheduler.framework import (
    MAX_SCORE,
    NODE_ADD,
    NODE_LABEL,
    POD_ADD,
    POD_DELETE,
    POD_UPDATE,
    SKIP,
    TARGET_UPDATE,
    Reject,
)
from edgekube.scheduler.snapshot import NodeInfo, PodInfo

_NEAR = Reject.of("node(s) didn't match pod affinity rules", resolvable=False)
_FAR = Reject.of("node(s) didn't match pod anti-affinity rules")
_THEIRS = Reject.of("node(s) didn't satisfy existing pods anti-affinity rules")
_HARD_WEIGHT = 1  # what a required affinity of a pod there is worth to a newcomer it would like to have

Pair = tuple[str, str]
NamespaceLabels = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class _Counts:
    near: Counter[Pair]  # pods that match all affinity terms of the newcomer
    far: Counter[Pair]  # pods that match one of its anti-affinity terms
    theirs: Counter[Pair]  # pods whose anti-affinity matches the newcomer
    alone: bool  # no pod matches the affinity, but the newcomer itself does: the first of its group


class InterPodAffinity:
    name = "InterPodAffinity"
    wakes_on = (NODE_ADD, NODE_LABEL, POD_ADD, POD_UPDATE, POD_DELETE, TARGET_UPDATE)
    weight = 2

    def __init__(self, namespaces: Callable[[], NamespaceLabels]) -> None:
        self._namespaces = namespaces

    def prepare(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Any:
        namespaces: NamespaceLabels | None = None
        near, far, theirs = Counter[Pair](), Counter[Pair](), Counter[Pair]()
        own = bool(pod.affinity or pod.anti_affinity)
        for node in nodes:
            for other in node.pods.values():
                if not own and not other.anti_affinity:
                    continue
                namespaces = self._namespaces() if namespaces is None else namespaces
                _count(theirs, node, [t for t in other.anti_affinity if _speaks_of(t, pod, namespaces)])
                if pod.affinity and all(_speaks_of(term, other, namespaces) for term in pod.affinity):
                    _count(near, node, pod.affinity)
                _count(far, node, [t for t in pod.anti_affinity if _speaks_of(t, other, namespaces)])
        if not own and not theirs:
            return SKIP
        alone = not near and bool(pod.affinity) and all(_speaks_of(t, pod, self._namespaces()) for t in pod.affinity)
        return _Counts(near, far, theirs, alone)

    def filter(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> Reject | None:
        labels = node.labels
        for term in pod.affinity:
            value = labels.get(term.topology)
            if value is None or not (prepared.near[term.topology, value] or prepared.alone):
                return _NEAR
        if any((value := labels.get(t.topology)) is not None and prepared.far[t.topology, value] for t in pod.anti_affinity):
            return _FAR
        if prepared.theirs and any(labels.get(key) == value for key, value in prepared.theirs):
            return _THEIRS
        return None

    def prepare_score(self, pod: PodInfo, nodes: Sequence[NodeInfo], everywhere: Sequence[NodeInfo]) -> Any:
        found: Counter[Pair] = Counter()
        namespaces = self._namespaces()
        for node in everywhere:
            for other in node.pods.values():
                for weight, term in pod.preferred_pods:
                    if _speaks_of(term, other, namespaces):
                        _count(found, node, [term], weight)
                for weight, term in other.preferred_pods:
                    if _speaks_of(term, pod, namespaces):
                        _count(found, node, [term], weight)
                _count(found, node, [t for t in other.affinity if _speaks_of(t, pod, namespaces)], _HARD_WEIGHT)
        return found if found else SKIP

    def score(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> float:
        pairs: Counter[Pair] = prepared
        return sum(weight for (key, value), weight in pairs.items() if node.labels.get(key) == value)

    def normalize(self, scores: Sequence[float], prepared: Any) -> Sequence[int]:
        low, high = min(scores, default=0), max(scores, default=0)
        return [int(MAX_SCORE * (score - low) / (high - low)) if high > low else 0 for score in scores]


def _speaks_of(term: PodTerm, pod: PodInfo, namespaces: NamespaceLabels) -> bool:
    return term.matches(pod.key.namespace, pod.labels, namespaces)


def _count(counter: Counter[Pair], node: NodeInfo, terms: Sequence[PodTerm], weight: int = 1) -> None:
    for term in terms:
        value = node.labels.get(term.topology)
        if value is not None:
            counter[term.topology, value] += weight
