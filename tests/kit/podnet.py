"""The pod network of one host, made by the real code without a node: for tests of what runs on top of it.

prepare_host(netns); connect_pod(netns, pod_netns, "10.42.0.7")
"""

from edgekube.network import kernel, links
from edgekube.network.links import Attachment, PodLink
from edgekube.network.model import OverlayConfig, Peer
from edgekube.network.plan import plan_node
from tests.kit import netns as ns


def on(path, work, *args, **kwargs):
    """A function of the network thread, in a namespace."""

    def run():
        from pyroute2 import IPRoute

        with IPRoute() as route:
            return work(route, *args, **kwargs)

    return ns.call_inside(path, run)


def prepare_host(path, *, ranges=("10.42.0.0/24",), services=("10.43.0.0/16",), dns=("10.43.0.10",), instance="t"):
    """The node's own addresses and the way to Services."""
    wanted = plan_node(Peer("n", tuple(ranges), ()), services=services, dns=dns)
    families = (4, 6) if len(ranges) > 1 else (4,)
    on(path, kernel.reconcile, wanted, OverlayConfig(instance=instance), pods=(), families=families)


def connect_pod(path, netns, *addresses, uid="", instance="t", sources=None, mtu=links.MTU):
    """A pod's link; the attachment."""
    uid = uid or addresses[0]
    wanted = Attachment(uid, links.link_name(instance, uid), addresses)
    return on(path, links.ensure_pod, wanted, PodLink(instance=instance, sources=sources or {4: "10.42.0.1"}, mtu=mtu), netns=netns)
