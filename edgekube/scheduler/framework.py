"""What a scheduler plugin is, and the changes in the cluster that can free a rejected pod.

A plugin is pure: it sees projections and answers. `prepare` and `prepare_score` run once per pod and may look at all nodes; SKIP leaves the
plugin out for this pod. `wakes_on` names the changes after which a pod that this plugin rejected deserves another try.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from edgekube.scheduler.snapshot import NodeInfo, PodInfo

MAX_SCORE = 100
SKIP: Final = object()

# changes, named as upstream's cluster events (they are label values of scheduler_queue_incoming_pods_total)
NODE_ADD = "NodeAdd"
NODE_ALLOCATABLE = "NodeUpdate/Allocatable"
NODE_LABEL = "NodeUpdate/Label"
NODE_TAINT = "NodeUpdate/Taint"
POD_ADD = "AssignedPodAdd"
POD_UPDATE = "AssignedPodUpdate"
POD_DELETE = "AssignedPodDelete"
TARGET_UPDATE = "UnscheduledPodUpdate"
CHANGES = (NODE_ADD, NODE_ALLOCATABLE, NODE_LABEL, NODE_TAINT, POD_ADD, POD_UPDATE, POD_DELETE, TARGET_UPDATE)


@dataclass(frozen=True, slots=True)
class Reject:
    """Why a node will not do. `resolvable`: removing pods from the node could help."""

    reasons: tuple[str, ...]
    resolvable: bool = True

    @classmethod
    def of(cls, reason: str, *, resolvable: bool = True) -> "Reject":
        return cls((reason,), resolvable)


class FilterPlugin(Protocol):
    """Says of one node whether the pod may run there."""

    name: str

    @property
    def wakes_on(self) -> Sequence[str]: ...

    def prepare(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Any:
        """What `filter` needs and is the same for all nodes; SKIP: no node will be rejected."""

    def filter(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> Reject | None: ...


class NodeNarrower(Protocol):
    """A filter that knows by name which few nodes can do at all (a DaemonSet's pods name theirs)."""

    name: str

    def candidates(self, pod: PodInfo) -> frozenset[str] | None:
        """None: any node."""


class ScorePlugin(Protocol):
    """Says how well a node would do."""

    name: str
    weight: int

    def prepare_score(self, pod: PodInfo, nodes: Sequence[NodeInfo], everywhere: Sequence[NodeInfo]) -> Any:
        """`nodes` passed the filters, `everywhere` are all. SKIP: this plugin has no opinion."""

    def score(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> float: ...

    def normalize(self, scores: Sequence[float], prepared: Any) -> Sequence[int]:
        """The raw scores of all nodes as 0 to MAX_SCORE."""


def spread_out(scores: Sequence[float], *, reverse: bool = False) -> Sequence[int]:
    """The usual normalisation: the highest becomes MAX_SCORE, the others in proportion; `reverse`: fewer is better."""
    highest = max(scores, default=0)
    if highest == 0:
        return [MAX_SCORE if reverse else int(score) for score in scores]
    scaled = [int(score * MAX_SCORE / highest) for score in scores]
    return [MAX_SCORE - score for score in scaled] if reverse else scaled


def as_they_are(scores: Sequence[float]) -> Sequence[int]:
    return [int(score) for score in scores]
