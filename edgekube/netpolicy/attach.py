"""The pod network with policies in front: an address is handed to the kubelet only when the kernel judges its traffic.

The pod's namespace holds no process before that, so no packet of a pod that a known policy selects goes unjudged; what others see of the
new pod (as a peer that they admit) follows at once on this node, and elsewhere when the server has told.
"""

from collections.abc import Sequence
from typing import Protocol

from edgekube.netpolicy.component import NodePolicies


class Network(Protocol):
    """The pod network below (the kubelet's PodNetwork)."""

    async def attach(self, uid: str, netns: str, wanted: Sequence[str] = ()) -> Sequence[str]: ...

    async def detach(self, uid: str) -> None: ...

    def addresses(self, uid: str) -> Sequence[str]: ...

    async def retain(self, uids: Sequence[str]) -> None: ...


class PolicedNetwork:
    """A PodNetwork."""

    def __init__(self, network: Network, policies: NodePolicies) -> None:
        self._network, self._policies = network, policies

    async def attach(self, uid: str, netns: str, wanted: Sequence[str] = ()) -> Sequence[str]:
        """Raises NotIsolated, and what the network raises."""
        addresses = await self._network.attach(uid, netns, wanted)
        await self._policies.isolate(uid)
        return addresses

    async def detach(self, uid: str) -> None:
        await self._network.detach(uid)
        self._policies.forget(uid)

    def addresses(self, uid: str) -> Sequence[str]:
        return self._network.addresses(uid)

    async def retain(self, uids: Sequence[str]) -> None:
        await self._network.retain(uids)
