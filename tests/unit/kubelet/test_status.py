"""pod_status as a table: phases, conditions and container states in upstream's words."""

import pytest

from edgekube.kubelet.status import Observation, pod_status, rejected_status
from tests.unit.kubelet.kit import NOW, info, pod, spec


def status(found, containers=(), *, ready=(), started=(), sandbox=True, **more):
    seen = Observation(
        containers=list(containers), sandbox=sandbox, pod_ips=("10.42.0.9",), host_ips=("192.0.2.1",), now=NOW,
        ready=frozenset(ready), started=frozenset(started), **more,
    )  # fmt: skip
    return pod_status(found, seen)


def cond(made, kind):
    entry = next(c for c in made["conditions"] if c["type"] == kind)
    return entry["status"], entry.get("reason", ""), entry.get("message", "")


SIDE = spec("side", restartPolicy="Always")


@pytest.mark.parametrize(("found", "containers", "more", "phase"), [
    (pod(), [], {}, "Pending"),
    (pod(), [info()], {}, "Running"),
    (pod(), [info(state="exited", code=1)], {}, "Running"),
    (pod(restartPolicy="OnFailure"), [info(state="exited", code=1)], {}, "Running"),
    (pod(restartPolicy="OnFailure"), [info(state="exited")], {}, "Succeeded"),
    (pod(restartPolicy="Never"), [info(state="exited", code=1)], {}, "Failed"),
    (pod(restartPolicy="Never"), [info(state="exited")], {}, "Succeeded"),
    (pod(spec("a"), spec("b")), [info("a")], {}, "Pending"),
    (pod(spec("a"), spec("b"), restartPolicy="Never"), [info("a"), info("b", "exited", code=1)], {}, "Running"),
    (pod(init=[spec("i")]), [info("i")], {}, "Pending"),
    (pod(init=[spec("i")], restartPolicy="Never"), [info("i", "exited", code=1)], {}, "Failed"),
    (pod(init=[spec("i")]), [info("i", "exited", code=1)], {}, "Pending"),
    (pod(init=[SIDE]), [info("side")], {}, "Pending"),
    (pod(init=[SIDE]), [info("side"), info()], {"started": ("side-0",)}, "Running"),
    (pod(), [info(state="exited", code=0)], {"over": True, "ended": True}, "Succeeded"),
    (pod(), [info(state="exited", code=143)], {"over": True, "ended": True}, "Failed"),
    (pod(), [], {"over": True, "ended": True}, "Failed"),
    (pod(), [info()], {"failure": ("DeadlineExceeded", "late")}, "Failed"),
    (pod(status={"phase": "Succeeded"}), [], {}, "Succeeded"),
])  # fmt: skip
def test_phase(found, containers, more, phase):
    assert status(found, containers, **more)["phase"] == phase


def test_conditions_of_a_starting_pod():
    made = status(pod(spec("a"), spec("b")), [info("a")], ready=("a-0",), sandbox=True)
    message = "containers with unready status: [b]"
    assert cond(made, "ContainersReady") == ("False", "ContainersNotReady", message)
    assert cond(made, "Ready") == ("False", "ContainersNotReady", message)
    assert cond(made, "Initialized") == ("True", "", "")
    assert cond(made, "PodReadyToStartContainers") == ("True", "", "")


