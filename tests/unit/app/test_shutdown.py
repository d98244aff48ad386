"""The end of pods at a shutdown, with real processes in real groups: asked first, killed after their time, the helpers last."""

import signal
import subprocess
import time
import uuid

import pytest

from edgekube.app.shutdown import Turn, end_pods, first_processes, plan_turns
from edgekube.kubelet.critical import note, noted
from edgekube.kubelet.runtime.cgroups import Hierarchy, Limits, PodGroups
from tests.kit.requires import needs

pytestmark = needs("root")


@pytest.fixture
def groups():
    unique = uuid.uuid4().hex[:8]
    found = PodGroups(Hierarchy(service=f"edgekube-test-{unique}"), f"kubepods-test-{unique}")
    yield found
    found.remove_all()


@pytest.fixture
def start(groups):
    """Start a shell line in a group of its own below a pod; returns once it printed a line."""
    started = []

    def run(line, name="libpod-1", pod="u1"):
        group = groups.ensure_pod(pod, "BestEffort", Limits())
        groups.hierarchy.ensure(f"{group}/{name}")
        child = subprocess.Popen(["sh", "-c", f"read go; {line}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for tree in groups.hierarchy.trees():
            if (folder := tree / group.lstrip("/") / name).exists():
                (folder / "cgroup.procs").write_text(str(child.pid))
        child.stdin.write(b"\n")
        child.stdin.close()
        assert child.stdout.readline()
        started.append(child)
        return child

    yield run
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def test_what_listens_ends_by_itself_and_nobody_waits_for_the_helpers(groups, start):
    polite = start('trap "exit 7" TERM; echo; while :; do sleep 0.01; done')
    pause = start('trap "" TERM; echo; exec sleep 1000', "pause")
    began = time.monotonic()
    end_pods(groups.hierarchy, groups, grace=60.0)
    assert time.monotonic() - began < 30
    assert polite.wait() == 7
    assert pause.wait() == -signal.SIGKILL


def test_what_does_not_listen_is_killed_after_its_time(groups, start):
    deaf = start('trap "" TERM; echo; exec sleep 1000')
    end_pods(groups.hierarchy, groups, grace=0.2)
    assert deaf.wait() == -signal.SIGKILL


def test_critical_pods_end_after_the_others(groups, start, tmp_path):
    record = tmp_path / "order"
    line = f"trap 'echo $name >> {record}; exit' TERM; echo; while :; do sleep 0.01; done"
    for name in ("critical", "plain"):
        start(f"name={name}; {line}", pod=name)
    deaf = start('trap "" TERM; echo; exec sleep 1000', pod="deaf")
    began = time.monotonic()
    end_pods(groups.hierarchy, groups, grace=1.0, critical={"critical", "gone"}, critical_grace=0.8)
    assert time.monotonic() - began < 10
    assert record.read_text().split() == ["plain", "critical"]
    assert deaf.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("pods", "critical", "turns"),
    [
        ("ab", "", [("ab", 20)]),
        ("ab", "ab", [("ab", 20)]),
        ("abc", "c", [("ab", 15), ("c", 5)]),
        ("a", "x", [("a", 20)]),
        ("", "x", []),
    ],
)
def test_turns(pods, critical, turns):
    assert plan_turns(set(pods), set(critical), 20, 5) == [Turn(frozenset(who), seconds) for who, seconds in turns]


def test_a_longer_time_for_critical_pods_than_for_all_is_all():
    assert [turn.seconds for turn in plan_turns({"a", "b"}, {"b"}, 3, 9)] == [0, 3]


def test_which_pods_are_critical_is_noted_for_the_end(tmp_path):
    pods = [{"metadata": {"uid": "a"}, "spec": {"priority": 2_000_000_000}}, {"metadata": {"uid": "b"}, "spec": {"priority": 5}}]
    note(tmp_path, pods)
    assert noted(tmp_path) == {"a"}
    note(tmp_path, [])
    assert noted(tmp_path) == noted(tmp_path / "none") == frozenset()


def test_only_the_first_process_of_a_container_is_asked(groups, start):
    start("sleep 1000 & echo; wait")
    running = groups.workload()
    assert len(running) == 2
    assert len(first_processes(running)) == 1
