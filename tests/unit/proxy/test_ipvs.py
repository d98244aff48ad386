"""What IPVS is asked to carry, and what only that backend promises: draining, foreign virtual services, repair."""

import asyncio
import random
import socket

import pytest

from edgekube.proxy.backend import Node
from edgekube.proxy.ipvs import IpvsBackend, remove_ipvs
from edgekube.proxy.ipvslink import Destination, IpvsLink, Virtual
from edgekube.proxy.ipvsplan import MARK_FAMILY, Marks, is_carried, plan
from edgekube.proxy.model import ANY4, Endpoint, Front, Target, changes
from edgekube.proxy.ruleset import Frame
from tests.kit import netns as ns
from tests.kit.proxyhost import anything
from tests.kit.requires import needs

NODE = Node(instance="test", pods=("10.42.0.0/16",), services=("10.43.0.0/16",))
FRAME = Frame(table="edgekube_test", pods="10.42.0.0/16", services="10.43.0.0/16")
CLUSTER, PORTS, OUTER = Front("10.43.0.5", "tcp", 80), Front(ANY4, "tcp", 30080), Front("198.51.100.9", "tcp", 80)
ONE, TWO = Endpoint("10.42.0.1", 8080, True), Endpoint("10.42.1.2", 8080)


@pytest.mark.parametrize(
    ("front", "target", "carried"),
    [
        (CLUSTER, Target((ONE,)), True),
        (CLUSTER, Target((ONE,), affinity_seconds=9), True),
        (PORTS, Target((ONE,), masquerade=True), True),
        (PORTS, Target((ONE,), affinity_seconds=9), False),
        (OUTER, Target((), inside=(ONE,), drop=True), True),
        (OUTER, Target((ONE,), sources=("192.0.2.0/24",)), False),
        (CLUSTER, Target(), False),
        (CLUSTER, Target(drop=True), False),
    ],
)
def test_what_ipvs_carries(front, target, carried):
    assert is_carried(target, front, FRAME.services) is carried


def test_a_cluster_address_is_a_service_and_everything_else_a_mark():
    targets = {CLUSTER: Target((ONE,), affinity_seconds=9), PORTS: Target((ONE,), inside=(ONE, TWO)), OUTER: Target((TWO,), masquerade=True)}
    services, elements = plan(FRAME, targets, Marks())
    assert services[Virtual(False, 0, "tcp", "10.43.0.5", 80)].seconds == 9
    marks = {virtual.mark for virtual in services if virtual.mark}
    assert len(marks) == 3
    assert all(mark & MARK_FAMILY == MARK_FAMILY for mark in marks)
    assert set(elements.of["outer_ports"]) == set(elements.of["inner_ports"]) == {"tcp . 30080"}
    assert set(elements.of["loops"]) == {"10.42.0.1 . 10.42.0.1"}
    assert set(elements.of["virtual"]) == {"10.43.0.5"}  # another address may be the node's own: its other ports are not ours to refuse


def test_marks_are_the_same_again_and_never_shared():
    first, second = Marks(), Marks()
    fronts = [Front(ANY4, "tcp", port) for port in range(2000)]
    found = [first.get(front, False, masquerade=False) for front in fronts]
    assert [second.get(front, False, masquerade=False) for front in fronts] == found
    assert len(set(found)) == len(found)


@needs("root", "netns", "ipvs")
def test_any_walk_of_changes_ends_where_a_rewrite_would():
    def picture(path):
        with IpvsLink() as link:
            services = {(virtual, seconds, *sorted(link.destinations(virtual))) for virtual, seconds in link.services().items()}
        rules = ns.inside(path, "nft list table ip edgekube_test_ipvs; ip route show table local")
        return services, sorted(rules.replace("\t", " ").replace("\n", ",").replace("{", ",").replace("}", ",").replace(" ", "").split(","))

    async def scenario(path):
        dice, backend, targets = random.Random(7), IpvsBackend(NODE), {}
        await backend.replace(targets)
        for _ in range(20):
            wanted = anything(dice)
            await backend.apply(*changes(targets, wanted))
            targets = wanted
        walked = await asyncio.to_thread(picture, path)
        other = IpvsBackend(NODE)
        other._marks = backend._marks
        await other.replace(targets)
        again = await asyncio.to_thread(picture, path)
        assert walked == again
        other.close()
        backend.close()

    with ns.namespace() as path:
        ns.call_inside(path, lambda: asyncio.run(scenario(path)))


@needs("root", "netns", "ipvs")
def test_connections_end_by_themselves_foreign_services_stay_and_a_flush_is_repaired():
    async def scenario(path):
        with IpvsLink() as link:
            foreign = Virtual(False, 0, "tcp", "192.0.2.7", 80)
            link.ensure_service(foreign, 0, there=False)
            link.ensure_destination(foreign, Destination("192.0.2.8", 80), 5, there=False)
            backend, noticed = IpvsBackend(NODE), asyncio.Event()
            ns.inside(path, "ip addr add 10.42.0.1/32 dev lo; ip addr add 10.42.1.2/32 dev lo")
            server = socket.create_server(("0.0.0.0", 8080))
            backend.watch(noticed.set)
            await backend.replace({CLUSTER: Target((ONE,))})
            client = socket.create_connection(("10.43.0.5", 80), timeout=10)
            accepted, _ = server.accept()
            await backend.apply({CLUSTER: Target((ONE,))}, {CLUSTER: Target((TWO,))})
            ours = Virtual(False, 0, "tcp", "10.43.0.5", 80)
            assert {to.address: state.weight for to, state in link.destinations(ours).items()} == {"10.42.0.1": 0, "10.42.1.2": 1}
            client.send(b"still there")
            assert accepted.recv(20) == b"still there"
            link.remove_service(ours)
            async with asyncio.timeout(10):
                await noticed.wait()
            await backend.replace({CLUSTER: Target((TWO,))})
            assert ours in link.services()
            backend.close()
            assert await remove_ipvs(NODE)
            assert list(link.services()) == [foreign]
            assert link.destinations(foreign)[Destination("192.0.2.8", 80)].weight == 5
            for each in (client, accepted, server):
                each.close()

    with ns.namespace() as path:
        ns.call_inside(path, lambda: asyncio.run(scenario(path)))
