"""Plans as tables: which routes, neighbours and FDB entries follow from which Nodes."""

import pytest

from edgekube.network.model import METRIC, Forward, Local, NeighbourAt, OverlayConfig, Peer, RouteTo, Subnet, Underlay
from edgekube.network.plan import link_local, overlay_mtu, peer_of, plan_node, plan_overlay, plan_pod, tunnel_mac, tunnel_mtu

OWN = Peer("a", ("10.42.0.0/24",), ("192.0.2.1",))
B = Peer("b", ("10.42.1.0/24",), ("192.0.2.2",))
FAR = Peer("far", ("10.42.2.0/24",), ("198.51.100.7",))
WIRE = Underlay("192.0.2.1", 3, 1500, (Subnet("192.0.2.0/24", "eth0"),))
VXLAN, DIRECT = OverlayConfig(instance="i"), OverlayConfig(instance="i", backend="host-gw")
DEVICE = VXLAN.device


def plan(*peers, own=OWN, underlay=WIRE, config=VXLAN, **more):
    return plan_overlay(own, peers, underlay=underlay, config=config, **more)


def test_alone_nothing_is_wanted():
    assert plan(OWN).wanted == plan().wanted
    assert plan().wanted.device is None


def test_without_an_address_or_a_range_nothing_is_wanted():
    assert plan(B, underlay=None).wanted.device is None
    assert plan(B, own=Peer("a", (), ())).wanted.device is None


def test_a_peer_costs_one_route_one_neighbour_one_forward():
    found, mac = plan(OWN, B).wanted, tunnel_mac("10.42.1.0/24")
    assert found.routes == {RouteTo("10.42.1.0/24", DEVICE, "10.42.1.0", "10.42.0.1")}
    assert found.neighbours == {NeighbourAt(DEVICE, "10.42.1.0", mac)}
    assert found.forwards == {Forward(DEVICE, mac, "192.0.2.2")}
    assert (found.device.local, found.device.uplink, found.device.mtu, found.device.mac) == (
        "192.0.2.1",
        3,
        1450,
        tunnel_mac("10.42.0.0/24"),
    )


def test_both_families_go_through_one_tunnel():
    own, peer = Peer("a", ("10.42.0.0/24", "fd42::/64"), ("192.0.2.1",)), Peer("b", ("10.42.1.0/24", "fd42:0:0:1::/64"), ("192.0.2.2",))
    found, mac = plan(peer, own=own).wanted, tunnel_mac("10.42.1.0/24")
    assert RouteTo("fd42:0:0:1::/64", DEVICE, link_local(mac), "fd42::1", 0, METRIC[6]) in found.routes
    assert NeighbourAt(DEVICE, link_local(mac), mac) in found.neighbours
    assert len(found.forwards) == 1


def test_a_family_we_have_no_range_of_is_left_out():
    found = plan(Peer("b", ("10.42.1.0/24", "fd42:0:0:1::/64"), ("192.0.2.2",))).wanted
    assert {route.dst for route in found.routes} == {"10.42.1.0/24"}


def test_host_gw_routes_neighbours_plainly_and_tunnels_to_the_rest():
    found = plan(B, FAR, config=DIRECT)
    assert RouteTo("10.42.1.0/24", "eth0", "192.0.2.2", "10.42.0.1") in found.wanted.routes
    assert RouteTo("10.42.2.0/24", DEVICE, "10.42.2.0", "10.42.0.1") in found.wanted.routes
    assert found.direct == {"b"}
    assert {forward.address for forward in found.wanted.forwards} == {"198.51.100.7"}


def test_host_gw_among_neighbours_needs_no_tunnel():
    assert plan(B, config=DIRECT).wanted.device is None


def test_a_smaller_path_is_written_into_the_route():
    (route,) = plan(B, path_mtu={"b": 1350}).wanted.routes
    assert route.mtu == 1350


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        (Peer("b", ("10.42.1.0/24",), ()), "no IPv4 address"),
        (Peer("b", ("10.42.1.0/24",), ("2001:db8::2",)), "no IPv4 address"),
        (Peer("b", ("10.42.1.0/24",), ("192.0.2.1",)), "which is ours"),
        (Peer("b", ("10.42.0.0/24",), ("192.0.2.2",)), "overlaps that of node a"),
        (Peer("b", ("10.42.0.0/16",), ("192.0.2.2",)), "overlaps that of node a"),
        (Peer("b", ("10.42.0.128/25",), ("192.0.2.2",)), "overlaps that of node a"),
    ],
)
def test_a_peer_that_can_not_be_is_refused_with_a_reason(peer, why):
    found = plan(peer, FAR)
    assert why in found.refused["b"]
    assert {route.dst for route in found.wanted.routes} == {"10.42.2.0/24"}


def test_of_two_with_the_same_range_the_first_by_name_has_it():
    found = plan(B, Peer("c", ("10.42.1.0/24",), ("192.0.2.3",)))
    assert list(found.refused) == ["c"]
    assert {forward.address for forward in found.wanted.forwards} == {"192.0.2.2"}


@pytest.mark.parametrize(
    ("config", "uplink", "pods", "tunnel"),
    [
        ({}, 1500, 1450, 1450),
        ({}, 1400, 1350, 1350),
        ({}, 9000, 1450, 1450),
        ({"mtu": 1300}, 1500, 1300, 1300),
        ({"mtu": 8000}, 9000, 8000, 8000),
        ({"backend": "host-gw"}, 1500, 1500, 1450),
        ({"backend": "host-gw"}, 1400, 1400, 1350),
    ],
)
def test_mtu_follows_setting_and_uplink(config, uplink, pods, tunnel):
    settings, wire = OverlayConfig(instance="i", **config), Underlay("192.0.2.1", 3, uplink)
    assert (overlay_mtu(settings, wire), tunnel_mtu(settings, wire)) == (pods, tunnel)


def test_ipv6_underlay_leaves_less():
    assert overlay_mtu(VXLAN, Underlay("2001:db8::1", 3, 1500)) == 1430


def test_the_tunnel_mac_is_unicast_local_and_the_same_everywhere():
    macs = {tunnel_mac(f"10.42.{number}.0/24") for number in range(256)}
    assert len(macs) == 256
    assert {int(mac[:2], 16) & 3 for mac in macs} == {2}
    assert tunnel_mac("10.42.0.0/24") == tunnel_mac("10.42.0.0/24")


def test_a_node_is_read_without_what_does_not_matter():
    node = {
        "metadata": {"name": "b"},
        "spec": {"podCIDR": "10.42.1.0/24"},
        "status": {"addresses": [{"type": "Hostname", "address": "b"}, {"type": "InternalIP", "address": "192.0.2.2"}]},
    }
    assert peer_of(node) == B
    node["status"]["addresses"] = [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "InternalIP", "address": "nonsense"}]
    assert peer_of(node).addresses == ()


def test_the_node_itself_and_a_pod():
    found = plan_node(OWN, services=("10.43.0.0/16", "fd43::/112"), dns=("10.43.0.10",))
    assert found.addresses == {Local("lo", "10.42.0.1/32"), Local("lo", "10.43.0.10/32")}
    assert found.routes == {RouteTo("10.43.0.0/16", "lo", "", "10.42.0.1")}
    pod = plan_pod({4: "10.42.0.1"}, "ek1", ("10.42.0.7",), "02:00:00:00:00:01")
    assert pod.routes == {RouteTo("10.42.0.7/32", "ek1", "", "10.42.0.1")}
    assert plan_pod({4: "10.42.0.1"}, "ek1", ("10.42.0.7",), "").neighbours == frozenset()
