"""Tables over the small plans: namespace conditions, node ranges, pod garbage, aggregation, claims."""

from ipaddress import ip_network

import pytest

from edgekube.api.selectors import from_map
from edgekube.controllers.aggregation import plan_rules
from edgekube.controllers.claims import plan_claims
from edgekube.controllers.namespacecontent import Remains, plan_conditions
from edgekube.controllers.nodeipam import plan_ranges
from edgekube.controllers.podgc import plan_failed, plan_finished
from tests.unit.client.test_index import item
from tests.unit.controllers.test_replicas import pod


def test_a_namespace_says_what_is_left():
    remains = Remains(counts={"pods.": 2, "secrets.": 1}, finalizers={"x/y": 1})
    first = {c["type"]: c for c in plan_conditions((), remains, "t1")}
    assert first["NamespaceContentRemaining"]["message"] == (
        "Some resources are remaining: pods. has 2 resource instances, secrets. has 1 resource instances"
    )
    assert first["NamespaceFinalizersRemaining"]["message"] == (
        "Some content in the namespace has finalizers remaining: x/y in 1 resource instances"
    )
    assert (first["NamespaceDeletionContentFailure"]["status"], first["NamespaceDeletionContentFailure"]["reason"]) == (
        "False",
        "ContentDeleted",
    )
    then = {c["type"]: c for c in plan_conditions(list(first.values()), Remains(), "t2")}
    assert {c["status"] for c in then.values()} == {"False"}
    assert then["NamespaceContentRemaining"]["lastTransitionTime"] == "t2"
    assert then["NamespaceDeletionDiscoveryFailure"]["lastTransitionTime"] == "t1"


def test_a_namespace_keeps_the_conditions_of_others():
    foreign = {"type": "Mine", "status": "True"}
    assert foreign in plan_conditions([foreign], Remains(errors=["pods: no"]), "t")


@pytest.mark.parametrize(
    ("used", "count", "expected"),
    [
        ([], 2, ["10.42.0.0/24", "10.42.1.0/24"]),
        (["10.42.0.0/24", "10.42.2.0/24"], 2, ["10.42.1.0/24", "10.42.3.0/24"]),
        (["10.42.0.0/23", "192.168.0.0/24", "fd00::/64"], 1, ["10.42.2.0/24"]),
        (["10.42.1.128/25"], 2, ["10.42.0.0/24", "10.42.2.0/24"]),
        ([], 0, []),
    ],
)
def test_node_ranges(used, count, expected):
    assert plan_ranges(ip_network("10.42.0.0/16"), 24, used, count) == expected


def test_node_ranges_end():
    assert len(plan_ranges(ip_network("10.42.0.0/22"), 24, ["10.42.3.0/24"], 9)) == 3


def test_the_oldest_finished_pods_go():
    pods = [pod("a", created_at=3.0), pod("b", created_at=1.0), pod("c", created_at=2.0)]
    assert [p.key.name for p in plan_finished(pods, 1)] == ["b", "c"]
    assert plan_finished(pods, 3) == []


def test_a_lost_pod_has_failed():
    status = plan_failed("R", "m", "t")
    assert (status["phase"], status["conditions"][0]["type"], status["conditions"][0]["reason"]) == ("Failed", "DisruptionTarget", "R")


def test_aggregated_rules_are_listed_once():
    one, two = {"verbs": ["get"]}, {"verbs": ["list"]}
    assert plan_rules([{"rules": [one, two]}, {"rules": [two]}, {"rules": None}]) == [one, two]


def test_claims():
    selector = from_map({"app": "web"})
    mine, strayed = item("mine", labels={"app": "web"}, controller="rs"), item("strayed", labels={}, controller="rs")
    orphan, other = item("orphan", labels={"app": "web"}), item("other", labels={"app": "db"})
    plan = plan_claims(owner_deleting=False, selector=selector, owned=[mine, strayed], orphans=[orphan, other])
    assert (plan.kept, plan.adopted, plan.released) == ([mine], [orphan], [strayed])
    ending = plan_claims(owner_deleting=True, selector=selector, owned=[mine, strayed], orphans=[orphan])
    assert (ending.kept, ending.adopted, ending.released) == ([mine], [], [])
