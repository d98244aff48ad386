"""From policies to what a node enforces: tables, and random small clusters against a direct reading of upstream's text."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekube.api.selectors import EVERYTHING, from_map
from edgekube.api.types import Key
from edgekube.controllers.policypeers import Candidate, Member, PeerIndex, PeerKey
from edgekube.netpolicy.model import Match, NodeModel, SetRef
from edgekube.netpolicy.ruleset import NOTHING, Frame, difference, tables_of, whole
from edgekube.netpolicy.slices import networks, numbers, read_slice
from tests.unit.netpolicy.world import PORTS, Pod, World, judged, xyz


@pytest.mark.parametrize(
    ("wanted", "named", "expected"),
    [
        ([{"port": 80}], (), {"tcp": ((80, 80),)}),
        ([{"port": 80, "protocol": "UDP"}, {"port": 53, "protocol": "UDP"}], (), {"udp": ((53, 53), (80, 80))}),
        ([{"port": 80, "endPort": 90}, {"port": 85, "endPort": 95}, {"port": 96}], (), {"tcp": ((80, 96),)}),
        ([{"protocol": "SCTP"}, {"protocol": "SCTP", "port": 1}], (), {"sctp": ()}),
        ([{"port": "web"}], (("web", "TCP", 8080), ("web", "UDP", 1), ("other", "TCP", 2)), {"tcp": ((8080, 8080),)}),
        ([{"port": "web"}], (("web", "TCP", 8080), ("web", "TCP", 8081)), {"tcp": ((8080, 8081),)}),
        ([{"port": "web"}], (), {}),
    ],
)
def test_ports(wanted, named, expected):
    assert numbers(wanted, named) == expected


TEN = 10 << 24


@pytest.mark.parametrize(
    ("blocks", "family", "expected"),
    [
        ((("10.0.0.0/8",),), 4, ((TEN, TEN + 2**24 - 1),)),
        ((("10.0.0.0/8",),), 6, ()),
        ((("10.0.0.0/30", "10.0.0.1/32"),), 4, ((TEN, TEN), (TEN + 2, TEN + 3))),
        ((("10.0.0.0/30", "10.0.0.0/31", "10.0.0.0/32"),), 4, ((TEN + 2, TEN + 3),)),
        ((("10.0.0.0/30", "10.0.0.2/31"),), 4, ((TEN, TEN + 1),)),
        ((("10.0.0.0/30", "10.0.0.0/31", "10.0.0.2/31"),), 4, ()),
        ((("10.0.0.0/30", "10.0.0.1/32"), ("10.0.0.1/32",)), 4, ((TEN, TEN + 3),)),  # the union: another block gives back what one excepts
        ((("0.0.0.0/0",),), 4, ((0, 2**32 - 1),)),
        ((("::/126", "::/127"),), 6, ((2, 3),)),
    ],
)
def test_ranges(blocks, family, expected):
    assert networks(blocks, family) == expected


def test_thousands_of_exceptions_are_no_work():
    holes = [f"10.{number // 256}.{number % 256}.7/32" for number in range(20000)]
    began = time.perf_counter()
    assert len(networks((("0.0.0.0/0", *holes),), 4)) == 20001
    assert time.perf_counter() - began < 2


def test_the_index_touches_only_what_can_match():
    asked = []
    index = PeerIndex(lambda space: asked.append(space) or [])
    index.namespace("x", {"team": "a"})
    index.namespace("y", {"team": "b"})
    own, wide, every = PeerKey("x", None, from_map({"app": "web"})), PeerKey("", from_map({"team": "b"}), EVERYTHING), PeerKey("", EVERYTHING, from_map({"app": "db"}))
    index.hold(Key("x", "one"), [own])
    index.hold(Key("x", "two"), [own, wide])
    index.hold(Key("z", "three"), [every])
    assert asked == ["x", "y", ""]  # the shared group was asked for once

    def pod(space, name, labels, member):
        return index.pod(Candidate(Key(space, name), labels, member))

    member = Member("n", ("10.0.0.1",))
    assert pod("x", "a", {"app": "web"}, member) == {Key("x", "one"), Key("x", "two")}
    assert pod("x", "a", {"app": "web"}, member) == set()  # nothing that matters has changed
    assert pod("y", "b", {"app": "web"}, member) == {Key("x", "two")}
    assert pod("y", "b", {"app": "db"}, member) == {Key("z", "three")}
    assert pod("y", "b", {}, None) == {Key("x", "two"), Key("z", "three")}
    assert index.namespace("x", {"team": "b"}) == {Key("x", "two")}
    assert sorted(index.spaces(wide)) == ["x", "y"]
    assert index.spaces(every) is None
    index.hold(Key("x", "one"), ())
    assert pod("x", "a", {}, None) == {Key("x", "two")}
    index.hold(Key("x", "two"), ())
    index.hold(Key("z", "three"), ())
    assert len(index) == 0
    assert pod("x", "a", {"app": "web"}, member) == set()


def test_a_node_takes_its_own_pods_from_itself_and_others_from_the_slice():
    world = xyz()
    world.pods[Key("x", "b")].node = "other"
    world.put(world.pods[Key("x", "b")])
    world.policy("x", "p", {"ingress": [{"from": [{"podSelector": {}}]}]})
    slices = world.slices()
    assert slices[Key("x", "p")]["peers"] == [{"podSelector": {}, "nodes": {"here": ["10.42.0.10", "10.42.0.12"], "other": ["10.42.0.11"]}, "namespaces": ["x"]}]
    model = NodeModel("here")
    model.set_slice(Key("x", "p"), read_slice(Key("x", "p"), slices[Key("x", "p")]))
    model.set_pod("new", next(iter(world.local("here").values())))  # the slice's other pods of this node are gone
    plan = model.plan()
    assert list(plan.sets.values()) == [frozenset(("10.42.0.10", "10.42.0.11"))]
    assert plan.verdicts == {("in", 4): {"10.42.0.10": frozenset({Match(SetRef(4, Key("x", "p"), 0))})}}


def test_pods_that_are_treated_alike_share_a_chain_and_members_change_single_elements():
    world = xyz()
    world.policy("x", "p", {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": [{"port": 80}, {"port": 90, "endPort": 99}]}]})
    before = tables_of(world.plan())
    (name,) = before.chains
    (group,) = before.sets
    assert before.chains[name] == (f"tcp dport {{ 80, 90-99 }} ip saddr @{group} return", "counter drop")
    assert set(before.verdicts["in4"].values()) == {f"jump {name}"}
    world.put(Pod("y", "d", "10.42.1.9", {}, node="other"))
    after = tables_of(world.plan())
    assert difference("t", before, after) == f"add element inet t {group} {{ 10.42.1.9 }}\n"
    world.drop(Key("x", "a"))
    lines = difference("t", after, tables_of(world.plan())).splitlines()
    assert lines == ["delete element inet t in4 { 10.42.0.10 }", "delete element inet t self4 { 10.42.0.10 . 10.42.0.10 }"]
    assert difference("t", after, after) == ""
    assert f"delete chain inet t {name}" in difference("t", after, NOTHING)
    assert f"delete set inet t {group}" in difference("t", after, NOTHING)
    assert "delete chain inet t stale\ndelete set inet t p4_old" in whole(Frame(table="t"), after, chains=["forward", "stale"], sets=["in4", "p4_old", group])


def test_nonsense_in_a_slice_is_told():
    with pytest.raises(LookupError):
        read_slice(Key("x", "p"), {"policyTypes": ["Ingress"], "ingress": [{"peers": [3]}]})


# random clusters

LABELS = st.dictionaries(st.sampled_from("kl"), st.sampled_from("12"), max_size=2)
SELECTORS = st.one_of(
    st.just({}),
    LABELS.map(lambda labels: {"matchLabels": labels} if labels else {}),
    st.builds(
        lambda key, operator, values: {"matchExpressions": [{"key": key, "operator": operator} | ({"values": values} if operator.endswith("In") else {})]},
        st.sampled_from("kl"),
        st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
        st.lists(st.sampled_from("12"), min_size=1, max_size=2, unique=True),
    ),
)
ADDRESSES = [f"10.42.0.{n}" for n in range(1, 9)]
BLOCKS = st.sampled_from(
    [{"cidr": "0.0.0.0/0"}, {"cidr": "10.42.0.0/29", "except": ["10.42.0.2/31"]}, {"cidr": "10.42.0.4/30"}, {"cidr": "192.0.2.0/24", "except": ["192.0.2.1/32"]}]
)
PEERS = st.one_of(
    SELECTORS.map(lambda s: {"podSelector": s}),
    SELECTORS.map(lambda s: {"namespaceSelector": s}),
    st.builds(lambda n, p: {"namespaceSelector": n, "podSelector": p}, SELECTORS, SELECTORS),
    BLOCKS.map(lambda b: {"ipBlock": b}),
)
POLICY_PORTS = st.sampled_from(
    [{"port": 80}, {"port": 81, "protocol": "UDP"}, {"protocol": "UDP"}, {"port": 79, "endPort": 80}, {"port": "web"}, {"port": "dns", "protocol": "UDP"}]
)
RULES = st.builds(
    lambda side, peers, ports: ({side: peers} if peers else {}) | ({"ports": [dict(p) for p in ports]} if ports else {}),
    st.just("from"), st.lists(PEERS, max_size=2), st.lists(POLICY_PORTS, max_size=2),
)  # fmt: skip
SPECS = st.builds(
    lambda selector, ingress, egress, types: {
        "podSelector": selector, "ingress": ingress, "egress": [{"to" if k == "from" else k: v for k, v in rule.items()} for rule in egress],
    } | ({"policyTypes": types} if types else {}),
    SELECTORS, st.lists(RULES, max_size=2), st.lists(RULES, max_size=2), st.sampled_from([[], ["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
)  # fmt: skip
POD_PORTS = st.sampled_from([(), (("web", "TCP", 80),), (("web", "TCP", 81), ("dns", "UDP", 81)), (("web", "TCP", 80), ("web", "TCP", 81))])
PODS = st.builds(
    lambda space, labels, ports, node, host: (space, labels, ports, node, host),
    st.sampled_from("xy"), LABELS, POD_PORTS, st.sampled_from(["here", "other"]), st.sampled_from([False, False, False, True]),
)  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("pod"), st.integers(0, 5), st.one_of(st.none(), PODS)),
    st.tuples(st.just("space"), st.sampled_from("xy"), LABELS),
    st.tuples(st.just("policy"), st.tuples(st.sampled_from("xy"), st.sampled_from("pq")), st.one_of(st.none(), SPECS)),
)
STRANGERS = ["192.0.2.1", "192.0.2.2"]


def step(world: World, what: str, which: object, value: object) -> None:
    if what == "space":
        world.space(which, value)
    elif what == "policy":
        world.policy(*which, value)
    else:
        old = next((pod.key for pod in world.pods.values() if pod.name == f"p{which}"), None)
        if old is not None:
            world.drop(old)
        if value is not None:
            space, labels, ports, node, host = value
            world.put(Pod(space, f"p{which}", ADDRESSES[which], labels, node=node, ports=ports, host_network=host))


def agree(world: World, plans: dict[str, object]) -> None:
    ends = [*world.pods.values(), *STRANGERS]
    for source in ends:
        for target in ends:
            if isinstance(source, str) and isinstance(target, str):
                continue
            a, b = (end if isinstance(end, str) else end.address for end in (source, target))
            nodes = {end.node for end in (source, target) if isinstance(end, Pod)}
            for protocol, port in (("TCP", 80), ("TCP", 81), ("UDP", 80), ("UDP", 81)):
                # each end's own node judges it; a packet between nodes passes both
                found = all(judged(plans[node], a, b, protocol, port) for node in nodes)
                assert found == world.allowed(source, target, protocol, port), (source, target, protocol, port)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=1, max_size=14))
def test_random_clusters_mean_what_the_text_says(steps):
    """After each step, told to models that live on and to fresh ones alike."""
    world = World()
    for space in "xy":
        world.space(space, {})
    for index in range(5):
        step(world, "pod", index, ("xy"[index % 2], {"k": "12"[index % 2]}, PORTS[:0] or (("web", "TCP", 80),), ("here", "other")[index // 3], False))
    models = {node: (NodeModel(node), set()) for node in ("here", "other")}
    for one in steps:
        step(world, *one)
        plans = {}
        for node, (model, known) in models.items():
            world.update(model, known, node)
            plans[node] = model.plan()
            fresh = world.plan(node)
            assert (plans[node].verdicts, plans[node].sets) == (fresh.verdicts, fresh.sets)
        agree(world, plans)
