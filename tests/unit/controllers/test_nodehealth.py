"""Lost nodes, decided: conditions, taints, zones, and what of a pod's tolerations counts."""

import pytest

from edgekube.api import nodeloss
from edgekube.controllers import nodehealth
from edgekube.controllers.evictions import NEVER, guest_of, plan_stay
from edgekube.controllers.nodehealth import NOT_READY, UNREACHABLE, NodeFacts, Zone

NOW = "2026-11-20T12:00:00Z"
BEFORE = "2026-11-20T11:00:00Z"


def node(ready="", taints=(), **conditions):
    found = {"Ready": ready} | conditions if ready else conditions
    entries = [
        {"type": kind, "status": status, "reason": "R", "message": "m", "lastHeartbeatTime": BEFORE, "lastTransitionTime": BEFORE}
        for kind, status in found.items()
    ]
    return {"metadata": {"name": "n", "creationTimestamp": BEFORE}, "spec": {"taints": list(taints)}, "status": {"conditions": entries}}


def test_silence_makes_the_kubelets_conditions_unknown_and_leaves_others():
    conditions = nodehealth.plan_unknown(node("True", NetworkUnavailable="False", MemoryPressure="False"), NOW)
    assert [(c["type"], c["status"], c["reason"]) for c in conditions] == [
        ("Ready", "Unknown", "NodeStatusUnknown"),
        ("NetworkUnavailable", "False", "R"),
        ("MemoryPressure", "Unknown", "NodeStatusUnknown"),
        ("DiskPressure", "Unknown", "NodeStatusNeverUpdated"),
        ("PIDPressure", "Unknown", "NodeStatusNeverUpdated"),
    ]
    assert conditions[0]["message"] == "Kubelet stopped posting node status."
    assert conditions[3]["message"] == "Kubelet never posted node status."
    assert (conditions[0]["lastTransitionTime"], conditions[0]["lastHeartbeatTime"]) == (NOW, BEFORE)
    assert nodehealth.plan_unknown({"metadata": {}, "status": {"conditions": conditions}}, "later") is None


def taint(key, effect="NoExecute", **more):
    return {"key": key, "effect": effect} | more


@pytest.mark.parametrize(
    ("obj", "allowed", "keys"),
    [
        (node("True"), True, None),
        (node("Unknown"), True, [UNREACHABLE]),
        (node("False"), True, [NOT_READY]),
        (node("Unknown"), False, None),
        (node("Unknown", [taint(NOT_READY)]), False, [UNREACHABLE]),
        (node("Unknown", [taint(UNREACHABLE)]), False, None),
        (node("True", [taint(UNREACHABLE), taint("mine")]), False, ["mine"]),
        (node("", [taint(NOT_READY, "NoSchedule")]), True, None),
    ],
)
def test_the_no_execute_taint_follows_ready(obj, allowed, keys):
    found = nodehealth.plan_no_execute(obj, NOW, allowed=allowed)
    assert (None if found is None else [entry["key"] for entry in found]) == keys
    if found and obj["spec"]["taints"] == []:
        assert found[0]["timeAdded"] == NOW


def facts(ready, zone="a", excluded=False):
    return NodeFacts(ready, zone, excluded, None)


@pytest.mark.parametrize(
    ("ready", "state"),
    [
        (["True", "Unknown"], Zone.NORMAL),
        (["Unknown"], Zone.FULL),
        (["Unknown", "False", ""], Zone.FULL),
        (["Unknown"] * 3 + ["True"] * 2, Zone.PARTIAL),
        (["Unknown"] * 2 + ["True"], Zone.NORMAL),
        (["Unknown"] * 3 + ["True"] * 3, Zone.NORMAL),
    ],
)
def test_zones(ready, state):
    assert nodehealth.zone_states([facts(one) for one in ready]) == {"a": state}


def test_excluded_nodes_do_not_count_and_sick_zones_are_slow_or_still():
    assert nodehealth.zone_states([facts("True"), facts("Unknown", excluded=True)]) == {"a": Zone.NORMAL}
    assert nodehealth.pause(Zone.NORMAL, 3) == nodehealth.pause(Zone.FULL, 3) == 10
    assert nodehealth.pause(Zone.PARTIAL, 50) is None
    assert nodehealth.pause(Zone.PARTIAL, 51) == 100


def guest(*tolerations, choice=None):
    annotations = {} if choice is None else {nodeloss.ANNOTATION: choice}
    return guest_of({"metadata": {"annotations": annotations}, "spec": {"nodeName": "n", "tolerations": list(tolerations)}})


def tolerate(key="", seconds=None, **more):
    found = {"operator": "Exists", "effect": "NoExecute"} | more
    return found | ({"key": key} if key else {}) | ({} if seconds is None else {"tolerationSeconds": seconds})


INJECTED = [tolerate(NOT_READY, 300), tolerate(UNREACHABLE, 300)]
LOST = [taint(UNREACHABLE)]


@pytest.mark.parametrize(
    ("who", "taints", "policy", "stays"),
    [
        (guest(), [taint("mine")], "stay", 0),
        (guest(tolerate("mine")), [taint("mine")], "stay", NEVER),
        (guest(tolerate("mine", 30)), [taint("mine")], "stay", 30),
        (guest(tolerate("mine", -1)), [taint("mine")], "stay", 0),
        (guest(tolerate("mine", 30), tolerate("other", 10)), [taint("mine"), taint("other")], "stay", 10),
        (guest(tolerate("mine", 30)), [taint("mine"), taint("other")], "stay", 0),
        (guest({"key": "mine", "value": "a"}), [taint("mine", value="a")], "stay", NEVER),
        (guest({"key": "mine", "value": "a"}), [taint("mine", value="b")], "stay", 0),
        (guest(*INJECTED), LOST, "stay", NEVER),
        (guest(*INJECTED), LOST, "evict", 300),
        (guest(*INJECTED), LOST, "fenced", NEVER),
        (guest(*INJECTED, choice="evict"), LOST, "stay", 300),
        (guest(*INJECTED, choice="stay"), LOST, "evict", NEVER),
        (guest(*INJECTED, choice="fenced"), LOST, "evict", NEVER),
        (guest(*INJECTED, choice="odd"), LOST, "evict", 300),
        (guest(tolerate(UNREACHABLE, 20)), LOST, "stay", 20),
        (guest(tolerate(UNREACHABLE, 20), choice="stay"), LOST, "evict", NEVER),
        (guest(tolerate(UNREACHABLE)), LOST, "evict", NEVER),  # as a DaemonSet's pods
        (guest(*INJECTED), [*LOST, taint("mine")], "stay", 0),
        (guest(tolerate()), [*LOST, taint("mine")], "evict", NEVER),
    ],
)
def test_how_long_a_pod_stays(who, taints, policy, stays):
    assert plan_stay(who, taints, policy) == stays
