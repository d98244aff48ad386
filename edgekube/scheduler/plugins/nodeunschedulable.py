"""NodeUnschedulable: cordoned nodes take only pods that tolerate it."""

from collections.abc import Sequence
from typing import Any

from edgekube.scheduler.framework import NODE_ADD, NODE_TAINT, TARGET_UPDATE, Reject
from edgekube.scheduler.plugins.tainttoleration import tolerated
from edgekube.scheduler.snapshot import NodeInfo, PodInfo

_TAINT = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
_REASON = Reject.of("node(s) were unschedulable", resolvable=False)


class NodeUnschedulable:
    name = "NodeUnschedulable"
    wakes_on = (NODE_ADD, NODE_TAINT, TARGET_UPDATE)

    def prepare(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Any:
        return tolerated(_TAINT, pod.tolerations)

    def filter(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> Reject | None:
        return _REASON if node.unschedulable and not prepared else None
