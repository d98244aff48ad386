"""Links in real network namespaces: made once, found again, replaced when half-made, removed without a trace."""

import json

import pytest

from edgekube.network import kernel, links
from edgekube.network.links import Attachment
from edgekube.network.model import OverlayConfig
from edgekube.network.thread import inside
from tests.kit import netns as ns
from tests.kit.podnet import connect_pod, on, prepare_host
from tests.kit.requires import needs

pytestmark = needs("root", "netns", "busybox")

DNS, POD = "10.43.0.10", "10.42.0.7"


@pytest.fixture
def host():
    with ns.namespace() as path:
        yield path


@pytest.fixture
def pod():
    with ns.namespace() as path:
        yield path


def attach(host, pod, uid="u1"):
    prepare_host(host, instance="i")
    return connect_pod(host, pod, POD, uid=uid, instance="i")


def picture(path):
    found = json.loads(ns.inside(path, "ip -j link"))
    return [(link["ifname"], link["address"]) for link in found], ns.inside(path, "ip route; ip neigh; ip addr show lo")


def test_pod_and_host_reach_each_other_both_ways(host, pod):
    attach(host, pod)
    assert "0% packet loss" in ns.inside(host, f"busybox ping -c1 -W2 {POD}")
    assert "0% packet loss" in ns.inside(pod, f"busybox ping -c1 -W2 {DNS}")


def test_twice_is_once(host, pod):
    attach(host, pod)
    before = picture(host)
    attach(host, pod)
    assert picture(host) == before


def test_attachments_are_found_in_the_kernel_alone(host, pod):
    wanted = attach(host, pod)
    assert on(host, links.attachments, "i") == [wanted]
    assert on(host, links.attachments, "another instance") == []


def test_a_half_made_link_is_found_and_replaced(host, pod):
    prepare_host(host, instance="i")
    name = links.link_name("i", "u1")
    on(host, links._make_veth, name, pod)
    assert on(host, links.attachments, "i") == [Attachment(name, name, ())]
    attach(host, pod)
    assert "0% packet loss" in ns.inside(host, f"busybox ping -c1 -W2 {POD}")


def test_removal_leaves_nothing(host, pod):
    before = json.loads(ns.inside(host, "ip -j addr")), ns.inside(host, "ip route")
    wanted = attach(host, pod)
    on(host, links.remove_link, wanted.link)
    on(host, links.remove_link, wanted.link)
    on(host, kernel.remove, OverlayConfig(instance="i"))
    on(host, kernel.remove, OverlayConfig(instance="i"))
    after = json.loads(ns.inside(host, "ip -j addr")), ns.inside(host, "ip route")
    assert after == before


def test_inside_does_not_leave_the_thread_in_the_other_namespace(host, pod):
    def check(route):
        with inside(pod) as other:
            other.link("add", ifname="only-in-pod", kind="veth", peer={"ifname": "peer"})
        return route.link_lookup(ifname="only-in-pod")

    assert on(host, check) == []
    assert "only-in-pod" in ns.inside(pod, "ip -o link")


def test_a_pod_cannot_use_an_address_that_is_not_its_own(host, pod):
    attach(host, pod)
    ns.inside(pod, "ip addr add 10.42.0.99/32 dev eth0")
    assert "100% packet loss" in ns.sh(f"nsenter --net={pod} busybox ping -c1 -W1 -I 10.42.0.99 {DNS} || true")


def test_a_link_with_another_name_is_replaced_under_its_own(host, pod):
    wanted = attach(host, pod)
    ns.inside(host, f"ip link set {wanted.link} down && ip link set {wanted.link} name stolen0 && ip link set stolen0 up")
    again = attach(host, pod)
    assert again.link == wanted.link
    assert "stolen0" not in ns.inside(host, "ip -o link")
    assert "0% packet loss" in ns.inside(host, f"busybox ping -c1 -W2 {POD}")


def test_a_pod_with_two_families_is_reached_over_both(host, pod):
    prepare_host(host, ranges=("10.42.0.0/24", "fd42::/64"), instance="i")
    found = connect_pod(host, pod, POD, "fd42::7", uid="u1", instance="i", sources={4: "10.42.0.1", 6: "fd42::1"})
    assert on(host, links.attachments, "i") == [found]
    assert "0% packet loss" in ns.inside(host, f"busybox ping -c1 -W2 {POD}")
    assert "0% packet loss" in ns.inside(host, "busybox ping -6 -c1 -W2 fd42::7")
    assert "0% packet loss" in ns.inside(pod, "busybox ping -6 -c1 -W2 fd42::1")
