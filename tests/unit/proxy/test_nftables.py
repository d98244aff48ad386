"""What only the nftables backend promises: it sees what others do to its table, and keeps its number of rules."""

import asyncio
import json
import random
import re

import pytest

from edgekube.proxy.backend import Node
from edgekube.proxy.model import ANY4, Endpoint, Front, Target, changes
from edgekube.proxy.nftables import NftablesBackend, remove_tables
from tests.kit import netns as ns
from tests.kit.cluster import wait_until
from tests.kit.proxyhost import proxy_host
from tests.kit.requires import needs

pytestmark = needs("root", "netns", "nft")

NODE = Node(instance="test", pods=("10.42.0.0/16",), services=("10.43.0.0/16",))
SERVICE = Front("10.43.0.5", "tcp", 80)


def to(*addresses, **options):
    return {SERVICE: Target(tuple(Endpoint(address, 8080, True) for address in addresses), **options)}


def in_namespace(scenario):
    with ns.namespace() as path:
        ns.call_inside(path, lambda: asyncio.run(scenario(path)))


async def nft(*words):
    child = await asyncio.create_subprocess_exec("nft", *words, stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    assert child.returncode == 0
    return out.decode()


@pytest.mark.parametrize(
    "command",
    [
        "flush ruleset",
        "delete table ip edgekube_test",
        "insert rule ip edgekube_test pre accept",
        "add chain ip edgekube_test foreign",
        "delete element ip edgekube_test services { 10.43.0.5 . tcp . 80 }",
        "add element ip edgekube_test affine { 10.43.0.6 . tcp . 80 : drop }",
        "flush chain ip edgekube_test post",
        "add rule ip edgekube_test n1 drop",
        "delete table ip edgekube_test; add table ip edgekube_test; add chain ip edgekube_test pre",
    ],
)
def test_what_others_do_is_noticed_and_repaired(command):
    async def scenario(_):
        backend, noticed = NftablesBackend(NODE), asyncio.Event()
        targets = to("10.42.0.1")
        await backend.replace(targets)
        before = await nft("list", "table", "ip", NODE.table)
        backend.watch(noticed.set)
        for part in command.split("; "):
            await nft(part)
        async with asyncio.timeout(2):
            await noticed.wait()
        await backend.replace(targets)
        assert await nft("list", "table", "ip", NODE.table) == before
        backend.close()

    in_namespace(scenario)


def test_our_own_changes_and_those_of_other_tables_are_no_news():
    async def scenario(_):
        backend, noticed = NftablesBackend(NODE), asyncio.Event()
        await backend.replace({})
        backend.watch(noticed.set)
        await backend.apply({}, to("10.42.0.1"))
        await backend.apply(to("10.42.0.1"), to("10.42.0.1", "10.42.0.2", affinity_seconds=60))
        await backend.replace(to("10.42.0.2"))
        await nft("add table ip other; add chain ip other c; delete table ip other")
        for _ in range(3):
            await asyncio.sleep(0)
        assert not noticed.is_set()
        backend.close()

    in_namespace(scenario)


def test_a_table_of_another_shape_is_replaced():
    async def scenario(_):
        await nft("add table ip edgekube_test; add map ip edgekube_test services { type ipv4_addr : verdict ; }")
        backend = NftablesBackend(NODE)
        await backend.replace(to("10.42.0.1"))
        assert "10.43.0.5 . tcp . 80 : 0x00000001" in await nft("list", "table", "ip", NODE.table)
        backend.close()

    in_namespace(scenario)


def test_a_thousand_changes_leave_as_many_rules_as_one():
    async def scenario(_):
        backend = NftablesBackend(NODE)
        variants = [
            to("10.42.0.1"),
            to("10.42.0.1", "10.42.0.2"),
            to("10.42.0.2", affinity_seconds=60),
            {
                SERVICE: Target(drop=True),
                Front(ANY4, "tcp", 30080): Target(),
                Front("192.0.2.1", "tcp", 80): Target(sources=("192.0.2.0/24",)),
            },
            {},
        ]
        current = {}
        await backend.replace(current)

        async def through_all():
            nonlocal current
            for wanted in variants:
                await backend.apply(*changes(current, wanted))
                current = wanted
            return await nft("list", "table", "ip", NODE.table)

        first = await through_all()
        for _ in range(200):
            last = await through_all()
        assert last == first
        backend.close()
        await remove_tables("test")
        assert "edgekube" not in await nft("list", "ruleset")

    in_namespace(scenario)


def test_without_ipv6_ranges_there_is_no_ipv6_table():
    async def scenario(_):
        backend = NftablesBackend(NODE)
        await backend.replace(to("10.42.0.1") | {Front("fd43::1", "tcp", 80): Target()})
        assert "ip6" not in await nft("list", "ruleset")
        backend.close()

    in_namespace(scenario)


def test_packets_and_timeouts_are_no_news():
    """Clients that are remembered, and forgotten again, do not make the rules be written again."""
    noticed = []

    async def made():
        backend = NftablesBackend(NODE)
        backend.watch(lambda: noticed.append(True))
        await backend.replace(to("10.42.0.11", "10.42.0.12", affinity_seconds=1))
        return backend

    async def turn():
        for _ in range(3):
            await asyncio.sleep(0)

    async def close():
        backend.close()

    with proxy_host() as host:
        backend = host.do(made)
        for where in ("host", "one", "outside"):
            host.ask(where, SERVICE.address, SERVICE.port)
        assert "expires" in host.run("nft list table ip edgekube_test")
        wait_until(lambda: "expires" not in host.run("nft list table ip edgekube_test"), seconds=10)
        host.do(turn)
        assert noticed == []
        host.run("nft flush chain ip edgekube_test post")
        host.do(turn)
        assert noticed
        host.do(close)


def random_targets(rng):
    """Some Services of every kind."""
    pool = [Endpoint(f"10.42.0.{n}", 8080, n < 4) for n in range(1, 7)]
    fronts = [Front(f"10.43.0.{n}", protocol, 80) for n in range(5) for protocol in ("tcp", "udp")]
    fronts += [Front(ANY4, protocol, 30000 + n) for n in range(4) for protocol in ("tcp", "udp")]
    found = {}
    for front in rng.sample(fronts, rng.randrange(len(fronts))):
        endpoints = tuple(sorted(rng.sample(pool, rng.randrange(4))))
        inside = tuple(sorted(rng.sample(pool, rng.randrange(1, 4)))) if rng.random() < 0.3 else ()
        found[front] = Target(
            endpoints,
            inside,
            masquerade=rng.random() < 0.5,
            drop=not endpoints and (bool(inside) or rng.random() < 0.5),
            affinity_seconds=rng.choice((0, 0, 0, 60, 120)),
            sources=() if front.wild or rng.random() < 0.8 else (f"192.0.2.{rng.randrange(1, 9)}/32",),
        )
    return found


def contents(listing):
    """Chains with their rules, sets and maps with their elements and timeouts."""
    found = {}
    for entry in json.loads(listing)["nftables"]:
        for kind, body in entry.items():
            if kind in ("set", "map"):
                found[body["name"]] = {json.dumps(element) for element in body.get("elem", ())} | {str(body.get("timeout"))}
            elif kind == "chain":
                found.setdefault(body["name"], [])
            elif kind == "rule":
                found.setdefault(body["chain"], []).append(body["expr"])
    return found


@pytest.mark.parametrize("seed", range(4))
def test_many_differences_end_where_one_whole_does(seed):
    """Shapes that nothing uses any more may stay; everything else is the same to the last element."""

    async def scenario(_):
        rng = random.Random(seed)
        backend, current = NftablesBackend(NODE), {}
        await backend.replace(current)
        for _ in range(60):
            wanted = random_targets(rng)
            await backend.apply(*changes(current, wanted))
            current = wanted
        walked = contents(await nft("-j", "list", "table", "ip", NODE.table))
        await backend.replace(current)
        fresh = contents(await nft("-j", "list", "table", "ip", NODE.table))
        for spare in [name for name in walked if re.fullmatch(r"[np]m?\d+(i\d+)?", name) and name not in fresh]:
            del walked[spare]
        assert fresh["shapes"] <= walked["shapes"]
        del fresh["shapes"], walked["shapes"]
        assert walked == fresh
        backend.close()

    in_namespace(scenario)
