"""What only the iptables backend promises: others' rules stay, what they do to ours is noticed, and it can be taken away."""

import asyncio
import random

import pytest

from edgekube.proxy.backend import Node
from edgekube.proxy.iprestore import look, restore_text
from edgekube.proxy.iptables import IptablesBackend, remove_chains
from edgekube.proxy.iptext import IpFrame, bucket, front_chains
from edgekube.proxy.model import ANY4, Endpoint, Front, Target, changes
from tests.kit import netns as ns
from tests.kit.proxyhost import anything
from tests.kit.requires import needs

NODE = Node(instance="test", pods=("10.42.0.0/16",), services=("10.43.0.0/16",))
FRAME = IpFrame(instance="test", pods="10.42.0.0/16", services="10.43.0.0/16")
SERVICE = Front("10.43.0.5", "tcp", 80)
FOREIGN = "iptables{0} -t nat -N DOCKER; iptables{0} -t nat -A PREROUTING -j DOCKER; iptables{0} -P FORWARD DROP; iptables{0} -A INPUT -j ACCEPT"

kinds = pytest.mark.parametrize(
    "kind", [pytest.param("", marks=needs("root", "netns", "iptables")), pytest.param("legacy", marks=needs("root", "netns", "iptables-legacy"))]
)


def to(*addresses, **options):
    return {SERVICE: Target(tuple(Endpoint(address, 8080, True) for address in addresses), **options)}


def in_namespace(scenario):
    with ns.namespace() as path:
        ns.call_inside(path, lambda: asyncio.run(scenario()))


async def sh(line):
    child = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    assert child.returncode == 0, line
    return "".join(row for row in out.decode().splitlines(True) if not row.startswith("#"))


def tool(kind, rest=""):
    return f"iptables{'-' + kind if kind else ''}{rest}"


@kinds
def test_foreign_rules_stay_byte_for_byte(kind):
    async def scenario():
        await sh(FOREIGN.format("-" + kind if kind else ""))
        save = tool(kind, "-save -t nat; ") + tool(kind, "-save -t filter")
        before = await sh(save)
        backend = IptablesBackend(NODE, kind)
        many = {Front("10.43.0.5", "tcp", port): Target((Endpoint("10.42.0.1", 80, True),), affinity_seconds=9) for port in range(80, 90)}
        await backend.replace(many | {Front(ANY4, "udp", 30053): Target()})
        assert before.splitlines()[-3] in await sh(save)
        await backend.apply(many, {})
        await backend.replace({})
        assert await remove_chains("test")
        assert await sh(save) == before
        assert not await remove_chains("test")

    in_namespace(scenario)


@kinds
@pytest.mark.parametrize("command", ["-t nat -F", "-t nat -D PREROUTING -j EK-test-PRE", "-A EK-test-FWD -j ACCEPT", "-t mangle -F EK-test-SPOOF"])
def test_what_others_do_is_noticed_and_repaired(kind, command):
    async def scenario():
        backend, noticed = IptablesBackend(NODE, kind), asyncio.Event()
        targets = to("10.42.0.1", "10.42.0.2")
        await backend.replace(targets)
        before = await sh(tool(kind, "-save"))
        backend.watch(noticed.set)
        await sh(tool(kind, f" {command}"))
        async with asyncio.timeout(3):
            await noticed.wait()
        await backend.replace(targets)
        assert await sh(tool(kind, "-save")) == before
        backend.close()

    in_namespace(scenario)


@kinds
def test_own_and_foreign_changes_are_no_news(kind):
    async def scenario():
        backend, looks, noticed = IptablesBackend(NODE, kind), [], asyncio.Event()
        await backend.replace(to("10.42.0.1"))
        backend.watch(noticed.set)
        (family,) = backend._families
        backend._watch._intact = [lambda: _noted(family.intact, looks)]
        await backend.apply(to("10.42.0.1"), to("10.42.0.2"))
        await backend.replace({})
        await sh(tool(kind, " -t nat -A PREROUTING -j ACCEPT"))
        async with asyncio.timeout(3):
            while not looks:
                await asyncio.sleep(0.02)
        assert looks == [True]
        assert not noticed.is_set()
        backend.close()

    in_namespace(scenario)


async def _noted(intact, looks):
    looks.append(await intact())
    return looks[-1]


@pytest.mark.parametrize("new", [{}, to("10.42.0.2"), to("10.42.0.1", affinity_seconds=5), to("10.42.0.1", sources=("192.0.2.0/24",)), to(drop=True)])
@needs("root", "netns", "iptables")
def test_differences_end_where_a_rewrite_would(new):
    async def scenario():
        old = to("10.42.0.1", "10.42.0.3")
        other = {Front("10.43.0.69", "udp", 53): Target((Endpoint("10.42.0.3", 53, True),)), Front(ANY4, "tcp", 30001): Target()}
        backend = IptablesBackend(NODE)
        await backend.replace(new | other)
        fresh = await sh("iptables-save | sort")
        await backend.replace(old | other)
        await backend.apply(*changes(old | other, new | other))
        assert await sh("iptables-save | sort") == fresh
        (family,) = backend._families
        assert await family.intact()

    in_namespace(scenario)


@needs("root", "netns", "iptables")
def test_any_walk_of_changes_ends_where_a_rewrite_would():
    async def scenario():
        dice, backend, targets = random.Random(7), IptablesBackend(NODE), {}
        await backend.replace(targets)
        (family,) = backend._families
        for _ in range(40):
            wanted = anything(dice)
            await backend.apply(*changes(targets, wanted))
            assert await family.intact()
            targets = wanted
        walked = await sh("iptables-save | sort")
        await backend.replace(targets)
        assert await sh("iptables-save | sort") == walked

    in_namespace(scenario)


@needs("root", "netns", "iptables")
def test_an_own_address_that_comes_later_completes_the_rules(monkeypatch):
    monkeypatch.setattr("edgekube.proxy.iptables.ADDRESS_SECONDS", 0.02)

    async def scenario(path):
        node = Node(instance="test", pods=("10.42.0.0/16", "fd42::/48"), services=("10.43.0.0/16", "fd43::/112"))
        backend, noticed = IptablesBackend(node), asyncio.Event()
        backend.watch(noticed.set)
        await backend.replace({})
        assert "--to-destination" not in await sh("ip6tables-save")
        ns.inside(path, "ip addr add fd42::1/128 dev lo nodad")
        async with asyncio.timeout(3):
            await noticed.wait()
        await backend.replace({})
        assert "-j DNAT --to-destination fd42::1" in await sh("ip6tables-save")
        backend.close()

    with ns.namespace() as path:
        ns.call_inside(path, lambda: asyncio.run(scenario(path)))


def test_a_change_is_about_its_front_and_one_bucket():
    text = restore_text(front_chains(FRAME, SERVICE, to("10.42.0.1", "10.42.0.2")[SERVICE]))
    assert bucket(SERVICE) == "A-05"
    assert "--probability 0.50000000000" in text
    assert text.count("DNAT") == 2
    assert all(len(line.split()[1]) <= 28 for line in text.splitlines() if line.startswith("-A"))


def test_what_is_ours_is_found_by_its_name():
    saved = "*nat\n:OUTPUT ACCEPT [0:0]\n:EK-test-POST - [0:0]\n:EK-other-POST - [0:0]\n-A OUTPUT -j EK-test-POST\n-A EK-test-POST -j X\nCOMMIT\n"
    found = look(saved, "EK-test-")
    assert found.chains == {("nat", "EK-test-POST"): 1}
    assert found.jumps == {("nat", "OUTPUT", "EK-test-POST"): 1}
