"""What `kubectl get pods` shows: upstream's cases of TestPrintPod."""

from typing import Any

import pytest

from edgekube.api.kinds import printing
from edgekube.api.kinds.pod import POD
from edgekube.api.types import Obj

NOW = 1_700_000_000.0
FIVE_MINUTES_AGO = "2023-11-14T22:08:20Z"
READY = {"type": "Ready", "status": "True"}
INITIALIZED = {"type": "Initialized", "status": "True"}
RUNNING = {"running": {}}


def row(pod: Obj) -> dict[str, Any]:
    return {column.name: column.cell(pod, NOW) for column in POD.columns}


def pod(main: list[Obj], init: list[Obj] | None = None, *, containers: int = 0, sidecars: int = 0, deleting: bool = False, **status: Any) -> Obj:
    """`main` and `init` are container statuses; the spec gets as many containers. The first `sidecars` init containers are sidecars."""
    steps = init or []
    spec = {
        "containers": [{"name": f"c{i}"} for i in range(containers or len(main))],
        "initContainers": [{"name": f"i{i}", **({"restartPolicy": "Always"} if i < sidecars else {})} for i in range(max(len(steps), sidecars))],
    }
    for prefix, listed in (("c", main), ("i", steps)):
        for index, entry in enumerate(listed):
            entry.setdefault("name", f"{prefix}{index}")
    metadata: Obj = {"name": "p", "namespace": "d", "creationTimestamp": FIVE_MINUTES_AGO}
    if deleting:
        metadata["deletionTimestamp"] = FIVE_MINUTES_AGO
    return {"metadata": metadata, "spec": spec, "status": {"containerStatuses": main, "initContainerStatuses": steps, **status}}


def waiting(reason: str, restarts: int = 0) -> Obj:
    return {"state": {"waiting": {"reason": reason}}, "restartCount": restarts}


def ended(code: int, reason: str = "", signal: int = 0, restarts: int = 0) -> Obj:
    return {"state": {"terminated": {"exitCode": code, "reason": reason, "signal": signal}}, "restartCount": restarts}


def up(restarts: int = 0, *, ready: bool = True, at: str = "", **more: Any) -> Obj:
    last = {"lastState": {"terminated": {"finishedAt": at}}} if at else {}
    return {"state": RUNNING, "ready": ready, "restartCount": restarts, **last, **more}


CASES: list[tuple[Obj, str, str, str]] = [
    (pod([], containers=2, phase="Pending"), "0/2", "Pending", "0"),
    (pod([up(), up(ready=False)], phase="Running"), "1/2", "Running", "0"),
    (pod([up(3)], phase="Running"), "1/1", "Running", "3"),
    (pod([up(3, at=FIVE_MINUTES_AGO)], phase="Running"), "1/1", "Running", "3 (5m ago)"),
    (pod([waiting("ContainerCreating")], phase="Pending"), "0/1", "ContainerCreating", "0"),
    (pod([waiting("CrashLoopBackOff", 4)], phase="Running"), "0/1", "CrashLoopBackOff", "4"),
    (pod([ended(1, "Error")], phase="Failed"), "0/1", "Error", "0"),
    (pod([ended(3)], phase="Failed"), "0/1", "ExitCode:3", "0"),
    (pod([ended(137, signal=9)], phase="Failed"), "0/1", "Signal:9", "0"),
    (pod([ended(0, "Completed")], phase="Succeeded"), "0/1", "Completed", "0"),
    (pod([ended(0, "Completed"), up()], phase="Running", conditions=[READY]), "1/2", "Running", "0"),
    (pod([ended(0, "Completed"), up()], phase="Running"), "1/2", "NotReady", "0"),
    (pod([up()], phase="Failed", reason="Evicted"), "1/1", "Evicted", "0"),
    (pod([up()], phase="Running", deleting=True), "1/1", "Terminating", "0"),
    (pod([up()], phase="Running", reason="NodeLost", deleting=True), "1/1", "Unknown", "0"),
    (pod([ended(0, "Completed")], phase="Succeeded", deleting=True), "0/1", "Completed", "0"),
    (
        pod([], containers=1, phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
        "0/1", "SchedulingGated", "0",
    ),
    # init containers
    (pod([waiting("PodInitializing")], [waiting("PodInitializing"), waiting("PodInitializing")], phase="Pending"), "0/1", "Init:0/2", "0"),
    (pod([waiting("PodInitializing")], [ended(0), up(2, ready=False)], phase="Pending"), "0/1", "Init:1/2", "2"),
    (pod([waiting("PodInitializing")], [waiting("ImagePullBackOff")], phase="Pending"), "0/1", "Init:ImagePullBackOff", "0"),
    (pod([waiting("PodInitializing")], [ended(1, "Error", restarts=3)], phase="Pending"), "0/1", "Init:Error", "3"),
    (pod([waiting("PodInitializing")], [ended(2)], phase="Pending"), "0/1", "Init:ExitCode:2", "0"),
    (pod([waiting("PodInitializing")], [ended(0, signal=0), ended(1, signal=9)], phase="Pending"), "0/1", "Init:Signal:9", "0"),
    # their restarts are forgotten once the main containers run
    (pod([up(1)], [ended(0, "Completed", restarts=5)], phase="Running"), "1/1", "Running", "1"),
    # sidecars count as containers, and their restarts stay
    (pod([up(1)], [up(2, started=True)], sidecars=1, phase="Running"), "2/2", "Running", "3"),
    (pod([waiting("PodInitializing")], [up(0, started=True), waiting("PodInitializing")], sidecars=1, phase="Pending"), "1/2", "Init:1/2", "0"),
    (pod([up(1)], [up(2, started=False), ended(0, restarts=7)], sidecars=1, phase="Running", conditions=[INITIALIZED]), "1/2", "Init:0/2", "3"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "ready", "status", "restarts"), CASES)
def test_status(given: Obj, ready: str, status: str, restarts: str) -> None:
    shown = row(given)
    assert (shown["Ready"], shown["Status"], shown["Restarts"]) == (ready, status, restarts)


def test_wide() -> None:
    given = pod([up()], phase="Running", podIPs=[{"ip": "10.42.0.7"}], podIP="10.42.0.7", conditions=[READY])
    given["spec"] |= {"nodeName": "n1", "readinessGates": [{"conditionType": "Ready"}, {"conditionType": "example.com/x"}]}
    shown = row(given)
    assert [shown[name] for name in ("Name", "Age", "IP", "Node", "Nominated Node", "Readiness Gates")] == [
        "p", "5m", "10.42.0.7", "n1", "<none>", "1/2",
    ]  # fmt: skip
    assert [column.name for column in POD.columns if column.priority] == ["IP", "Node", "Nominated Node", "Readiness Gates"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (1, "1s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (599, "9m59s"), (600, "10m"),
        (10799, "179m"), (10800, "3h"), (3 * 3600 + 60, "3h1m"), (8 * 3600, "8h"), (47 * 3600, "47h"), (48 * 3600, "2d"),
        (49 * 3600, "2d1h"), (7 * 86400 + 3600, "7d1h"), (8 * 86400 + 3600, "8d"), (365 * 86400, "365d"), (730 * 86400, "2y"),
        (731 * 86400, "2y1d"), (8 * 365 * 86400, "8y"),
    ],
)  # fmt: skip
def test_ages(seconds: int, shown: str) -> None:
    assert printing.human_duration(seconds) == shown
