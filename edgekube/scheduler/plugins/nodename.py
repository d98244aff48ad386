"""NodeName: a pod that names its node goes nowhere else."""

from collections.abc import Sequence
from typing import Any

from edgekube.scheduler.framework import NODE_ADD, SKIP, Reject
from edgekube.scheduler.snapshot import NodeInfo, PodInfo

_REASON = Reject.of("node(s) didn't match the requested node name", resolvable=False)


class NodeName:
    name = "NodeName"
    wakes_on = (NODE_ADD,)

    def prepare(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Any:
        return None if pod.node else SKIP

    def filter(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> Reject | None:
        return None if pod.node == node.name else _REASON
