"""plan_replicas, rank and plan_status as tables. Ranking follows upstream's TestSortingActivePodsWithRanks."""

import pytest

from edgekube.api.types import Key
from edgekube.controllers.pods import PodFacts, facts_of
from edgekube.controllers.replicas import next_check, plan_replicas, plan_status, rank

NOW = 1_000_000.0


def pod(name, **facts):
    known = {
        "uid": name,
        "node": "n1",
        "phase": "Running",
        "deleting": False,
        "ready": True,
        "ready_at": NOW - 100,
        "created_at": NOW - 200,
    }
    rest = {"restarts": 0, "sidecar_restarts": 0, "deletion_cost": 0, "ips": (), "hostname": "", "subdomain": "", "ports": ()}
    return PodFacts(key=Key("default", name), **(known | rest | facts))


def names(pods):
    return [p.key.name for p in pods]


@pytest.mark.parametrize(
    ("wanted", "have", "create", "delete"), [(3, 0, 3, 0), (3, 3, 0, 0), (0, 2, 0, 2), (1, 3, 0, 2), (9000, 0, 500, 0), (0, 900, 0, 500)]
)
def test_numbers(wanted, have, create, delete):
    pods = [pod(f"p{n}") for n in range(have)]
    plan = plan_replicas(wanted, pods, pods, NOW)
    assert (plan.create, len(plan.delete)) == (create, delete)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pod("a", node=""), pod("b", phase="Pending", ready=False)),
        (pod("a", phase="Pending", ready=False), pod("b", phase="Unknown", ready=False)),
        (pod("a", phase="Unknown", ready=False), pod("b")),
        (pod("a", ready=False), pod("b")),
        (pod("a", deletion_cost=-1), pod("b")),
        (pod("a", ready_at=0), pod("b")),
        (pod("a", ready_at=NOW - 10), pod("b", ready_at=NOW - 1000)),
        (pod("a", restarts=4), pod("b")),
        (pod("a", sidecar_restarts=1), pod("b")),
        (pod("a", ready=False, created_at=NOW - 10), pod("b", ready=False, created_at=NOW - 1000)),
    ],
)
def test_the_less_useful_pod_goes_first(first, second):
    assert names(rank([second, first], [], NOW)) == ["a", "b"]


def test_of_equals_the_one_with_more_siblings_on_its_node_goes_first():
    crowded, lonely = pod("a", node="n2"), pod("b", node="n1")
    siblings = [crowded, lonely, pod("c", node="n2"), pod("d", node="n1", deleting=True)]
    assert names(rank([lonely, crowded], siblings, NOW)) == ["a", "b"]


def test_ages_of_one_magnitude_are_decided_by_uid():
    older, younger = pod("x", uid="1", ready_at=NOW - 1000), pod("y", uid="2", ready_at=NOW - 900)
    assert names(rank([younger, older], [], NOW)) == ["x", "y"]


def rs(**status):
    spec = {"minReadySeconds": 10, "template": {"metadata": {"labels": {"app": "web"}}}}
    return {"metadata": {"generation": 4}, "spec": spec, "status": status}


def test_status_counts():
    active = [
        (pod("a"), {"app": "web"}),
        (pod("b", ready_at=NOW - 5), {"app": "web", "x": "y"}),
        (pod("c", ready=False), {"app": "other"}),
    ]
    assert plan_status(rs(), active, 2, None, NOW, "now") == {
        "replicas": 3,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 1,
        "terminatingReplicas": 2,
        "observedGeneration": 4,
    }
    assert next_check((p for p, _ in active), 10, NOW) == 5


def test_a_failure_is_a_condition_until_it_is_over():
    failure = {"reason": "FailedCreate", "message": "no"}
    shown = plan_status(rs(), [], 0, failure, NOW, "t1")["conditions"]
    assert shown == [{"type": "ReplicaFailure", "status": "True", "lastTransitionTime": "t1", "reason": "FailedCreate", "message": "no"}]
    assert plan_status(rs(conditions=shown), [], 0, failure | {"message": "still"}, NOW, "t2")["conditions"] == shown
    assert "conditions" not in plan_status(rs(conditions=shown), [], 0, None, NOW, "t3")


def test_facts_of_a_pod():
    facts = facts_of(
        {
            "metadata": {
                "name": "a",
                "namespace": "x",
                "uid": "u",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"},
            },
            "spec": {
                "nodeName": "pi",
                "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}],
                "initContainers": [
                    {"name": "s", "restartPolicy": "Always", "ports": [{"name": "m", "containerPort": 9, "protocol": "UDP"}]}
                ],
            },
            "status": {
                "phase": "Running",
                "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}],
                "containerStatuses": [{"name": "c", "restartCount": 2}],
                "initContainerStatuses": [{"name": "s", "restartCount": 3}],
            },
        }
    )
    assert (facts.ready, facts.ready_at - facts.created_at, facts.restarts, facts.sidecar_restarts) == (True, 10, 2, 3)
    assert facts.ports == (("http", "TCP", 80), ("m", "UDP", 9))
    assert (facts.ips, facts.node, facts.deletion_cost, facts.active) == (("10.0.0.1",), "pi", -5, True)
    assert facts.available(10, facts.ready_at + 10)
    assert not facts.available(10, facts.ready_at + 9)