def test_conditions_while_initializing():
    made = status(pod(init=[spec("i"), spec("j")]), [info("i", "exited"), info("j")])
    assert cond(made, "Initialized") == ("False", "ContainersNotInitialized", "containers with incomplete status: [j]")
    assert made["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert made["initContainerStatuses"][0]["ready"] is True


def test_conditions_of_the_finished():
    made = status(pod(restartPolicy="Never"), [info(state="exited")])
    assert cond(made, "Ready") == ("False", "PodCompleted", "")
    assert cond(made, "Initialized") == ("True", "PodCompleted", "")
    made = status(pod(restartPolicy="Never"), [info(state="exited", code=2)])
    assert cond(made, "Ready") == ("False", "PodFailed", "")


def test_ready_and_gates():
    assert cond(status(pod(), [info()], ready=("main-0",)), "Ready")[0] == "True"
    gated = pod(readinessGates=[{"conditionType": "x/y"}], status={"conditions": [{"type": "x/y", "status": "False"}]})
    made = status(gated, [info()], ready=("main-0",))
    assert cond(made, "Ready") == ("False", "ReadinessGatesNotReady", 'the status of pod readiness gate "x/y" is not "True", but False')
    assert cond(made, "ContainersReady")[0] == "True"


def test_transition_times_move_only_with_the_status():
    old = {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}
    made = status(pod(status=old), [info()])
    assert next(c for c in made["conditions"] if c["type"] == "Ready")["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    made = status(pod(status=old), [info()], ready=("main-0",))
    assert next(c for c in made["conditions"] if c["type"] == "Ready")["lastTransitionTime"] == "2026-01-01T12:00:00Z"


@pytest.mark.parametrize(("ended", "reason", "code"), [
    (info(state="exited"), "Completed", 0),
    (info(state="exited", code=1), "Error", 1),
    (info(state="exited", code=137, oom=True), "OOMKilled", 137),
    (info(state="exited", code=128, message="no such file"), "StartError", 128),
])  # fmt: skip
def test_how_containers_end(ended, reason, code):
    state = status(pod(restartPolicy="Never"), [ended])["containerStatuses"][0]["state"]["terminated"]
    assert (state["reason"], state["exitCode"], state["containerID"]) == (reason, code, f"podman://{ended.id}")


def test_crash_loop_moves_the_end_to_last_state():
    made = status(pod(), [info(state="exited", code=3)], waiting={"main": ("CrashLoopBackOff", "back-off 10s")})
    entry = made["containerStatuses"][0]
    assert entry["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    assert entry["lastState"]["terminated"]["exitCode"] == 3
    assert made["phase"] == "Running"


def test_what_will_not_be_restarted_does_not_wait():
    found = pod(spec("a"), spec("b"), restartPolicy="Never")
    made = status(found, [info("a"), info("b", "exited", code=128)], waiting={"b": ("RunContainerError", "no such file")})
    assert made["containerStatuses"][1]["state"]["terminated"]["exitCode"] == 128


def test_a_restarted_container_counts_and_remembers():
    made = status(pod(), [info(state="exited", code=3), info(attempt=1)], messages={"main-0": "bye"})
    entry = made["containerStatuses"][0]
    assert (entry["restartCount"], entry["lastState"]["terminated"]["message"]) == (1, "bye")


def test_after_a_reboot_a_running_container_is_lost_and_counted():
    old = {"phase": "Running", "containerStatuses": [
        {"name": "main", "state": {"running": {"startedAt": "x"}}, "lastState": {}, "restartCount": 4, "containerID": "podman://gone"}
    ]}  # fmt: skip
    entry = status(pod(status=old), [])["containerStatuses"][0]
    assert entry["restartCount"] == 5
    assert entry["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert entry["lastState"]["terminated"]["exitCode"] == 137


def test_what_terminated_stays_when_the_runtime_forgot_it():
    old = {"phase": "Running", "containerStatuses": [
        {"name": "main", "state": {"terminated": {"exitCode": 9}}, "lastState": {}, "restartCount": 2, "containerID": "podman://gone"}
    ]}  # fmt: skip
    entry = status(pod(status=old), [])["containerStatuses"][0]
    assert (entry["state"], entry["restartCount"]) == ({"terminated": {"exitCode": 9}}, 2)


def test_a_pod_that_ended_without_a_trace():
    made = status(pod(), [info("other")], over=True, ended=True)
    state = made["containerStatuses"][0]["state"]["terminated"]
    assert (state["reason"], state["message"]) == (
        "ContainerStatusUnknown",
        "The container could not be located when the pod was terminated",
    )


def test_addresses_and_refusals():
    made = status(pod(), [info()])
    assert (made["podIP"], made["podIPs"], made["hostIPs"]) == ("10.42.0.9", [{"ip": "10.42.0.9"}], [{"ip": "192.0.2.1"}])
    assert status(pod(hostNetwork=True), [info()])["podIP"] == "192.0.2.1"
    refused = rejected_status(pod(), reason="OutOfcpu", message="Pod was rejected: no", now=NOW)
    assert (refused["phase"], refused["reason"]) == ("Failed", "OutOfcpu")
