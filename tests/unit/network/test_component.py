"""The network component over real links: what an earlier run attached is known before it is ready, with or without a pod range."""

import asyncio

import pytest

from edgekube.api.catalog import NODE
from edgekube.lib.clock import SystemClock
from edgekube.network.addresses import HostAddresses
from edgekube.network.component import NetworkConfig, NodeNetwork
from edgekube.network.model import OverlayConfig
from tests.kit import netns as ns
from tests.kit.apiserver import live_server
from tests.kit.podnet import connect_pod, prepare_host
from tests.kit.requires import needs

pytestmark = needs("root", "netns")

CONFIG = NetworkConfig(node_name="n1", service_cidrs=("10.43.0.0/16",), dns=("10.43.0.10",), overlay=OverlayConfig(instance="i"))
FIRST = "10.42.0.2"


@pytest.fixture
def places():
    """A host and two pods."""
    with ns.namespace() as host, ns.namespace() as one, ns.namespace() as two:
        yield host, one, two


async def adopt_then_attach(netns):
    """Addresses told at readiness without a Node, and the one given to a second pod once there is a range."""
    async with live_server() as live, asyncio.TaskGroup() as group:
        addresses = HostAddresses(cluster=("10.42.0.0/16",))
        network, ready = NodeNetwork(config=CONFIG, client=live.client, addresses=addresses, clock=SystemClock()), asyncio.Event()
        running = group.create_task(network.run(ready))
        await ready.wait()
        adopted = network.addresses("u1"), network.ready
        await live.client.create(
            NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"podCIDR": "10.42.0.0/24"}}
        )
        given = await network.attach("u2", netns)
        running.cancel()
    return adopted, given


def test_the_address_of_an_attached_pod_is_known_at_readiness_and_not_given_again(places):
    host, one, two = places
    prepare_host(host, instance="i")
    connect_pod(host, one, FIRST, uid="u1", instance="i")
    adopted, given = ns.call_inside(host, lambda: asyncio.run(adopt_then_attach(two)))
    assert adopted == ((FIRST,), False)
    assert given == ("10.42.0.3",)
