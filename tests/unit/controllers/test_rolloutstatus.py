"""Conditions of Deployments: when they come, what they say, which times move."""

from datetime import UTC, datetime, timedelta

import pytest

from edgekube.controllers.rollout import SetFacts
from edgekube.controllers.rolloutstatus import Time, find, next_progress_check, plan_paused, plan_rollout_status, with_condition

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
STAMP = "2026-01-01T12:00:00Z"
EARLIER = "2026-01-01T11:59:00Z"


def deployment(replicas=3, *, deadline=600, paused=False, **status):
    spec = {"replicas": replicas, "paused": paused, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}}
    if deadline:
        spec["progressDeadlineSeconds"] = deadline
    return {"metadata": {"name": "web", "generation": 2}, "spec": spec, "status": status}


def progressing(status, reason, since=EARLIER):
    return {"type": "Progressing", "status": status, "reason": reason, "lastUpdateTime": since, "lastTransitionTime": since}


def new(actual, available):
    return SetFacts(name="web-1", uid="1", created="", replicas=3, actual=actual, ready=available, available=available, terminating=0)


def plan(obj, *sets, failures=(), now=NOW):
    return plan_rollout_status(obj, sets, sets[0] if sets else None, failures, at(now))


def at(now):
    return Time(now, lambda moment: (now - moment).total_seconds())


def test_progress_moves_the_update_time_only():
    obj = deployment(replicas_=0, conditions=[progressing("True", "NewReplicaSetCreated")])
    status = plan(obj, new(3, 1))
    condition = find(status["conditions"], "Progressing")
    assert (condition["reason"], condition["message"]) == ("ReplicaSetUpdated", 'ReplicaSet "web-1" is progressing.')
    assert (condition["lastUpdateTime"], condition["lastTransitionTime"]) == (STAMP, EARLIER)
    available = find(status["conditions"], "Available")
    assert (available["status"], available["reason"]) == ("False", "MinimumReplicasUnavailable")
    assert status["unavailableReplicas"] == 2
    assert status["terminatingReplicas"] == 0


def test_done():
    status = plan(deployment(conditions=[progressing("True", "ReplicaSetUpdated")]), new(3, 3))
    condition = find(status["conditions"], "Progressing")
    assert (condition["reason"], condition["message"]) == ("NewReplicaSetAvailable", 'ReplicaSet "web-1" has successfully progressed.')
    assert find(status["conditions"], "Available")["message"] == "Deployment has minimum availability."
    assert "unavailableReplicas" not in status
    settled = deployment(**status)
    assert plan(settled, new(3, 3), now=NOW + timedelta(hours=1)) == status
    assert next_progress_check(settled, status, at(NOW)) is None


@pytest.mark.parametrize(("seconds", "reason"), [(539, "ReplicaSetUpdated"), (541, "ProgressDeadlineExceeded")])
def test_no_progress_until_the_deadline(seconds, reason):
    numbers = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 1, "availableReplicas": 1}
    obj = deployment(conditions=[progressing("True", "ReplicaSetUpdated")], **numbers)
    later = NOW + timedelta(seconds=seconds)
    status = plan(obj, new(3, 1), now=later)
    condition = find(status["conditions"], "Progressing")
    assert condition["reason"] == reason
    if reason == "ProgressDeadlineExceeded":
        assert (condition["status"], condition["message"]) == ("False", 'ReplicaSet "web-1" has timed out progressing.')
        assert next_progress_check(obj, status, at(later)) is None
    else:
        assert next_progress_check(obj, status, at(later)) == 2


def test_without_deadline_nothing_is_said_about_progress():
    status = plan(deployment(deadline=None, conditions=[progressing("True", "ReplicaSetUpdated")]), new(3, 1))
    assert find(status["conditions"], "Progressing") is None


def test_failures_of_sets_show_and_go():
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota", "lastTransitionTime": EARLIER}
    status = plan(deployment(), new(0, 0), failures=[failure])
    assert find(status["conditions"], "ReplicaFailure") == failure | {"lastUpdateTime": EARLIER}
    assert find(plan(deployment(**status), new(0, 0))["conditions"], "ReplicaFailure") is None


def test_pause_and_resume():
    paused = plan_paused(deployment(paused=True, conditions=[progressing("True", "ReplicaSetUpdated")]), NOW)
    assert find(paused, "Progressing") | {} == {
        "type": "Progressing",
        "status": "Unknown",
        "reason": "DeploymentPaused",
        "message": "Deployment is paused",
        "lastUpdateTime": STAMP,
        "lastTransitionTime": STAMP,
    }
    assert plan_paused(deployment(paused=True, conditions=paused), NOW) is None
    resumed = plan_paused(deployment(conditions=paused), NOW + timedelta(minutes=1))
    assert (find(resumed, "Progressing")["reason"], find(resumed, "Progressing")["lastTransitionTime"]) == ("DeploymentResumed", STAMP)
    assert plan_paused(deployment(paused=True, deadline=None), NOW) is None
    assert plan_paused(deployment(paused=True, conditions=[progressing("False", "ProgressDeadlineExceeded")]), NOW) is None


def test_same_status_and_reason_change_nothing():
    old = [progressing("True", "X")]
    assert with_condition(old, progressing("True", "X", STAMP)) == old
