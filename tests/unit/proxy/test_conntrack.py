"""Which flows are stale, and that those alone go, in a real kernel."""

import asyncio
import socket

import pytest

from edgekube.proxy.conntrack import Flow, forget, is_stale
from edgekube.proxy.model import Endpoint, Front
from tests.kit import netns as ns
from tests.kit.requires import needs

RIGHT = {("10.43.0.5", 53): {("10.42.0.1", 5353)}, ("0.0.0.0", 30053): set(), ("::", 30053): {("fd42::1", 53)}}


@pytest.mark.parametrize(
    ("destination", "answers", "stale"),
    [
        (("10.43.0.5", 53), ("10.42.0.1", 5353), False),
        (("10.43.0.5", 53), ("10.42.0.2", 5353), True),
        (("10.43.0.5", 53), ("10.42.0.1", 53), True),
        (("10.43.0.5", 53), ("10.43.0.5", 53), True),  # into the void
        (("10.43.0.5", 54), ("10.43.0.5", 54), False),
        (("192.0.2.1", 30053), ("10.42.0.1", 53), True),
        (("2001:db8::1", 30053), ("fd42::1", 53), False),
        (("2001:db8::1", 30053), ("fd42::2", 53), True),
    ],
)
def test_stale(destination, answers, stale):
    assert is_stale(Flow(destination, answers), RIGHT) is stale


@needs("root", "netns", "nft")
@pytest.mark.parametrize(("address", "family"), [("127.0.0.1", "ip"), ("::1", "ip6")])
def test_stale_flows_go_and_all_others_stay(address, family):
    """Two thousand flows: one whose answer comes from elsewhere than it should, one that is right, and what is none of ours."""
    kind = socket.AF_INET6 if family == "ip6" else socket.AF_INET
    right = {Front(address, "udp", 2001): frozenset((Endpoint("192.0.2.9", 1),)), Front(address, "udp", 2002): frozenset((Endpoint(address, 2002),))}

    async def scenario(path):
        ns.inside(path, f'nft "add table {family} x; add chain {family} x c {{ type filter hook output priority 0; }}; add rule {family} x c ct state new"')
        with socket.socket(kind, socket.SOCK_DGRAM) as client:
            for port in range(2000, 4000):
                client.sendto(b"x", (address, port))
            before = _count(path)
            await forget(right)
            assert _count(path) == before - 1
            await forget(right)
            assert _count(path) == before - 1

    with ns.namespace() as path:
        ns.call_inside(path, lambda: asyncio.run(scenario(path)))


def _count(path):
    return int(ns.inside(path, "cat /proc/sys/net/netfilter/nf_conntrack_count"))
