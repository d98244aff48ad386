"""The overlay in its other forms: both families, plain routes, a kernel without VXLAN, a node that is removed."""

import asyncio
import json
import socket
import struct

import pytest

from edgekube.network import kernel
from edgekube.network.component import remove_network
from tests.kit import netns as ns
from tests.kit.overlay import overlay, ping, reaches
from tests.kit.requires import needs
from tests.multinode.test_overlay import gone, settled
from tests.multinode.test_selftest import until_reason, until_reported

pytestmark = needs("root", "netns", "busybox", "nft")


def fill(net):
    here, there = (host.add_pod() for host in net.hosts[:2])
    return here, there, net.hosts[1].pods[there]


def test_both_families():
    with overlay(2, dual=True) as net:
        one, _ = net.hosts
        here, _, targets = fill(net)
        assert [":" in target for target in targets] == [False, True]
        for target in targets:
            reaches(here, target)
        assert ping(here, targets[1], size=1450 - 48)
        for act in ("ip -6 route del fd42:0:0:1::/64", f"ip link del {one.device}", "ip -6 addr del fd42::1/128 dev lo"):
            one.sh(act)
            for target in targets:
                reaches(here, target)
        one.sh("ip -6 route add fd42:0:0:9::/64 dev " + one.device)
        gone(one, "ip -6 route show fd42:0:0:9::/64")


def test_an_ipv6_underlay():
    with overlay(2, dual=True, underlay6=True) as net:
        here, _, targets = fill(net)
        for target in targets:
            reaches(here, target)
        assert "mtu 1430" in net.hosts[0].sh(f"ip link show {net.hosts[0].device}")
        until_reason(net.hosts[0], "PathsTested")


def test_plain_routes_within_a_lan():
    with overlay(2, backend="host-gw") as net:
        one, two = net.hosts
        here, _, (target,) = fill(net)
        reaches(here, target)
        assert ping(here, target, size=1500 - 28)
        assert two.device not in two.sh("ip -o link")
        until_reason(one, "PathsTested")
        for act in ("ip route del 10.42.1.0/24", "ip link set eth0 down; ip link set eth0 up", "ip addr flush dev eth0; ip addr add 192.168.50.55/24 dev eth0"):
            one.sh(act)
            reaches(here, target)
        two.sh("ip addr flush dev eth0; ip addr add 192.168.50.66/24 dev eth0")
        reaches(here, target)
        settled(lambda: "via 192.168.50.66" in one.sh("ip route show 10.42.1.0/24"))


def test_plain_routes_and_a_node_elsewhere():
    """A peer in another subnet goes through the tunnel; both kinds side by side."""
    with overlay(3, backend="host-gw") as net:
        here, _, (near,) = fill(net)
        far = net.hosts[2]
        far.sh("ip addr flush dev eth0; ip addr add 172.20.0.2/24 dev eth0; ip route add default via 172.20.0.1")
        ns.inside(net.wire, "ip addr add 172.20.0.1/24 dev br0; ip addr add 192.168.50.1/24 dev br0; sysctl -qw net.ipv4.ip_forward=1")
        for host in net.hosts[:2]:
            host.sh("ip route add default via 192.168.50.1")
        pod = far.add_pod()
        (target,) = far.pods[pod]
        reaches(here, near)
        reaches(here, target)
        routes = {entry["dst"]: entry["dev"] for entry in json.loads(net.hosts[0].sh("ip -j route"))}
        assert (routes["10.42.1.0/24"], routes["10.42.2.0/24"]) == ("eth0", net.hosts[0].device)


def test_a_kernel_without_vxlan(monkeypatch):
    from pyroute2.netlink.exceptions import NetlinkError

    make, lacking = kernel._create, []

    def refuse(route, device, families):
        if device.name in lacking:
            raise NetlinkError(95)
        make(route, device, families)

    monkeypatch.setattr(kernel, "_create", refuse)
    with overlay(2) as net:
        one, two = net.hosts
        until_reported(one, "Passed")
        lacking.append(one.device)
        one.sh(f"ip link del {one.device}")
        settled(lambda: "dev eth0" in two.sh("ip route show 10.42.0.0/24"), 5)
        here, _, (target,) = fill(net)
        reaches(here, target)
        one.sh("ip addr flush dev eth0; ip addr add 172.20.0.2/24 dev eth0")
        assert "no VXLAN" in until_reason(one, "Refused")["message"]
        lacking.clear()
        one.stop()
        one.sh("ip addr flush dev eth0; ip addr add 192.168.50.10/24 dev eth0")
        one.start()
        until_reported(one, "Passed")
        settled(lambda: one.device in one.sh("ip -o link"), 5)


