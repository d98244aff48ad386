"""plan_pod as a table: what a pod needs next, case by case with upstream's computePodActions."""

import pytest

from edgekube.kubelet.plan import Verdicts, plan_pod
from tests.unit.kubelet.kit import info, pod, spec

SIDE = spec("side", restartPolicy="Always")
SIDE_PROBED = spec("side", restartPolicy="Always", startupProbe={"exec": {"command": ["true"]}})


def plan(found, containers=(), verdicts=None, *, sandbox=True, before=None):
    return plan_pod(found, containers, verdicts or Verdicts(), has_sandbox=sandbox, ended_before=before)


@pytest.mark.parametrize(("found", "containers", "start_init", "start"), [
    (pod(), [], (), ("main",)),
    (pod(), [info()], (), ()),
    (pod(), [info(state="exited")], (), ("main",)),
    (pod(), [info(state="created")], (), ("main",)),
    (pod(spec("a"), spec("b")), [info("a")], (), ("b",)),
    (pod(spec("a"), spec("b"), restartPolicy="Never"), [info("a"), info("b", "exited", code=1)], (), ()),
    (pod(restartPolicy="OnFailure"), [info(state="exited", code=1)], (), ("main",)),
    (pod(init=[spec("i")]), [], ("i",), ()),
    (pod(init=[spec("i")]), [info("i")], (), ()),
    (pod(init=[spec("i")]), [info("i", "exited")], (), ("main",)),
    (pod(init=[spec("i")]), [info("i", "exited", code=1)], ("i",), ()),
    (pod(init=[spec("i"), spec("j")]), [info("i", "exited")], ("j",), ()),
    (pod(init=[spec("i"), spec("j")]), [info("i", "exited"), info("j", "exited")], (), ("main",)),
    (pod(init=[spec("i")]), [info("i", "exited"), info(state="exited")], (), ("main",)),
    (pod(init=[spec("i")]), [info()], (), ()),  # the init container's record is gone, the main one runs
    (pod(init=[SIDE, spec("j")]), [info("side")], ("j",), ()),
    (pod(init=[SIDE]), [info("side")], (), ("main",)),
    (pod(init=[SIDE]), [info("side", "exited"), info()], ("side",), ()),
    (pod(init=[spec("i"), SIDE]), [info("i", "exited"), info("side"), info(state="exited")], (), ("main",)),
    (pod(init=[SIDE]), [info()], ("side",), ()),
    (pod(init=[SIDE_PROBED]), [info("side", of=SIDE_PROBED)], (), ()),
])  # fmt: skip
def test_what_starts(found, containers, start_init, start):
    made = plan(found, containers)
    assert (tuple(made.start_init), tuple(made.start), made.finished) == (start_init, start, False)


def test_a_sidecar_with_a_startup_probe_lets_the_next_go_once_started():
    containers = [info("side", of=SIDE_PROBED)]
    assert plan(pod(init=[SIDE_PROBED]), containers, Verdicts(started=frozenset({"side-0"}))).start == ("main",)


@pytest.mark.parametrize(("found", "containers"), [
    (pod(restartPolicy="Never"), [info(state="exited", code=1)]),
    (pod(restartPolicy="OnFailure"), [info(state="exited")]),
    (pod(restartPolicy="Never", init=[spec("i")]), [info("i", "exited", code=1)]),
    (pod(restartPolicy="Never", init=[SIDE]), [info("side"), info(state="exited")]),
    (pod(deleting=True), [info(state="exited")]),
])  # fmt: skip
def test_what_is_finished(found, containers):
    assert plan(found, containers).finished


def test_a_new_pod_gets_a_sandbox_and_its_first_init_container():
    made = plan(pod(init=[spec("i"), spec("j")]), sandbox=False)
    assert (made.sandbox, made.start_init, made.start) == (True, ("i",), ())
    made = plan(pod(), sandbox=False)
    assert (made.sandbox, made.start) == (True, ("main",))


@pytest.mark.parametrize(("policy", "code", "again"), [
    ("Always", 0, True), ("Always", 137, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 0, False), ("Never", 137, False),
])  # fmt: skip
def test_after_a_reboot_the_status_remembers(policy, code, again):
    made = plan(pod(restartPolicy=policy), sandbox=False, before={"main": code})
    assert made.finished is not again
    assert made.sandbox is again


def test_a_lost_sandbox_takes_what_runs_with_it():
    made = plan(pod(), [info()], sandbox=False)
    assert [kill.id for kill in made.kill] == ["main-0"]
    assert made.start == ("main",)


@pytest.mark.parametrize(("verdicts", "message"), [
    (Verdicts(failed_liveness=frozenset({"main-0"})), "Container main failed liveness probe, will be restarted"),
    (Verdicts(failed_startup=frozenset({"main-0"})), "Container main failed startup probe, will be restarted"),
])  # fmt: skip
def test_probes_kill(verdicts, message):
    made = plan(pod(), [info()], verdicts)
    assert [kill.message for kill in made.kill] == [message]
    assert made.start == ("main",)
    never = plan(pod(restartPolicy="Never"), [info()], verdicts)
    assert (len(never.kill), never.start, never.finished) == (1, (), False)


def test_a_new_image_restarts():
    made = plan(pod(spec(image="busybox:2")), [info()])
    assert made.kill[0].message == "Container main definition changed, will be restarted"
    assert made.start == ("main",)


def test_container_restart_rules():
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    own = spec(restartPolicy="Never", restartPolicyRules=[rule])
    assert plan(pod(own, restartPolicy="Never"), [info(state="exited", code=42)]).start == ("main",)
    assert plan(pod(own, restartPolicy="Never"), [info(state="exited", code=1)]).finished


def test_old_attempts_are_removed_but_the_last_ended_one():
    attempts = [info(state="exited", attempt=0), info(state="exited", attempt=1), info(attempt=2)]
    assert plan(pod(), attempts).remove == ("main-0",)


def test_ephemeral_containers_start_once():
    found = pod(ephemeralContainers=[spec("debug")])
    assert plan(found, [info()]).start_ephemeral == ("debug",)
    assert plan(found, [info(), info("debug", "exited")]).idle
