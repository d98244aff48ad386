"""From pod and nodes to one name or upstream's words."""

import random

import pytest

from edgekube.scheduler.component import plan_condition
from edgekube.scheduler.cycle import Unfit, find_node
from edgekube.scheduler.plugins import Plugins
from tests.unit.scheduler.build import cluster, node_item, pod

PLUGINS = Plugins(dict)
TAINT = {"key": "a", "effect": "NoSchedule"}


def place(wanting, world):
    return find_node(wanting, world.nodes(), PLUGINS, random.Random(1))


def test_no_nodes():
    assert place(pod(), cluster()) == Unfit("no nodes available to schedule pods", frozenset())


def test_messages_count_reasons_and_say_why_preemption_would_not_help():
    world = cluster(node_item("a", taints=[TAINT]), node_item("b", unschedulable=True), node_item("c"), pods=[("c", pod(cpu="3500m"))])
    found = place(pod(cpu="1"), world)
    assert found.message == (
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. "
        "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
    )
    assert found.rejecters == {"NodeResourcesFit", "TaintToleration", "NodeUnschedulable"}


def test_nothing_is_claimed_of_preemption_where_there_are_lesser_pods():
    found = place(pod(cpu="3", priority=5), cluster(node_item("a"), pods=[("a", pod(cpu="3"))]))
    assert found.message == "0/1 nodes are available: 1 Insufficient cpu."


def test_pods_that_never_preempt_say_so():
    found = place(pod(cpu="100", preemptionPolicy="Never"), cluster(node_item("a")))
    assert found.message == "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."


def test_nodes_outside_the_named_ones():
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]
    spec = {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}
    assert place(pod(**spec), cluster(node_item("a"), node_item("b"))) == "a"
    found = place(pod(cpu="100", **spec), cluster(node_item("a"), node_item("b")))
    assert found.message.startswith("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity].")


def test_replicas_part_over_nodes():
    world = cluster(node_item("a"), node_item("b"), node_item("c"))
    used = set()
    for _ in range(3):
        wanting = pod()
        name = place(wanting, world)
        world.assume(wanting, name)
        used.add(name)
    assert used == {"a", "b", "c"}


def test_what_is_assumed_counts_until_forgotten():
    world, wanting = cluster(node_item("a")), pod(cpu="3")
    world.assume(wanting, "a")
    assert isinstance(place(pod(cpu="2"), world), Unfit)
    assert world.forget(wanting.uid)
    assert place(pod(cpu="2"), world) == "a"
    assert not world.forget(wanting.uid)


def test_a_node_that_comes_back_still_has_its_pods():
    world = cluster(node_item("a"), pods=[("a", pod(cpu="3"))])
    world.drop_node("a")
    assert place(pod(), world).message == "no nodes available to schedule pods"
    world.set_node(node_item("a"))
    assert isinstance(place(pod(cpu="2"), world), Unfit)


BEFORE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m", "lastTransitionTime": "then"}


@pytest.mark.parametrize(
    ("conditions", "since"),
    [([], "now"), ([BEFORE], None), ([BEFORE | {"message": "other"}], "then"), ([BEFORE | {"status": "True"}], "now")],
)
def test_condition(conditions, since):
    found = plan_condition({"metadata": {"uid": "u", "generation": 2}, "status": {"conditions": conditions}}, "Unschedulable", "m", "now")
    if since is None:
        assert found is None
        return
    condition = found["status"]["conditions"][0]
    assert (condition["lastTransitionTime"], condition["observedGeneration"], condition["status"]) == (since, 2, "False")
