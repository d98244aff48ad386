"""What a Deployment's status says, pure: numbers, and the conditions Available, Progressing and ReplicaFailure in upstream's words.

Source of the rules: pkg/controller/deployment/progress.go and sync.go (calculateStatus).
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from edgekube.api.types import Obj
from edgekube.controllers.rollout import NO_LIMIT, DeploymentFacts, SetFacts, deployment_facts, total
from edgekube.lib.clock import parse_rfc3339, rfc3339

PROGRESSING = "Progressing"
AVAILABLE_REASON = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"


class Time(NamedTuple):
    """`now` to write down; `age`: seconds since a time written down before, however the clock has jumped since (lib.clock)."""

    now: datetime
    age: Callable[[datetime], float]


def condition(kind: str, status: str, reason: str, message: str, now: datetime) -> Obj:
    stamp = rfc3339(now)
    return {"type": kind, "status": status, "lastUpdateTime": stamp, "lastTransitionTime": stamp, "reason": reason, "message": message}


def find(conditions: Sequence[Obj], kind: str) -> Obj | None:
    return next((c for c in conditions if c["type"] == kind), None)


def without(conditions: Sequence[Obj], kind: str) -> list[Obj]:
    return [c for c in conditions if c["type"] != kind]


def with_condition(conditions: Sequence[Obj], new: Obj) -> list[Obj]:
    """The same status and reason change nothing; the same status keeps its transition time."""
    current = find(conditions, new["type"])
    if current is not None and current["status"] == new["status"]:
        if current.get("reason") == new["reason"]:
            return list(conditions)
        new = new | {"lastTransitionTime": current.get("lastTransitionTime")}
    return [*without(conditions, new["type"]), new]


def progress_deadline(deployment: Obj) -> int | None:
    seconds: int | None = deployment["spec"].get("progressDeadlineSeconds")
    return None if seconds is None or seconds == NO_LIMIT else seconds


def plan_paused(deployment: Obj, now: datetime) -> list[Obj] | None:
    """The conditions after a pause or resume was noticed; None: nothing to say."""
    conditions = (deployment.get("status") or {}).get("conditions") or []
    current = find(conditions, PROGRESSING)
    if progress_deadline(deployment) is None or (current is not None and current.get("reason") == TIMED_OUT):
        return None
    paused, said = bool(deployment["spec"].get("paused")), current is not None and current.get("reason") == "DeploymentPaused"
    if paused and not said:
        return with_condition(conditions, condition(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused", now))
    if not paused and said:
        return with_condition(conditions, condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", now))
    return None


def plan_counts(deployment: Obj, sets: Sequence[SetFacts], new: SetFacts | None, now: datetime) -> Obj:
    """Numbers and Available; the other conditions as they are. `sets` are all, the newest included."""
    facts, old = deployment_facts(deployment), deployment.get("status") or {}
    available = sum(rs.available for rs in sets)
    numbers = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": sum(rs.actual for rs in sets),
        "updatedReplicas": new.actual if new else 0,
        "readyReplicas": sum(rs.ready for rs in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, total(sets) - available),
    }
    status: Obj = {name: value for name, value in numbers.items() if value}
    known = [rs.terminating for rs in sets if rs.terminating is not None]
    if len(known) == len(sets):
        status["terminatingReplicas"] = sum(known)
    if old.get("collisionCount") is not None:
        status["collisionCount"] = old["collisionCount"]
    conditions = old.get("conditions") or []
    status["conditions"] = with_condition(conditions, _availability(facts, available, now))
    return status


def _availability(facts: DeploymentFacts, available: int, now: datetime) -> Obj:
    if available >= facts.replicas - facts.unavailable:
        return condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    return condition("Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.", now)


def plan_rollout_status(deployment: Obj, sets: Sequence[SetFacts], new: SetFacts | None, failures: Sequence[Obj], time: Time) -> Obj:
    """The whole status during a rollout. `failures` are ReplicaFailure conditions of the sets, the newest set's first."""
    status = plan_counts(deployment, sets, new, time.now)
    conditions: list[Obj] = status["conditions"]
    if progress_deadline(deployment) is None:
        conditions = without(conditions, PROGRESSING)
    else:
        conditions = _progress(deployment, status, conditions, new, time)
    if failures:
        failed = failures[0]
        moved: Obj = {name: failed[name] for name in ("type", "status", "reason", "message") if name in failed}
        moved |= {"lastUpdateTime": failed.get("lastTransitionTime"), "lastTransitionTime": failed.get("lastTransitionTime")}
        conditions = with_condition(conditions, moved)
    else:
        conditions = without(conditions, "ReplicaFailure")
    status["conditions"] = conditions
    return status


