"""EndpointSlices as a table over plan_slices; endpoints and ports as the controllers show them."""

import pytest

from edgekube.api.selectors import from_map
from edgekube.api.types import Key
from edgekube.controllers.endpointslice import endpoint, slice_ports
from edgekube.controllers.pods import PodFacts
from edgekube.controllers.services import ServiceFacts, TriggerTimes, port_number
from edgekube.controllers.slices import MANAGED_BY, MANAGER, Group, new_slice, plan_slices
from edgekube.controllers.subsets import plan_subsets, truncate

HTTP = {"name": "http", "port": 80, "protocol": "TCP"}


def service(**facts):
    known = {
        "key": Key("default", "web"),
        "uid": "svc",
        "selector": from_map({"app": "web"}),
        "ports": ({"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},),
        "headless": False,
        "has_ip": True,
        "publish_unready": False,
        "families": ("IPv4",),
        "labels": {"team": "x"},
        "created": "2026-01-01T00:00:00Z",
        "distribution": "",
        "deleting": False,
    }
    return ServiceFacts(**(known | facts))


def pod(name, **facts):
    known = {"uid": name, "node": "n1", "phase": "Running", "deleting": False, "ready": True, "ready_at": 1.0, "created_at": 1.0}
    rest = {"restarts": 0, "sidecar_restarts": 0, "deletion_cost": 0, "hostname": "", "subdomain": ""}
    rest |= {"ips": (f"10.0.0.{len(name)}",), "ports": (("http", "TCP", 8080),), "ready_since": "2026-01-01T00:00:01Z"}
    return PodFacts(key=Key("default", name), **(known | rest | facts))


def ep(n, ready=True):
    return {
        "addresses": [f"10.0.{n // 256}.{n % 256}"],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        "targetRef": {"kind": "Pod", "namespace": "default", "name": f"p{n}", "uid": f"p{n}"},
    }


def stored(name, endpoints, ports=(HTTP,), svc=None):
    obj = new_slice(svc or service(), "IPv4", list(ports), endpoints)
    obj["metadata"] |= {"name": name, "uid": name, "resourceVersion": "1"}
    return obj


def plan(existing, endpoints, svc=None):
    return plan_slices(svc or service(), existing, {"IPv4": [Group([HTTP], endpoints)] if endpoints else []})


def sizes(objs):
    return [len(obj["endpoints"]) for obj in objs]


def test_many_pods_make_slices_of_a_hundred():
    made = plan([], [ep(n) for n in range(250)])
    assert sizes(made.create) == [100, 100, 50]
    assert made.create[0]["metadata"]["labels"] == {"team": "x", "kubernetes.io/service-name": "web", MANAGED_BY: MANAGER}
    assert made.create[0]["metadata"]["ownerReferences"][0]["uid"] == "svc"


def test_nothing_to_do():
    assert plan([stored("a", [ep(1), ep(2)])], [ep(2), ep(1)]).nothing


def test_a_change_of_readiness_rewrites_its_slice_only():
    changed = plan([stored("a", [ep(1)]), stored("b", [ep(2)])], [ep(1, ready=False), ep(2)])
    assert [obj["metadata"]["name"] for obj in changed.update] == ["a"]
    assert not changed.create
    assert not changed.delete


def test_new_endpoints_fill_the_slice_that_changes_anyway():
    changed = plan([stored("a", [ep(1), ep(2)]), stored("b", [ep(3)])], [ep(1), ep(3), ep(4)])
    assert [obj["metadata"]["name"] for obj in changed.update] == ["a"]
    assert [e["targetRef"]["name"] for e in changed.update[0]["endpoints"]] == ["p1", "p4"]


def test_what_is_left_goes_where_all_of_it_fits_best():
    full, half = stored("a", [ep(n) for n in range(100)]), stored("b", [ep(n) for n in range(100, 150)])
    changed = plan([full, half], [ep(n) for n in range(160)])
    assert [(obj["metadata"]["name"], len(obj["endpoints"])) for obj in changed.update] == [("b", 60)]
    more = plan([stored("b", [ep(n) for n in range(50)])], [ep(n) for n in range(130)])
    assert (sizes(more.create), more.update) == ([80], [])


def test_an_emptied_slice_goes_but_never_the_last():
    two = plan([stored("a", [ep(1)]), stored("b", [ep(2)])], [ep(1)])
    assert [obj["metadata"]["name"] for obj in two.delete] == ["b"]
    last = plan([stored("a", [ep(1)])], [])
    assert (sizes(last.update), last.create, last.delete) == ([0], [], [])
    assert last.update[0]["metadata"]["name"] == "a"
    assert plan([stored("a", [], ports=())], []).nothing
    assert sizes(plan([], []).create) == [0]


def test_slices_of_an_old_service_of_that_name_are_replaced():
    old = plan([stored("a", [ep(1)], svc=service(uid="old"))], [ep(1)])
    assert [obj["metadata"]["name"] for obj in old.delete] == ["a"]
    assert sizes(old.create) == [1]


def test_other_ports_reuse_the_slice():
    changed = plan([stored("a", [ep(1)], ports=({"name": "http", "port": 81, "protocol": "TCP"},))], [ep(1)])
    assert [(obj["metadata"]["name"], obj["ports"]) for obj in changed.update] == [("a", [HTTP])]
    assert changed.update[0]["metadata"]["resourceVersion"] == "1"


def test_labels_of_the_service_follow():
    changed = plan([stored("a", [ep(1)])], [ep(1)], service(labels={"team": "y"}, has_ip=False))
    labels = changed.update[0]["metadata"]["labels"]
    assert (labels["team"], labels["service.kubernetes.io/headless"]) == ("y", "")


@pytest.mark.parametrize(
    ("facts", "publish", "conditions"),
    [
        ({}, False, (True, True, False)),
        ({"ready": False}, False, (False, False, False)),
        ({"ready": False}, True, (True, False, False)),
        ({"deleting": True}, False, (False, True, True)),
        ({"deleting": True}, True, (True, True, True)),
    ],
)
def test_conditions(facts, publish, conditions):
    shown = endpoint(service(publish_unready=publish), pod("a", **facts), ["10.0.0.1"], "z1")["conditions"]
    assert (shown["ready"], shown["serving"], shown["terminating"]) == conditions


def test_host_name_zone_and_hints():
    shown = endpoint(service(distribution="PreferSameNode"), pod("a", hostname="a", subdomain="web"), ["10.0.0.1"], "z1")
    assert (shown["hostname"], shown["zone"], shown["nodeName"]) == ("a", "z1", "n1")
    assert shown["hints"] == {"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]}
    plain = endpoint(service(), pod("a", hostname="a", subdomain="other"), ["10.0.0.1"], "")
    assert not {"hostname", "zone", "hints"} & set(plain)


@pytest.mark.parametrize(
    ("port", "number"),
    [
        ({"port": 80}, 80),
        ({"port": 80, "targetPort": 8080}, 8080),
        ({"port": 1, "targetPort": "http"}, 8080),
        ({"port": 1, "targetPort": "x"}, None),
    ],
)
def test_ports(port, number):
    assert port_number(pod("a"), port) == number


def test_a_named_port_counts_for_its_protocol_only():
    assert slice_ports(service(ports=({"name": "a", "port": 1, "targetPort": "http", "protocol": "UDP"},)), pod("a")) == []


def test_subsets_group_by_ports_and_readiness():
    pods = [
        pod("a"),
        pod("bb", ready=False),
        pod("ccc", ports=(("http", "TCP", 9090),)),
        pod("dddd", deleting=True),
        pod("eeeee", phase="Failed"),
    ]
    first, second = plan_subsets(service(), pods)
    assert [a["ip"] for a in first["addresses"]] == ["10.0.0.1"]
    assert [a["ip"] for a in first["notReadyAddresses"]] == ["10.0.0.2"]
    assert first["ports"] == [{"port": 8080, "protocol": "TCP", "name": "http"}]
    assert second["ports"][0]["port"] == 9090
    everyone = plan_subsets(service(publish_unready=True), pods)
    assert [len(s["addresses"]) for s in everyone] == [3, 1]
    assert "ports" not in plan_subsets(service(ports=(), headless=True, has_ip=False), pods)[0]


def test_too_many_addresses_are_cut_ready_ones_kept():
    subsets = [{"addresses": [{"ip": str(n)} for n in range(3)], "notReadyAddresses": [{"ip": "x"}, {"ip": "y"}], "ports": []}]
    kept, cut = truncate(subsets, 4)
    assert cut
    assert [len(kept[0]["addresses"]), len(kept[0]["notReadyAddresses"])] == [3, 1]
    assert truncate(subsets, 5) == (subsets, False)


def test_trigger_is_the_earliest_news():
    times = TriggerTimes()
    assert times.compute(service(), [pod("a")]) == "2026-01-01T00:00:00Z"
    assert times.compute(service(), [pod("a")]) == ""
    news = [pod("a"), pod("b", ready_since="2026-01-01T00:00:09Z"), pod("c", ready_since="2026-01-01T00:00:05Z")]
    assert times.compute(service(), news) == "2026-01-01T00:00:05Z"
