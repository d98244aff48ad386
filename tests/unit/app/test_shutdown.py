"""The end of pods at a shutdown, with real processes in real groups: asked first, killed after their time, the helpers last."""

import signal
import subprocess
import time
import uuid

import pytest

from edgekube.app.shutdown import end_pods, first_processes
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

    def run(line, name="libpod-1"):
        group = groups.ensure_pod("u1", "BestEffort", Limits())
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


def test_only_the_first_process_of_a_container_is_asked(groups, start):
    start("sleep 1000 & echo; wait")
    running = groups.workload()
    assert len(running) == 2
    assert len(first_processes(running)) == 1
