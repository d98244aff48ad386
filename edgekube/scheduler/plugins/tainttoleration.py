"""TaintToleration: taints keep pods away that do not tolerate them; of the rest, nodes with fewer such soft taints are better."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgekube.scheduler.framework import NODE_ADD, NODE_TAINT, SKIP, TARGET_UPDATE, Reject, spread_out
from edgekube.scheduler.snapshot import NodeInfo, PodInfo

_REASON = Reject.of("node(s) had untolerated taint(s)", resolvable=False)
_HARD = frozenset(("NoSchedule", "NoExecute"))


def tolerated(taint: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any toleration covers the taint."""
    return any(_covers(toleration, taint) for toleration in tolerations)


def _covers(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    if not toleration.get("key"):
        return False
    return bool(operator == "Equal" and (toleration.get("value") or "") == (taint.get("value") or ""))


class TaintToleration:
    name = "TaintToleration"
    wakes_on = (NODE_ADD, NODE_TAINT, TARGET_UPDATE)
    weight = 3

    def prepare(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Any:
        return None

    def filter(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> Reject | None:
        if all(taint.get("effect") not in _HARD or tolerated(taint, pod.tolerations) for taint in node.taints):
            return None
        return _REASON

    def prepare_score(self, pod: PodInfo, nodes: Sequence[NodeInfo], everywhere: Sequence[NodeInfo]) -> Any:
        if not any(taint.get("effect") == "PreferNoSchedule" for node in nodes for taint in node.taints):
            return SKIP
        return [t for t in pod.tolerations if t.get("effect") in (None, "", "PreferNoSchedule")]

    def score(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> float:
        return sum(1 for taint in node.taints if taint.get("effect") == "PreferNoSchedule" and not tolerated(taint, prepared))

    def normalize(self, scores: Sequence[float], prepared: Any) -> Sequence[int]:
        return spread_out(scores, reverse=True)
