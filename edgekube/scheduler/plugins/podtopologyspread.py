"""PodTopologySpread: pods of one kind lie evenly over zones, nodes or whatever a label divides the cluster into.

Only what pods themselves ask for: upstream's built-in preference for pods that ask for nothing (by the selectors of their Services and
owners) is not here; LeastAllocated already parts replicas over nodes.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekube.scheduler.affinity import HOSTNAME, SpreadConstraint
from edgekube.scheduler.framework import (
    MAX_SCORE,
    NODE_ADD,
    NODE_LABEL,
    NODE_TAINT,
    POD_ADD,
    POD_DELETE,
    POD_UPDATE,
    SKIP,
    TARGET_UPDATE,
    Reject,
)
from edgekube.scheduler.plugins.nodeaffinity import wanted
from edgekube.scheduler.plugins.tainttoleration import tolerated
from edgekube.scheduler.snapshot import NodeInfo, PodInfo

_SKEWED = Reject.of("node(s) didn't match pod topology spread constraints")
_NO_LABEL = Reject.of("node(s) didn't match pod topology spread constraints (missing required label)", resolvable=False)


@dataclass(frozen=True, slots=True)
class _Spread:
    constraint: SpreadConstraint
    counts: Counter[str]  # matching pods per domain
    domains: frozenset[str]
    weight: float = 1.0

    @property
    def least(self) -> int:
        if len(self.domains) < self.constraint.min_domains:
            return 0
        return min((self.counts[domain] for domain in self.domains), default=0)


class PodTopologySpread:
    name = "PodTopologySpread"
    wakes_on = (NODE_ADD, NODE_LABEL, NODE_TAINT, POD_ADD, POD_UPDATE, POD_DELETE, TARGET_UPDATE)
    weight = 2

    def prepare(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Any:
        hard = [constraint for constraint in pod.spread if constraint.hard]
        return [_measure(pod, constraint, hard, nodes) for constraint in hard] if hard else SKIP

    def filter(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> Reject | None:
        for spread in prepared:
            constraint = spread.constraint
            domain = node.labels.get(constraint.topology)
            if domain is None:
                return _NO_LABEL
            own = 1 if constraint.selector.matches(pod.labels) else 0
            if spread.counts[domain] + own - spread.least > constraint.max_skew:
                return _SKEWED
        return None

    def prepare_score(self, pod: PodInfo, nodes: Sequence[NodeInfo], everywhere: Sequence[NodeInfo]) -> Any:
        soft = [constraint for constraint in pod.spread if not constraint.hard]
        if not soft:
            return SKIP
        found = []
        for constraint in soft:
            spread = _measure(pod, constraint, soft, everywhere)
            domains = {node.labels[constraint.topology] for node in nodes if constraint.topology in node.labels}
            size = len(nodes) if constraint.topology == HOSTNAME else len(domains)
            found.append(_Spread(constraint, spread.counts, spread.domains, math.log(size + 2)))
        return found

    def score(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> float:
        """Weighted pods in the node's domains, fewer being better; -1 for a node that lacks a label."""
        if any(spread.constraint.topology not in node.labels for spread in prepared):
            return -1
        total = 0.0
        for spread in prepared:
            total += spread.counts[node.labels[spread.constraint.topology]] * spread.weight + (spread.constraint.max_skew - 1)
        return round(total)

    def normalize(self, scores: Sequence[float], prepared: Any) -> Sequence[int]:
        counted = [score for score in scores if score >= 0]
        low, high = min(counted, default=0), max(counted, default=0)
        if high == 0:
            return [MAX_SCORE if score >= 0 else 0 for score in scores]
        return [int(MAX_SCORE * (high + low - score) / high) if score >= 0 else 0 for score in scores]


def _measure(pod: PodInfo, constraint: SpreadConstraint, together: Sequence[SpreadConstraint], nodes: Sequence[NodeInfo]) -> _Spread:
    """Count matching pods per domain, on nodes that have the labels of all constraints and are open to the pod as its policies say."""
    counts: Counter[str] = Counter()
    domains = set()
    for node in nodes:
        if any(other.topology not in node.labels for other in together) or not _counts_for(pod, constraint, node):
            continue
        domain = node.labels[constraint.topology]
        domains.add(domain)
        for other in node.pods.values():
            if other.key.namespace == pod.key.namespace and not other.deleting and constraint.selector.matches(other.labels):
                counts[domain] += 1
    return _Spread(constraint, counts, frozenset(domains))


def _counts_for(pod: PodInfo, constraint: SpreadConstraint, node: NodeInfo) -> bool:
    if constraint.honor_affinity and not wanted(pod, node):
        return False
    if not constraint.honor_taints:
        return True
    return all(taint.get("effect") == "PreferNoSchedule" or tolerated(taint, pod.tolerations) for taint in node.taints)