def _progress(deployment: Obj, status: Obj, conditions: list[Obj], new: SetFacts | None, time: Time) -> list[Obj]:
    now, current = time.now, find((deployment.get("status") or {}).get("conditions") or (), PROGRESSING)
    updated = status.get("updatedReplicas", 0)
    if status.get("replicas", 0) == updated and current is not None and current.get("reason") == AVAILABLE_REASON:
        return conditions  # nothing is being rolled out
    who = f'ReplicaSet "{new.name}"' if new else f'Deployment "{deployment["metadata"]["name"]}"'
    if is_complete(deployment, status):
        return with_condition(conditions, condition(PROGRESSING, "True", AVAILABLE_REASON, f"{who} has successfully progressed.", now))
    if is_progressing(deployment, status):
        moved = condition(PROGRESSING, "True", "ReplicaSetUpdated", f"{who} is progressing.", now)
        if current is not None and current["status"] == "True":
            moved["lastTransitionTime"] = current.get("lastTransitionTime")
        return [*without(conditions, PROGRESSING), moved]
    if has_timed_out(deployment, conditions, time):
        return with_condition(conditions, condition(PROGRESSING, "False", TIMED_OUT, f"{who} has timed out progressing.", now))
    return conditions


def is_complete(deployment: Obj, status: Obj) -> bool:
    """Everything asked for runs, is up to date and available."""
    wanted = deployment["spec"].get("replicas", 1)
    counts = [status.get(name, 0) for name in ("updatedReplicas", "replicas", "availableReplicas")]
    seen: int = status.get("observedGeneration", 0)
    written: int = deployment["metadata"].get("generation", 0)
    return seen >= written and all(count == wanted for count in counts)


def is_progressing(deployment: Obj, status: Obj) -> bool:
    """More new, ready or available pods than before, or fewer old ones."""
    old = deployment.get("status") or {}

    def grew(name: str) -> bool:
        return bool(status.get(name, 0) > old.get(name, 0))

    def outdated(of: Obj) -> int:
        count: int = of.get("replicas", 0) - of.get("updatedReplicas", 0)
        return count

    return grew("updatedReplicas") or grew("readyReplicas") or grew("availableReplicas") or outdated(status) < outdated(old)


def has_timed_out(deployment: Obj, conditions: Sequence[Obj], time: Time) -> bool:
    """No progress since the deadline."""
    current, deadline = find(conditions, PROGRESSING), progress_deadline(deployment)
    if current is None or deadline is None or current.get("reason") == AVAILABLE_REASON:
        return False
    if current.get("reason") == TIMED_OUT:
        return True
    since = current.get("lastUpdateTime")
    return since is not None and time.age(parse_rfc3339(since)) > deadline


def next_progress_check(deployment: Obj, status: Obj, time: Time) -> float | None:
    """Seconds until a stuck rollout has to be looked at again."""
    current, deadline = find(status.get("conditions") or (), PROGRESSING), progress_deadline(deployment)
    if current is None or deadline is None or current.get("reason") == TIMED_OUT or is_complete(deployment, status):
        return None
    since = current.get("lastUpdateTime")
    if since is None:
        return None
    return max(0.0, deadline - time.age(parse_rfc3339(since))) + 1.0
