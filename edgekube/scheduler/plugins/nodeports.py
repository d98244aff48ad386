"""NodePorts: two pods can not have the same port of one node."""

from collections.abc import Sequence
from typing import Any

from edgekube.scheduler.framework import NODE_ADD, POD_DELETE, POD_UPDATE, SKIP, Reject
from edgekube.scheduler.snapshot import HostPort, NodeInfo, PodInfo

_REASON = Reject.of("node(s) didn't have free ports for the requested pod ports")
_ANY = "0.0.0.0"


class NodePorts:
    name = "NodePorts"
    wakes_on = (NODE_ADD, POD_DELETE, POD_UPDATE)

    def prepare(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Any:
        return None if pod.host_ports else SKIP

    def filter(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> Reject | None:
        return _REASON if any(_clash(port, taken) for port in pod.host_ports for taken in node.ports) else None


def _clash(one: HostPort, other: HostPort) -> bool:
    return one[1:] == other[1:] and (one[0] == other[0] or _ANY in (one[0], other[0]))
