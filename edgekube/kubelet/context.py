"""What every worker of this node shares: one frozen bundle, built by component.py."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from edgekube.api.types import Obj
from edgekube.kubelet.config import KubeletConfig
from edgekube.kubelet.happenings import PodEvents
from edgekube.kubelet.images import Images
from edgekube.kubelet.objects import PodObjects
from edgekube.kubelet.probes import Probes
from edgekube.kubelet.reporter import Reporter
from edgekube.kubelet.runtime.cgroups import Limits
from edgekube.kubelet.runtime.protocol import PodNetwork, Runtime
from edgekube.kubelet.volumes.manager import Volumes
from edgekube.lib.clock import Clock


class Groups(Protocol):
    """Pod cgroups: runtime.cgroups.PodGroups, or a twin in tests."""

    def ensure_root(self, limits: Limits) -> None: ...

    def share_out(self, burstable_milli: int) -> None: ...

    def ensure_pod(self, uid: str, qos: str, limits: Limits) -> str: ...

    def pods(self) -> Mapping[str, str]: ...

    def remove_pod(self, uid: str) -> bool: ...


class Interruptible(Protocol):
    """A pod that is to be killed does not wait for a pull or a hook: what runs inside may be cancelled then."""

    def interruptible(self) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    config: KubeletConfig
    clock: Clock
    runtime: Runtime
    network: PodNetwork
    groups: Groups
    events: PodEvents
    images: Images
    volumes: Volumes
    probes: Probes
    objects: PodObjects
    reporter: Reporter
    services: Callable[[str], Iterable[Obj]]  # of a namespace, and default/kubernetes
    host_ips: Callable[[], Sequence[str]]
    allocatable: Callable[[], Mapping[str, str]]
    memory: int  # of the node, bytes
    may_run: Callable[[Obj], str | None]  # why a pod's containers must not be started now
    must_end: Callable[[Obj], float | None] = lambda _pod: None  # seconds within which they must have ended; None: they may run on
