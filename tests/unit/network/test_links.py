"""Links in real network namespaces: made once, found again, replaced when half-made, removed without a trace."""

import json

import pytest

from edgekube.network import links
from edgekube.network.links import Attachment
from edgekube.network.thread import inside
from tests.kit import netns as ns
from tests.kit.requires import needs

pytestmark = needs("root", "netns", "busybox")

OWN, SERVICES, DNS, POD = "10.42.0.1", "10.43.0.0/16", "10.43.0.10", "10.42.0.7"


@pytest.fixture
def host():
    with ns.namespace() as path:
        yield path


@pytest.fixture
def pod():
    with ns.namespace() as path:
        yield path


def on(path, work, *args, **kwargs):
    def run():
        from pyroute2 import IPRoute

        with IPRoute() as route:
            return work(route, *args, **kwargs)

    return ns.call_inside(path, run)


def attach(host, pod, uid="u1"):
    on(host, links.ensure_node, own=OWN, service_cidr=SERVICES, dns=DNS)
    wanted = Attachment(uid, links.link_name("i", uid), POD)
    on(host, links.ensure_pod, wanted, instance="i", netns=pod, source=OWN)
    return wanted


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
    on(host, links.ensure_node, own=OWN, service_cidr=SERVICES, dns=DNS)
    name = links.link_name("i", "u1")
    on(host, links._make_veth, name, pod)
    assert on(host, links.attachments, "i") == [Attachment(name, name, "")]
    attach(host, pod)
    assert "0% packet loss" in ns.inside(host, f"busybox ping -c1 -W2 {POD}")


def test_removal_leaves_nothing(host, pod):
    before = json.loads(ns.inside(host, "ip -j addr")), ns.inside(host, "ip route")
    wanted = attach(host, pod)
    on(host, links.remove_link, wanted.link)
    on(host, links.remove_link, wanted.link)
    on(host, links.remove_node)
    on(host, links.remove_node)
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
