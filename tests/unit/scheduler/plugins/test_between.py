"""Tables over the plugins that look at where other pods are: pod affinity, anti-affinity, topology spread."""

import pytest

from edgekube.scheduler.plugins.interpodaffinity import InterPodAffinity
from edgekube.scheduler.plugins.podtopologyspread import PodTopologySpread
from tests.unit.scheduler.build import cluster, node_item, pod, scores, verdict

ZONE = "topology.kubernetes.io/zone"
NODES = [node_item("a1", labels={ZONE: "a"}), node_item("a2", labels={ZONE: "a"}), node_item("b1", labels={ZONE: "b"})]
NAMESPACES = {"default": {"team": "x"}, "other": {"team": "y"}}
WEB = {"app": "web"}


def term(labels, *, topology=ZONE, **more):
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": topology, **more}


def near(*terms):
    return {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}}


def far(*terms):
    return {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}}


def plugin():
    return InterPodAffinity(lambda: NAMESPACES)


def fitting(tested, wanting, pods):
    world = cluster(*NODES, pods=pods)
    return {node.name for node in world.nodes() if verdict(tested, wanting, world, node.name) is None}


EVERYWHERE = {"a1", "a2", "b1"}


@pytest.mark.parametrize(
    ("spec", "there", "expected"),
    [
        ({}, [("a1", {"labels": WEB})], EVERYWHERE),
        (near(term(WEB)), [("a1", {"labels": WEB})], {"a1", "a2"}),
        (near(term(WEB, topology="kubernetes.io/hostname")), [("a1", {"labels": WEB})], {"a1"}),
        (near(term(WEB)), [], set()),
        (near(term({"app": "self"})), [], EVERYWHERE),  # the first of its group
        (near(term(WEB), term({"app": "db"})), [("a1", {"labels": WEB}), ("b1", {"labels": {"app": "db"}})], set()),
        (near(term(WEB)), [("a1", {"labels": WEB, "namespace": "other"})], set()),
        (near(term(WEB, namespaces=["other"])), [("a1", {"labels": WEB, "namespace": "other"})], {"a1", "a2"}),
        (
            near(term(WEB, namespaceSelector={"matchLabels": {"team": "y"}})),
            [("b1", {"labels": WEB, "namespace": "other"})],
            {"b1"},
        ),
        (far(term(WEB)), [("a1", {"labels": WEB})], {"b1"}),
        (far(term(WEB)), [], EVERYWHERE),
        (far(term(WEB, topology="missing")), [("a1", {"labels": WEB})], EVERYWHERE),
        ({}, [("b1", far(term({"app": "self"})))], {"a1", "a2"}),  # what is there refuses the newcomer
        ({}, [("b1", far(term({"app": "someone"})))], EVERYWHERE),
    ],
)
def test_required(spec, there, expected):
    pods = [(node, pod(**more)) for node, more in there]
    assert fitting(plugin(), pod(labels={"app": "self"}, **spec), pods) == expected


def test_reasons_as_upstream_words_them():
    world = cluster(*NODES, pods=[("a1", pod(labels=WEB, **far(term({"app": "self"}))))])
    assert verdict(plugin(), pod(**near(term({"app": "no"}))), world).reasons == ("node(s) didn't match pod affinity rules",)
    assert verdict(plugin(), pod(**far(term(WEB))), world).reasons == ("node(s) didn't match pod anti-affinity rules",)
    refused = verdict(plugin(), pod(labels={"app": "self"}), world)
    assert refused.reasons == ("node(s) didn't satisfy existing pods anti-affinity rules",)


def test_preferred():
    entry = {"weight": 100, "podAffinityTerm": term(WEB)}
    wanting = pod(affinity={"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [entry]}})
    pods = [("a1", pod(labels=WEB))]
    assert scores(plugin(), wanting, cluster(*NODES, pods=pods)) == {"a1": 100, "a2": 100, "b1": 0}
    avoiding = pod(affinity={"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [entry]}})
    assert scores(plugin(), avoiding, cluster(*NODES, pods=pods)) == {"a1": 0, "a2": 0, "b1": 100}


def spread(topology=ZONE, *, skew=1, soft=False, **more):
    action = "ScheduleAnyway" if soft else "DoNotSchedule"
    entry = {"maxSkew": skew, "topologyKey": topology, "whenUnsatisfiable": action, "labelSelector": {"matchLabels": WEB}, **more}
    return {"topologySpreadConstraints": [entry]}


@pytest.mark.parametrize(
    ("spec", "there", "expected"),
    [
        (spread(), [], EVERYWHERE),
        (spread(), ["a1"], {"b1"}),
        (spread(), ["a1", "b1"], EVERYWHERE),
        (spread(skew=2), ["a1"], EVERYWHERE),
        (spread("kubernetes.io/hostname"), ["a1", "b1"], {"a2"}),
        (spread("missing"), [], set()),
        (spread(minDomains=3), ["a1", "b1"], set()),
        (spread(soft=True), ["a1", "a2", "a1"], EVERYWHERE),
        (spread() | {"nodeSelector": {ZONE: "a"}}, ["a1"], EVERYWHERE),  # only zone a counts; the selector itself is another plugin's
    ],
)
def test_spread(spec, there, expected):
    pods = [(node, pod(labels=WEB)) for node in there]
    assert fitting(PodTopologySpread(), pod(labels=WEB, **spec), pods) == expected


def test_spread_reasons():
    world = cluster(*NODES, pods=[("a1", pod(labels=WEB))])
    skewed = verdict(PodTopologySpread(), pod(labels=WEB, **spread()), world, "a1")
    assert skewed.reasons == ("node(s) didn't match pod topology spread constraints",)
    missing = verdict(PodTopologySpread(), pod(labels=WEB, **spread("no")), world, "a1")
    assert missing.reasons == ("node(s) didn't match pod topology spread constraints (missing required label)",)


def test_soft_spread_prefers_the_emptier_zone():
    world = cluster(*NODES, pods=[("a1", pod(labels=WEB)), ("a2", pod(labels=WEB))])
    found = scores(PodTopologySpread(), pod(labels=WEB, **spread(soft=True)), world)
    assert found["b1"] > found["a1"] == found["a2"]
