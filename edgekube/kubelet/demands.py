"""What each pod takes from the node, worked out once for each version of its spec: adding a pod must not read all the others again.

Pure but for what it remembers. `Demands` forgets a pod when told to; a changed spec (a resize) is noticed by itself.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgekube.api import pods as pod_facts
from edgekube.api.types import Obj
from edgekube.kubelet.resources import effective_requests


class Demand(NamedTuple):
    """`burstable` is the CPU (milli) it brings to the Burstable class; 0 for pods of the other classes."""

    requests: Mapping[str, int]
    ports: Sequence[tuple[str, str, int]]
    burstable: int


def demand(pod: Obj) -> Demand:
    """Of one pod."""
    requests = effective_requests(pod)
    burstable = requests.get("cpu", 0) if pod_facts.qos_class(pod) == "Burstable" else 0
    return Demand(requests, tuple(pod_facts.host_ports(pod)), burstable)


class Demands:
    """By uid."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Obj, Demand]] = {}

    def of(self, pod: Obj) -> Demand:
        uid, spec = pod["metadata"]["uid"], pod["spec"]
        known = self._known.get(uid)
        if known is not None and known[0] is spec:
            return known[1]
        found = known[1] if known is not None and known[0] == spec else demand(pod)
        self._known[uid] = (spec, found)  # the newest spec, so that the old version's dict does not live on
        return found

    def drop(self, uid: str) -> None:
        self._known.pop(uid, None)
