"""Memory and disk running out: conditions, and pods evicted before the kernel picks victims by itself.

Hard thresholds as upstream: memory.available below the configured amount, nodefs.available < 10 %, nodefs.inodesFree < 5 %.
A pressure condition stays for 5 minutes after it has passed. One pod at a time, ranked: over its request first, then by priority,
then by how much over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekube.api import pods as pod_facts
from edgekube.api import quantity
from edgekube.api.types import Obj
from edgekube.kubelet import machine as machines
from edgekube.kubelet.config import KubeletConfig
from edgekube.kubelet.nodestatus import Health
from edgekube.kubelet.worker import Failure
from edgekube.lib.clock import Clock

STICKY = 300.0


@dataclass(frozen=True, slots=True)
class Usage:
    """A pod and what it uses."""

    pod: Obj
    memory: int

    @property
    def request(self) -> int:
        return pod_facts.requests(self.pod).get("memory", 0)


def rank(usages: Sequence[Usage]) -> list[Usage]:
    """The first one goes first. Critical pods are not in it."""

    def order(one: Usage) -> tuple[bool, int, int]:
        return one.memory <= one.request, int(one.pod["spec"].get("priority") or 0), one.request - one.memory

    return sorted((one for one in usages if not is_critical(one.pod)), key=order)


def is_critical(pod: Obj) -> bool:
    return int(pod["spec"].get("priority") or 0) >= 2_000_000_000


def eviction_failure(victim: Usage, *, threshold: int, available: int) -> Failure:
    used, asked = quantity.format_bytes(victim.memory), quantity.format_bytes(victim.request)
    message = (
        f"The node was low on resource: memory. Threshold quantity: {quantity.format_bytes(threshold)}, "
        f"available: {available // 1024}Ki. Pod was using {used}, request is {asked}, has larger consumption of memory. "
    )
    return Failure("Evicted", message, grace=1.0, disruption=("TerminationByKubelet", message))


class Pressure:
    """What the last look at the machine said. `look` is called at each beat of the node."""

    def __init__(self, *, config: KubeletConfig, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._since: dict[str, float] = {}
        self.available = 0
        self.disk = machines.Disk(0, 0, 0, 0)
        self.disk_short = False  # now, while the condition lasts for a while after it

    def look(self) -> Health:
        config = self._config
        self.available = machines.available_memory()
        found = self.disk = machines.disk(config.data_dir)
        inodes = found.inodes > 0 and found.inodes_free < found.inodes * config.eviction_inodes_fraction
        now: Mapping[str, bool] = {
            "memory": 0 < self.available < config.eviction_memory,
            "disk": found.available < found.total * config.eviction_disk_fraction or inodes,
        }
        self.disk_short = now["disk"]
        moment = self._clock.monotonic()
        for name, on in now.items():
            if on:
                self._since[name] = moment
        return Health(memory=self._holds("memory", moment), disk=self._holds("disk", moment))

    def _holds(self, name: str, moment: float) -> bool:
        return name in self._since and moment - self._since[name] < STICKY

    @property
    def must_evict(self) -> bool:
        return 0 < self.available < self._config.eviction_memory
