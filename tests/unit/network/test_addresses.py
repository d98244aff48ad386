"""Which address is the node's, as a table; and the host's addresses followed live in a real namespace."""

import asyncio

import pytest

from edgekube.network.addresses import HostAddresses, choose
from tests.kit import netns as ns
from tests.kit.requires import needs


@pytest.mark.parametrize(
    ("configured", "candidates", "preferred", "before", "families", "node"),
    [
        (("192.0.2.9",), ["192.0.2.1"], {4: "192.0.2.1"}, (), (4,), ("192.0.2.9",)),
        ((), ["192.0.2.1", "198.51.100.1"], {4: "198.51.100.1"}, (), (4,), ("198.51.100.1",)),
        ((), ["192.0.2.1", "198.51.100.1"], {4: ""}, ("198.51.100.1",), (4,), ("198.51.100.1",)),
        ((), ["192.0.2.1", "198.51.100.1"], {4: "10.42.0.1"}, (), (4,), ("192.0.2.1",)),
        ((), ["192.0.2.1"], {}, ("198.51.100.1",), (4,), ("192.0.2.1",)),
        ((), [], {}, ("198.51.100.1",), (4,), ("198.51.100.1",)),
        ((), [], {}, (), (4,), ()),
        ((), ["2001:db8::1"], {}, (), (4,), ("2001:db8::1",)),
        ((), ["192.0.2.1", "2001:db8::1"], {}, (), (4, 6), ("192.0.2.1", "2001:db8::1")),
        ((), ["192.0.2.1", "2001:db8::1"], {}, (), (6, 4), ("2001:db8::1", "192.0.2.1")),
        ((), ["192.0.2.1", "2001:db8::1"], {}, (), (4,), ("192.0.2.1",)),
    ],
)
def test_the_choice(configured, candidates, preferred, before, families, node):
    assert choose(configured, candidates, preferred, before, families) == node


def test_a_bridge_for_other_containers_is_the_last_choice_and_does_not_stick():
    bridge, lan = "172.17.0.1", "192.168.1.5"
    assert choose((), [bridge], {}, (), (4,), [bridge]) == (bridge,)
    assert choose((), [bridge, lan], {}, (bridge,), (4,), [bridge]) == (lan,)
    assert choose((), [bridge, lan], {4: bridge}, (), (4,), [bridge]) == (bridge,)
    assert choose((), [bridge, lan], {}, (), (6,), [bridge]) == (lan,)


async def follow(netns, *commands):
    """The node's addresses after each command, and how often a change was told."""
    addresses, told = HostAddresses(cluster=("10.42.0.0/16",), excluded=("10.43.0.0/16",)), []
    news = asyncio.Event()
    addresses.on_change(lambda old, new: (told.append(new.node), news.set()))
    addresses.start()
    seen = [addresses.node]
    for command in commands:
        news.clear()
        await asyncio.to_thread(ns.inside, netns, command)
        async with asyncio.timeout(3):
            await news.wait()
        seen.append(addresses.node)
    addresses.close()
    return seen, told


def run(netns, *commands):
    return ns.call_inside(netns, lambda: asyncio.run(follow(netns, *commands)))


@pytest.fixture
def host():
    with ns.namespace() as path:
        ns.inside(path, "ip link add eth0 type veth peer name far0; ip link set far0 up; ip link set eth0 up")
        yield path


@needs("root", "netns")
def test_from_nothing_to_an_address_to_another(host):
    seen, told = run(
        host,
        "ip addr add 192.0.2.1/24 dev eth0",
        "ip addr del 192.0.2.1/24 dev eth0; ip addr add 198.51.100.1/24 dev eth0",
        "ip addr add 203.0.113.1/24 dev far0 && ip route add default via 203.0.113.254",
    )
    assert seen == [("10.42.0.1",), ("192.0.2.1",), ("198.51.100.1",), ("203.0.113.1",)]
    assert len(told) == 3  # taking away and adding is one change


@needs("root", "netns")
def test_our_own_addresses_and_repeated_news_are_no_change(host):
    async def quiet():
        addresses, told = HostAddresses(cluster=("10.42.0.0/16",), excluded=("10.43.0.0/16",)), []
        addresses.on_change(lambda old, new: told.append(new))
        addresses.start()
        last = "ip addr add 192.0.2.7/24 dev eth0"
        for command in (
            "ip addr add 10.42.0.1/32 dev lo",
            "ip addr add 10.43.0.10/32 dev lo",
            "ip link add ek0 type veth peer name ek1",
            last,
        ):
            await asyncio.to_thread(ns.inside, host, command)
        async with asyncio.timeout(3):
            while not told:
                await asyncio.sleep(0.01)
        addresses.close()
        return [view.node for view in told]

    assert ns.call_inside(host, lambda: asyncio.run(quiet())) == [("192.0.2.7",)]


@needs("root", "netns")
def test_the_underlay_names_link_and_mtu(host):
    ns.inside(host, "ip link set eth0 mtu 1400; ip addr add 192.0.2.1/24 dev eth0")

    def look():
        return HostAddresses(cluster=("10.42.0.0/16",)).view.underlay()

    found = ns.call_inside(host, look)
    assert (found.address, found.mtu, [(subnet.cidr, subnet.link) for subnet in found.subnets]) == (
        "192.0.2.1",
        1400,
        [("192.0.2.0/24", "eth0")],
    )
