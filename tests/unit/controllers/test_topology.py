"""Zone hints by topology-mode: Auto, as tables."""

import pytest

from edgekube.controllers.topology import NodeShare, node_share, plan_hints, ratios, wants_hints

HALVES = {"a": 0.5, "b": 0.5}


def endpoints(**zones):
    """a=2, b=1: two ready endpoints in zone a, one in b, in this order."""
    made = [zone for zone, count in zones.items() for _ in range(count)]
    return [{"addresses": [f"10.42.0.{number}"], "zone": zone, "conditions": {"ready": True}} for number, zone in enumerate(made)]


def counts(hints):
    return {zone: list(hints.zones.values()).count(zone) for zone in sorted(set(hints.zones.values()))}


@pytest.mark.parametrize(
    ("share", "zones", "expected"),
    [
        (HALVES, {"a": 3, "b": 3}, {"a": 3, "b": 3}),
        (HALVES, {"a": 6, "b": 0}, {"a": 3, "b": 3}),
        (HALVES, {"a": 5, "b": 1}, {"a": 3, "b": 3}),
        ({"a": 0.75, "b": 0.25}, {"a": 2, "b": 2}, {"a": 3, "b": 1}),
        ({"a": 0.4, "b": 0.3, "c": 0.3}, {"a": 4, "b": 3, "c": 3}, {"a": 4, "b": 3, "c": 3}),
        ({"a": 0.5, "b": 0.25, "c": 0.25}, {"a": 12}, {"a": 6, "b": 3, "c": 3}),
    ],
)
def test_endpoints_are_shared_out_by_cpus(share, zones, expected):
    hints = plan_hints(endpoints(**zones), share, {})
    assert hints.why_not == ""
    assert counts(hints) == expected


@pytest.mark.parametrize(
    ("share", "made", "why"),
    [
        ({}, endpoints(a=2, b=2), "Insufficient Node information"),
        (HALVES, endpoints(a=1), "Insufficient number of endpoints (1 endpoints, 2 zones)"),
        ({"a": 0.5, "b": 0.25, "c": 0.25}, endpoints(a=1, b=1, c=1), "without exceeding overload threshold (3 endpoints, 3 zones)"),
        (HALVES, [*endpoints(a=3), {"addresses": ["10.42.0.9"], "conditions": {"ready": True}}], "do not have a zone specified"),
    ],
)
def test_reasons_for_no_hints(share, made, why):
    hints = plan_hints(made, share, {})
    assert (hints.zones, why in hints.why_not) == ({}, True)


def test_hints_that_fit_stay_and_the_same_input_gives_the_same_answer():
    made = endpoints(a=4)
    first = plan_hints(made, HALVES, {})
    assert plan_hints(list(reversed(made)), HALVES, first.zones) == first
    turned = {address: {"a": "b", "b": "a"}[zone] for address, zone in first.zones.items()}
    assert plan_hints(made, HALVES, turned).zones == turned
    assert counts(plan_hints(made, HALVES, dict.fromkeys(first.zones, "a"))) == {"a": 2, "b": 2}
    assert "gone" not in plan_hints(made, HALVES, dict.fromkeys(first.zones, "gone")).zones.values()


def test_unready_endpoints_get_and_count_nothing():
    made = endpoints(a=2, b=2)
    made[0]["conditions"]["ready"] = False
    assert made[0]["addresses"][0] not in plan_hints(made, HALVES, {}).zones


def node(zone="a", cpu="2", ready="True", **labels):
    labels = {"topology.kubernetes.io/zone": zone, **labels} if zone else labels
    return {"metadata": {"labels": labels}, "status": {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": ready}]}}


def test_shares_of_zones():
    assert node_share(node()) == NodeShare("a", 2000)
    assert node_share(node(ready="Unknown")).zone is None
    assert node_share(node(**{"node-role.kubernetes.io/control-plane": ""})).zone is None
    assert ratios(map(node_share, [node(), node("b", "6"), node("c", ready="False")])) == {"a": 0.25, "b": 0.75}
    assert ratios(map(node_share, [node(), node("a")])) == {}
    assert ratios(map(node_share, [node(), node("b"), node("")])) == {}


@pytest.mark.parametrize(
    ("annotations", "wanted"),
    [
        ({}, False),
        ({"service.kubernetes.io/topology-mode": "Auto"}, True),
        ({"service.kubernetes.io/topology-aware-hints": "auto"}, True),
        ({"service.kubernetes.io/topology-mode": "Auto", "service.kubernetes.io/topology-aware-hints": "disabled"}, False),
        ({"service.kubernetes.io/topology-mode": "on"}, False),
    ],
)
def test_who_wants_hints(annotations, wanted):
    assert wants_hints(annotations) is wanted
