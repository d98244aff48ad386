"""Finding the server on local networks of every kind: real sockets in namespaces joined by wires, no processes."""

import asyncio
import contextlib
import threading
import uuid

import pytest

from edgekube.agent.dial import Address
from edgekube.agent.discovery import Discovery
from edgekube.apiserver.responder import BURST, Responder
from edgekube.lib import where
from edgekube.lib.lan import Ear, Shout, interfaces
from tests.kit import netns as ns
from tests.kit.requires import needs

pytestmark = needs("root", "netns")

CA, OTHER, PORT = b"a" * 32, b"b" * 32, 6443


@pytest.fixture
def wires():
    """Two namespaces; `wire(number, here, there)` joins them with addresses or without."""
    with ns.namespace() as agent, ns.namespace() as server:

        def wire(number, here="", there="", *, ipv6=False):
            one, other = (f"w{uuid.uuid4().hex[:6]}" for _ in range(2))
            ns.sh(f"ip link add {one} netns {agent.rpartition('/')[2]} type veth peer name {other} netns {server.rpartition('/')[2]}")
            for netns, link, address in ((agent, one, here), (server, other, there)):
                if not ipv6:
                    ns.inside(netns, f"sysctl -qw net.ipv6.conf.{link}.disable_ipv6=1")
                else:
                    ns.inside(netns, f"sysctl -qw net.ipv6.conf.{link}.accept_dad=0")
                ns.inside(netns, f"ip link set {link} name eth{number} up")
                if address:
                    ns.inside(netns, f"ip addr add {address} brd + dev eth{number}")

        yield agent, server, wire


@contextlib.contextmanager
def responder(netns, addresses=("10.7.7.7",), authority=CA):
    """A responder on a loop and in a thread of its own, in `netns`; yields a way to tell it of a change."""
    started, box = threading.Event(), {}

    async def serve():
        found = Responder(authority=authority, port=PORT, addresses=lambda: addresses)
        box["loop"], box["stop"], box["found"] = asyncio.get_running_loop(), asyncio.Event(), found
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(found.run(ready))
            await ready.wait()
            started.set()
            await box["stop"].wait()
            task.cancel()

    thread = threading.Thread(target=lambda: ns.call_inside(netns, lambda: asyncio.run(serve())))
    thread.start()
    assert started.wait(10)
    try:
        yield lambda: box["loop"].call_soon_threadsafe(box["found"].changed)
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(10)


def search(netns, *, authority=CA, seconds=5.0):
    """What an agent there hears first; nothing if nobody answers."""

    async def ask():
        heard = asyncio.get_running_loop().create_future()
        discovery = Discovery(authority=authority, port=PORT)

        def report(addresses):
            if not heard.done():
                heard.set_result(addresses)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(discovery.search(report))
            try:
                async with asyncio.timeout(seconds):
                    return await heard
            except TimeoutError:
                return []
            finally:
                task.cancel()

    return ns.call_inside(netns, lambda: asyncio.run(ask()))


def test_on_an_ordinary_network(wires):
    agent, server, wire = wires
    wire(0, "10.7.7.1/24", "10.7.7.7/24")
    with responder(server):
        assert search(agent) == [Address("10.7.7.7", PORT)]


def test_with_nothing_but_link_local_addresses_and_no_default_route(wires):
    agent, server, wire = wires
    wire(0, "169.254.3.1/16", "169.254.3.2/16")
    with responder(server, addresses=()):
        assert search(agent) == [Address("169.254.3.2", PORT)]


def test_through_the_second_of_two_interfaces(wires):
    agent, server, wire = wires
    ns.inside(agent, "ip link add eth0 type veth peer name x0 && ip link set x0 up && ip link set eth0 up && ip addr add 10.1.1.1/24 brd + dev eth0")
    ns.inside(agent, "ip route add default via 10.1.1.254")
    wire(1, "10.7.7.1/24", "10.7.7.7/24")
    with responder(server):
        assert search(agent) == [Address("10.7.7.7", PORT)]


def test_between_subnets_that_do_not_match(wires):
    """The server was renumbered, the agent was not: it is told, whatever it can make of it."""
    agent, server, wire = wires
    wire(0, "10.7.7.1/24", "10.8.8.8/24")
    with responder(server, addresses=("10.8.8.8",)):
        assert search(agent) == [Address("10.8.8.8", PORT)]


def test_with_ipv6_link_local_alone(wires):
    agent, server, wire = wires
    wire(0, ipv6=True)
    with responder(server, addresses=()):
        found = search(agent)
    assert len(found) == 1
    assert found[0].host.startswith("fe80::")
    assert found[0].host.endswith("%eth0")


def test_servers_of_other_clusters_are_silent(wires):
    agent, server, wire = wires
    wire(0, "10.7.7.1/24", "10.7.7.7/24")
    with responder(server):
        assert search(agent, authority=OTHER, seconds=1.5) == []


def test_pods_are_not_asked(wires):
    agent, _server, wire = wires
    wire(0, "10.7.7.1/24", "10.7.7.7/24")
    ns.inside(agent, "ip link add ek0123456789ab type veth peer name x0 && ip link set ek0123456789ab up")
    assert [each.name for each in ns.call_inside(agent, lambda: list(interfaces()))] == ["eth0"]


def test_an_announcement_reaches_who_listens_and_only_from_our_authority(wires):
    agent, server, wire = wires
    wire(0, "10.7.7.1/24", "10.7.7.7/24")
    with responder(server) as changed, responder(agent, authority=OTHER):

        async def listen():
            heard = asyncio.get_running_loop().create_future()
            discovery = Discovery(authority=CA, port=PORT)
            discovery.announcements_to(lambda addresses: heard.done() or heard.set_result(addresses))
            ready = asyncio.Event()
            async with asyncio.TaskGroup() as group, asyncio.timeout(5):
                task = group.create_task(discovery.run(ready))
                await ready.wait()
                changed()
                try:
                    return await heard
                finally:
                    task.cancel()

        assert ns.call_inside(agent, lambda: asyncio.run(listen())) == [Address("10.7.7.7", PORT)]


def test_a_flood_of_questions_gets_few_answers_and_no_larger_ones(wires):
    agent, server, wire = wires
    wire(0, "10.7.7.1/24", "10.7.7.7/24")

    async def flood():
        answers = []
        shout = Shout(PORT, lambda data, _source: answers.append(len(data)))
        question = where.question(bytes(16), CA)
        shout.send(question)
        for _ in range(300):
            for channel in list(shout._sockets):
                with contextlib.suppress(OSError):
                    channel.sendto(question, ("10.7.7.7", PORT))
            await asyncio.sleep(0)
        await asyncio.sleep(0.3)
        shout.close()
        return answers

    with responder(server, addresses=[f"10.7.{n}.7" for n in range(200)]):
        answers = ns.call_inside(agent, lambda: asyncio.run(flood()))
    assert 0 < len(answers) <= BURST + 10
    assert max(answers) <= where.SIZE


def test_two_listeners_share_the_port(wires):
    agent, _server, wire = wires
    wire(0, "10.7.7.1/24", "10.7.7.7/24")

    async def both():
        ears = [Ear(PORT, lambda *_: None) for _ in range(2)]
        counts = [len(ear._sockets) for ear in ears]
        for ear in ears:
            ear.close()
        return counts

    assert ns.call_inside(agent, lambda: asyncio.run(both())) == [2, 2]
