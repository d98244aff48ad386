"""Node ranges: every node has its own part of each of the cluster's pod ranges (one for each family) in spec.podCIDRs.

Reads and writes nodes; writes Events. One key stands for all nodes, so that no two get the same part: the runner's wait for our own writes
covers every assignment before. A range that a node has is never changed, and is free again when the node is gone: nodes that had to wait
get it then. A node has a part of every range or none.
"""

import ipaddress
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from edgekube.api.catalog import NODE
from edgekube.api.item import Item
from edgekube.client.recorder import NORMAL
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.errors import NotFound


@dataclass(frozen=True, slots=True)
class AllNodes:
    """The one key."""


class NodeIpamController(Base):
    name = "node-controller"
    workers = 1

    def __init__(self, tools: Tools, *, cluster_cidrs: Sequence[str]) -> None:
        super().__init__(tools)
        self._ranges = [ipaddress.ip_network(cidr) for cidr in cluster_cidrs]

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(NODE, _of_node),)

    async def reconcile(self, _key: AllNodes) -> Result:
        nodes = [item.decode() for item in self.cache.list(NODE)]
        used = [
            cidr for node in nodes for cidr in node.get("spec", {}).get("podCIDRs") or [node.get("spec", {}).get("podCIDR", "")] if cidr
        ]
        needy = sorted(
            (node for node in nodes if not node.get("spec", {}).get("podCIDR") and "deletionTimestamp" not in node["metadata"]),
            key=lambda node: (node["metadata"].get("creationTimestamp") or "", node["metadata"]["name"]),
        )
        if not needy:
            return DONE
        free = list(zip(*(plan_ranges(whole, node_mask(whole), used, len(needy)) for whole in self._ranges), strict=False))
        for number, node in enumerate(needy):
            name = node["metadata"]["name"]
            if number >= len(free):
                ref = {"kind": "Node", "apiVersion": "v1", "name": name, "uid": name}
                self.events.event(ref, NORMAL, "CIDRNotAvailable", f"Node {name} status is now: CIDRNotAvailable")
                continue
            try:
                await self.client.patch(NODE, name, "", {"spec": {"podCIDR": free[number][0], "podCIDRs": list(free[number])}})
            except NotFound:
                continue
        return DONE


def _of_node(old: Item | None, new: Item | None) -> Iterable[Hashable]:
    """One came without a range or went; heartbeats are not our concern."""
    if new is None or old is None or old.uid != new.uid:
        yield AllNodes()


def node_mask(whole: ipaddress.IPv4Network | ipaddress.IPv6Network) -> int:
    """Size of one node's part: /24 and /64, as upstream; the whole range if it is no bigger."""
    return max(24 if whole.version == 4 else 64, whole.prefixlen)


def plan_ranges(whole: ipaddress.IPv4Network | ipaddress.IPv6Network, mask: int, used: Iterable[str], count: int) -> Sequence[str]:
    """The first `count` parts (or as many as there are) that overlap nothing used."""
    networks = [network for network in map(ipaddress.ip_network, used) if network.version == whole.version]
    taken = sorted((int(network.network_address), int(network.broadcast_address)) for network in networks)
    size = 1 << (whole.max_prefixlen - mask)
    first, last = int(whole.network_address), int(whole.broadcast_address)
    free: list[str] = []
    while first + size - 1 <= last and len(free) < count:
        while taken and taken[0][1] < first:
            taken.pop(0)
        if not taken or taken[0][0] >= first + size:
            free.append(f"{ipaddress.ip_address(first) if whole.version == 4 else ipaddress.IPv6Address(first)}/{mask}")
        first += size
    return free
