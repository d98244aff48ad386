"""The guard of fenced pods as a real process: it ends them at their time, ends with its file, and one replaces another."""

import subprocess
import time

import pytest

from edgekube.kubelet.fenceguard import FenceGuard
from edgekube.kubelet.runtime.mounts import start_time
from tests.kit.cluster import wait_until


def boot():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.fixture
def guard(tmp_path):
    """Groups are plain folders here: the guard reads cgroup.procs wherever it finds it."""
    made = []

    def make():
        made.append(FenceGuard(run_dir=tmp_path, groups=lambda uid: [tmp_path / uid], place=lambda _pid: None))
        return made[-1]

    yield make
    for one in made:
        one.keep(0.0, [])
        wait_until(lambda one=one: not one.alive, seconds=10)


@pytest.fixture
def sleeper(tmp_path):
    """A process in the "group" of pod u1, and one that watches it."""
    found = []
    for name in ("u1/main", "u1/conmon"):
        child = subprocess.Popen(["sleep", "60"])
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "cgroup.procs").write_text(f"{child.pid}\n")
        found.append(child)
    yield found
    for child in found:
        child.kill()
        child.wait()


def test_it_kills_at_the_time_and_not_before(guard, sleeper):
    main, watcher = sleeper
    one = guard()
    one.keep(boot() + 2.0, ["u1"])
    assert one.alive
    assert main.poll() is None
    assert main.wait(5) == -9
    assert watcher.poll() is None, "what watches containers stays"


def test_a_later_time_counts(guard, sleeper):
    one = guard()
    one.keep(boot() + 2.0, ["u1"])
    one.keep(boot() + 60.0, ["u1"])
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper[0].wait(2.5)


def test_the_next_process_knows_the_time_and_has_one_guard(guard):
    first, second = guard(), guard()
    moment = boot() + 30.0
    first.keep(moment, ["u1"])
    assert abs(second.load() - moment) <= 1
    second.keep(moment + 10, ["u1"])
    assert second.alive
    wait_until(lambda: not first.alive, seconds=5)


def test_no_pods_no_guard_and_nothing_known_of_another_boot(guard, tmp_path):
    one = guard()
    one.keep(boot() + 30.0, ["u1"])
    pid = one._pid
    (tmp_path / "fence").write_text("99999999 another-boot /x\n")
    assert guard().load() == float("-inf")
    one.keep(boot(), [])
    assert not (tmp_path / "fence").exists()
    wait_until(lambda: not start_time(pid), seconds=10)
