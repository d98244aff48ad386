"""The plugins, in upstream's order: the first filter that rejects a node gives the reason people read."""

from collections.abc import Callable, Sequence

from edgekube.scheduler.framework import FilterPlugin, NodeNarrower, ScorePlugin
from edgekube.scheduler.plugins.imagelocality import ImageLocality
from edgekube.scheduler.plugins.interpodaffinity import InterPodAffinity, NamespaceLabels
from edgekube.scheduler.plugins.nodeaffinity import NodeAffinity
from edgekube.scheduler.plugins.nodename import NodeName
from edgekube.scheduler.plugins.nodeports import NodePorts
from edgekube.scheduler.plugins.noderesources import NodeResourcesBalancedAllocation, NodeResourcesFit
from edgekube.scheduler.plugins.nodeunschedulable import NodeUnschedulable
from edgekube.scheduler.plugins.podtopologyspread import PodTopologySpread
from edgekube.scheduler.plugins.tainttoleration import TaintToleration


class Plugins:
    """All plugins of one scheduler. `namespaces` gives the labels of every namespace."""

    def __init__(self, namespaces: Callable[[], NamespaceLabels]) -> None:
        taints, affinity, resources, spread = TaintToleration(), NodeAffinity(), NodeResourcesFit(), PodTopologySpread()
        between = InterPodAffinity(namespaces)
        self.filters: Sequence[FilterPlugin] = (
            NodeUnschedulable(),
            NodeName(),
            taints,
            affinity,
            NodePorts(),
            resources,
            spread,
            between,
        )
        self.narrowers: Sequence[NodeNarrower] = (affinity,)
        self.scores: Sequence[ScorePlugin] = (
            taints,
            affinity,
            resources,
            NodeResourcesBalancedAllocation(),
            spread,
            between,
            ImageLocality(),
        )
