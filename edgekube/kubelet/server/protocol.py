"""What the node's API needs to know from the kubelet. Implemented by the pod manager; tests have a small one of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgekube.api.types import Obj
from edgekube.kubelet.runtime.protocol import PodRef, Sandbox


@dataclass(frozen=True, slots=True)
class KnownPod:
    """A pod of this node. `obj` is the whole Pod with the newest status the kubelet has (`containerID` is `podman://<id>`); read only."""

    ref: PodRef
    obj: Obj
    sandbox: Sandbox | None  # None: no sandbox yet, or no more


class Pods(Protocol):
    """The pods this node knows, from memory: no call blocks."""

    def pods(self) -> Sequence[KnownPod]:
        """All pods bound to this node, the terminated ones too."""

    def find(self, namespace: str, name: str, uid: str = "") -> KnownPod | None:
        """By name; with `uid`, only that very pod."""


class NodeStats(Protocol):
    """Usage of the machine and of the pods' volumes, for /stats/summary. Numbers in the units of the Summary API."""

    async def node(self) -> Mapping[str, Any]:
        """The `node` part of a Summary without `nodeName`: cpu, memory, fs, runtime, rlimit, network, startTime."""

    async def volumes(self, pod: KnownPod) -> Sequence[Mapping[str, Any]]:
        """`volume` entries of a PodStats."""

    async def network(self, pod: KnownPod) -> Mapping[str, Any] | None:
        """`network` of a PodStats."""
