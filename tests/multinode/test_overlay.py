"""The overlay between bare network components: pods reach each other, whatever is done to links, and nothing stale stays."""

import json
import time

import pytest

from edgekube.api.catalog import NODE
from tests.kit import netns as ns
from tests.kit.overlay import overlay, ping, plug, reaches
from tests.kit.requires import needs

pytestmark = needs("root", "netns", "busybox")


@pytest.fixture(scope="module")
def pair():
    with overlay(2) as net:
        yield net


@pytest.fixture(scope="module")
def pods(pair):
    one, two = pair.hosts
    return one.add_pod(), two.add_pod()


def routes(host):
    return sorted((entry["dst"], entry.get("gateway"), entry.get("prefsrc")) for entry in json.loads(host.sh("ip -j route show proto 231")))


def test_pods_of_two_nodes_reach_each_other_with_small_and_full_packets(pair, pods):
    one, two = pair.hosts
    target = two.pods[pods[1]][0]
    assert reaches(pods[0], target) < 3
    assert ping(pods[0], target, size=1450 - 28)
    assert reaches(one.netns, target) < 3  # the host itself, with its address of the pod range


ACTS = {
    "device deleted": "ip link del {device}",
    "device down": "ip link set {device} down",
    "device renamed": "ip link set {device} down; ip link set {device} name other0; ip link set other0 up",
    "route deleted": "ip route del 10.42.1.0/24",
    "route replaced": "ip route replace 10.42.1.0/24 dev eth0",
    "neighbour deleted": "ip neigh del 10.42.1.0 dev {device}",
    "neighbour changed": "ip neigh replace 10.42.1.0 lladdr 02:00:00:00:00:01 dev {device} nud permanent",
    "forward deleted": "bridge fdb del {mac} dev {device} self; bridge fdb del {mac} dst 192.168.50.11 dev {device} self",
    "forward changed": "bridge fdb replace {mac} dst 192.168.50.99 dev {device} self",
    "own address deleted": "ip addr del 10.42.0.1/32 dev lo",
    "lo down": "ip link set lo down",
    "uplink down and up": "ip link set eth0 down; ip link set eth0 up",
    "uplink renamed": "ip link set eth0 down; ip link set eth0 name lan0; ip link set lan0 up; ip link set lan0 down; ip link set lan0 name eth0; ip link set eth0 up",
    "mtu changed": "ip link set {device} mtu 600",
    "pod route deleted": "ip route del {pod}",
    "pod neighbour deleted": "ip neigh del {pod} dev {link}",
    "pod link deleted": "ip link del {link}",
    "pod link down": "ip link set {link} down",
}


@pytest.mark.parametrize("act", ACTS)
def test_it_heals_within_three_seconds(pair, pods, act):
    one, two = pair.hosts
    target = two.pods[pods[1]][0]
    reaches(pods[0], target)
    before = routes(one)
    mac = json.loads(two.sh(f"ip -j link show {two.device}"))[0]["address"]
    link = next(attached.link for attached in one.network._pods._attached.values())
    one.sh(ACTS[act].format(device=one.device, mac=mac, pod=one.pods[pods[0]][0], link=link), check=False)
    assert reaches(pods[0], target) < 3
    assert reaches(pods[0], target, size=1450 - 28) < 3
    settled(lambda: routes(one) == before)


BOGUS = {
    "a route into our ranges": ("ip route add 10.42.77.0/24 via 10.42.77.0 dev {device} onlink", "ip route show 10.42.77.0/24"),
    "a second route": ("ip route add 10.42.1.0/24 via 10.42.9.0 dev {device} onlink metric 50", "ip route show 10.42.1.0/24 metric 50"),
    "a neighbour": ("ip neigh add 10.42.77.0 lladdr 02:00:00:00:00:77 dev {device} nud permanent", "ip neigh show 10.42.77.0 nud all"),
    "a forward": (
        "bridge fdb append 02:00:00:00:00:77 dst 192.168.50.77 dev {device} self permanent",
        "bridge fdb show dev {device} | grep 02:00:00:00:00:77 || true",
    ),
}


@pytest.mark.parametrize("what", BOGUS)
def test_what_does_not_belong_on_our_device_goes(pair, pods, what):
    one, _ = pair.hosts
    act, look = (text.format(device=one.device) for text in BOGUS[what])
    one.sh(act)
    gone(one, look)


def test_foreign_things_stay(pair, pods):
    one, _ = pair.hosts
    one.sh(
        "ip route add 172.30.0.0/16 via 192.168.50.1 dev eth0; ip neigh add 192.168.50.200 lladdr 02:00:00:00:00:99 dev eth0 nud permanent"
    )
    one.sh(f"ip link del {one.device}")
    reaches(pods[0], pair.hosts[1].pods[pods[1]][0])
    assert "172.30.0.0/16" in one.sh("ip route")
    assert "02:00:00:00:00:99" in one.sh("ip neigh")
    one.sh("ip route del 172.30.0.0/16; ip neigh del 192.168.50.200 dev eth0")


def gone(host, look, seconds=3.0):
    deadline = time.monotonic() + seconds
    while host.sh(look, check=False).strip():
        assert time.monotonic() < deadline, f"still there: {host.sh(look)}"


def test_a_new_address_is_followed_by_the_peer(pair, pods):
    one, two = pair.hosts
    target = two.pods[pods[1]][0]
    two.sh("ip addr flush dev eth0; ip addr add 192.168.50.88/24 dev eth0")
    assert reaches(pods[0], target) < 3
    gone(one, f"bridge fdb show dev {one.device} | grep 192.168.50.11 || true")
    assert "192.168.50.88" in one.sh(f"bridge fdb show dev {one.device}")


def test_an_uplink_that_is_made_anew_is_followed(pair, pods):
    two = pair.hosts[1]
    ns.sh(f"nsenter --net={two.netns} ip link del eth0")
    plug(pair.wire, two.netns, two.number, "192.168.50.89/24", name="wlan0")
    assert reaches(pods[0], two.pods[pods[1]][0]) < 3


def test_a_node_that_joins_is_reached_and_one_that_is_deleted_leaves_nothing(pair, pods):
    one, _ = pair.hosts
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n9"},
        "spec": {"podCIDR": "10.42.9.0/24", "podCIDRs": ["10.42.9.0/24"]},
    }
    status = {"addresses": [{"type": "InternalIP", "address": "192.168.50.99"}]}
    client = pair.api.live.client
    pair.api.run(client.create(NODE, node))
    pair.api.run(client.patch(NODE, "n9", "", {"status": status}, subresource="status"))
    present(one, "ip route show 10.42.9.0/24")
    pair.api.run(client.delete(NODE, "n9"))
    for look in (
        "ip route show 10.42.9.0/24",
        "ip neigh show 10.42.9.0 nud all",
        f"bridge fdb show dev {one.device} | grep 192.168.50.99 || true",
    ):
        gone(one, look)


def settled(condition, seconds=3.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"


def present(host, look, seconds=3.0):
    deadline = time.monotonic() + seconds
    while not host.sh(look, check=False).strip():
        assert time.monotonic() < deadline, f"never there: {look}"
