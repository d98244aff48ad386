"""Find the node for one pod: pure, no awaits, over live projections.

narrow (plugins that know the node names) -> filter (first rejecting plugin of each node) -> score (normalise, weigh, add) -> choose
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekube.scheduler.framework import SKIP, FilterPlugin, Reject
from edgekube.scheduler.plugins import Plugins
from edgekube.scheduler.snapshot import NodeInfo, PodInfo

NO_NODES = "no nodes available to schedule pods"
_NOT_HELPFUL = "Preemption is not helpful for scheduling"
_NO_VICTIMS = "No preemption victims found for incoming pod"


@dataclass(frozen=True, slots=True)
class Unfit:
    """No node will do. `message` is what people read, `rejecters` the plugins whose veto counted."""

    message: str
    rejecters: frozenset[str]


def find_node(pod: PodInfo, nodes: Sequence[NodeInfo], plugins: Plugins, chance: random.Random) -> str | Unfit:
    """The name of the best node, one of the best at random, or why there is none."""
    if not nodes:
        return Unfit(NO_NODES, frozenset())
    fitting, rejected, rejecters = _filter(pod, nodes, plugins)
    if not fitting:
        return Unfit(_explain(pod, len(nodes), rejected), rejecters)
    if len(fitting) == 1:
        return fitting[0].name
    totals = _score(pod, fitting, nodes, plugins)
    best = max(totals)
    return chance.choice([node.name for node, total in zip(fitting, totals, strict=True) if total == best])


def _filter(
    pod: PodInfo, nodes: Sequence[NodeInfo], plugins: Plugins
) -> tuple[list[NodeInfo], list[tuple[NodeInfo, Reject]], frozenset[str]]:
    active: list[tuple[FilterPlugin, Any]] = []
    for plugin in plugins.filters:
        prepared = plugin.prepare(pod, nodes)
        if prepared is not SKIP:
            active.append((plugin, prepared))
    named = [(plugin.name, names) for plugin in plugins.narrowers if (names := plugin.candidates(pod)) is not None]
    fitting: list[NodeInfo] = []
    rejected: list[tuple[NodeInfo, Reject]] = []
    rejecters: set[str] = set()
    for node in nodes:
        outside = [name for name, names in named if node.name not in names]
        if outside:
            rejecters.update(outside)
            rejected.append((node, Reject.of(f"node(s) didn't satisfy plugin(s) [{' '.join(outside)}]", resolvable=False)))
            continue
        for plugin, prepared in active:
            verdict = plugin.filter(pod, node, prepared)
            if verdict is not None:
                rejecters.add(plugin.name)
                rejected.append((node, verdict))
                break
        else:
            fitting.append(node)
    return fitting, rejected, frozenset(rejecters)


def _score(pod: PodInfo, fitting: Sequence[NodeInfo], everywhere: Sequence[NodeInfo], plugins: Plugins) -> list[int]:
    totals = [0] * len(fitting)
    for plugin in plugins.scores:
        prepared = plugin.prepare_score(pod, fitting, everywhere)
        if prepared is SKIP:
            continue
        scores = plugin.normalize([plugin.score(pod, node, prepared) for node in fitting], prepared)
        for index, score in enumerate(scores):
            totals[index] += score * plugin.weight
    return totals


def _explain(pod: PodInfo, total: int, rejected: Sequence[tuple[NodeInfo, Reject]]) -> str:
    reasons = [reason for _, verdict in rejected for reason in verdict.reasons]
    preemption = _preemption(pod, total, rejected)
    return f"{_available(total, reasons)} preemption: {preemption}" if preemption else _available(total, reasons)


def _preemption(pod: PodInfo, total: int, rejected: Sequence[tuple[NodeInfo, Reject]]) -> str:
    """Why no pod makes room for this one. "": some could, which is not for us to say."""
    if not pod.preempts:
        return "not eligible due to preemptionPolicy=Never."
    if any(verdict.resolvable and other.priority < pod.priority for node, verdict in rejected for other in node.pods.values()):
        return ""
    return _available(total, [_NO_VICTIMS if verdict.resolvable else _NOT_HELPFUL for _, verdict in rejected])


def _available(total: int, reasons: Sequence[str]) -> str:
    counted = sorted(f"{count} {reason}" for reason, count in Counter(reasons).items())
    return f"0/{total} nodes are available: {', '.join(counted)}."