def everything(host):
    return [host.sh(command) for command in ("ip -o link | grep -v veth", "ip route", "ip -6 route | sort", "ip -o addr", "ip neigh show nud permanent")]


@pytest.mark.parametrize("dual", [False, True])
def test_a_node_that_is_removed_leaves_nothing(dual):
    with overlay(2, dual=dual, start=False) as net:
        one = net.hosts[0]
        before = everything(one)
        for host in net.hosts:
            host.start()
        here, _, targets = fill(net)
        for target in targets:
            reaches(here, target)
        one.stop()
        ns.call_inside(one.netns, lambda: asyncio.run(remove_network(one.instance)))
        ns.call_inside(one.netns, lambda: asyncio.run(remove_network(one.instance)))
        assert everything(one) == before


def wrapped(source, target, mac):
    """What a node would send for a UDP packet from `source` to `target`: a VXLAN header, a frame, an IP packet."""
    udp = struct.pack("!HHHH", 4000, 6000, 8 + 5, 0) + b"hello"
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + head[12:]
    return struct.pack("!II", 0x08000000, 1 << 8) + bytes.fromhex(mac.replace(":", "")) + b"\x02\0\0\0\0\x01\x08\0" + head + udp


def heard(netns, act, seconds=1.0):
    """Whether the pod hears the datagram after `act`."""
    server = ns.call_inside(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("0.0.0.0", 6000))
    server.settimeout(seconds)
    with server:
        act()
        try:
            return server.recv(100) == b"hello"
        except TimeoutError:
            return False


def test_only_nodes_may_put_packets_into_the_overlay(caplog):
    with overlay(2) as net:
        one, two = net.hosts
        here, there, (target,) = fill(net)
        reaches(here, target)
        mac = json.loads(two.sh(f"ip -j link show {two.device}"))[0]["address"]
        data, victim = wrapped("10.42.0.99", target, mac), ("192.168.50.11", 8472)

        def send(netns):
            ns.call_inside(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(data, victim))

        assert heard(there, lambda: send(one.netns))  # a node may: that is what the overlay is
        liar = two.add_pod()
        assert not heard(there, lambda: send(liar))  # a pod of the same node may not
        ns.inside(net.wire, "ip addr add 192.168.50.200/24 dev br0")
        assert not heard(there, lambda: send(net.wire))  # nor may another machine of the LAN
        assert "somebody changed" not in caplog.text  # what we write ourselves is no reason to write again
        two.sh("nft flush ruleset")
        settled(lambda: "192.168.50.10" in two.sh("nft list ruleset"))
        assert not heard(there, lambda: send(liar))


@pytest.mark.parametrize("dual", [False, True])
def test_pods_that_come_and_go_wake_no_pass(dual):
    """What we do ourselves is no news: neither for the overlay nor for those who follow the host's addresses."""
    with overlay(2, dual=dual) as net:
        one = net.hosts[0]
        until_reason(one, "PathsTested")
        settled(lambda: not one.network._wake.is_set())
        passes, looks = [], []
        reconcile, look = one.network._reconcile, one.addresses._look

        async def counted():
            passes.append(1)
            return await reconcile()

        one.network._reconcile = counted
        one.addresses._look = lambda: (looks.append(1), look())[1]
        for number in range(5):
            one.add_pod(f"u{number}")
        for number in range(5):
            one.loop.run(one.network.detach(f"u{number}"))
        one.sh("ip route del 10.42.1.0/24")  # one more event, which is one: behind all of ours
        settled(lambda: len(passes) >= 2)
        assert (len(passes), looks) == (2, [])  # the repair, and a look that finds nothing more
