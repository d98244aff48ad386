"""Ranges that a host's own networks use already."""

import pytest

from edgekube.network.collisions import Collision, collisions, free_ranges, look
from tests.kit import netns as ns
from tests.kit.podnet import connect_pod, prepare_host
from tests.kit.requires import needs

CIDRS = ("10.42.0.0/16", "10.43.0.0/16")


@pytest.mark.parametrize(
    ("dst", "found"),
    [
        ("192.168.1.0/24", []),
        ("10.42.7.0/24", [("10.42.0.0/16", True)]),
        ("10.42.0.0/16", [("10.42.0.0/16", True)]),
        ("10.42.0.0/15", [("10.42.0.0/16", False), ("10.43.0.0/16", False)]),
        ("10.0.0.0/8", [("10.42.0.0/16", False), ("10.43.0.0/16", False)]),
        ("fd42::/64", []),
    ],
)
def test_collisions(dst, found):
    assert collisions([(dst, "eth0")], CIDRS) == [Collision(cidr, dst, "eth0", inside) for cidr, inside in found]


def test_free_ranges():
    assert free_ranges([]) == ("10.42.0.0/16", "10.43.0.0/16")
    assert free_ranges(["10.43.1.0/24", "10.44.0.0/16", "fd00::/8"]) == ("10.46.0.0/16", "10.47.0.0/16")
    assert free_ranges(["10.0.0.0/8"]) is None


@needs("root", "netns")
def test_what_is_ours_is_no_collision():
    with ns.namespace() as host, ns.namespace() as pod:
        prepare_host(host)
        connect_pod(host, pod, "10.42.0.7")
        assert ns.call_inside(host, lambda: look(CIDRS))[0] == []
        ns.inside(host, "ip link add eth0 type veth peer name far0; ip link set eth0 up; ip addr add 10.42.9.9/24 dev eth0")
        (found,) = ns.call_inside(host, lambda: look(CIDRS))[0]
        assert found == Collision("10.42.0.0/16", "10.42.9.0/24", "eth0", True)
