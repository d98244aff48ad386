"""Back-off, files, processes, pid files, log lines, failpoints."""

import asyncio
import logging
import os
import subprocess
import sys

import pytest
import uvloop

from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import FakeClock, parse_rfc3339, rfc3339, rfc3339_micro
from edgekube.lib.files import write_atomic, write_if_changed
from edgekube.lib.log import FieldFormatter
from edgekube.lib.pidfile import AlreadyRunning, PidFile, running
from edgekube.lib.process import ProgramMissing, ProgramTimeout, clean_environment, require, run
from edgekube.lib.tasks import TaskScope


def test_backoff_doubles_up_to_the_cap_and_forgets():
    backoff = Backoff(base=1, cap=5)
    assert [backoff.delay("a") for _ in range(4)] == [1, 2, 4, 5]
    assert backoff.delay("b") == 1
    backoff.forget("a")
    assert backoff.delay("a") == 1


def test_times_round_trip():
    now = FakeClock().now().replace(microsecond=123456)
    assert parse_rfc3339(rfc3339_micro(now)) == now
    assert parse_rfc3339(rfc3339(now)) == now.replace(microsecond=0)
    with pytest.raises(ValueError, match="time zone"):
        parse_rfc3339("2026-01-01T00:00:00")


def test_a_file_is_replaced_whole_with_its_mode(tmp_path):
    path = tmp_path / "secret"
    write_atomic(path, b"one", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o600)
    assert not write_if_changed(path, b"one", mode=0o600)
    assert write_if_changed(path, b"two", mode=0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


async def test_programs_have_deadlines_and_clear_absence():
    assert (await run(["sh", "-c", "cat; exit 3"], timeout=5, stdin=b"in")).stdout == b"in"
    assert (await run(["sh", "-c", "exit 3"], timeout=5)).code == 3
    with pytest.raises(ProgramTimeout):
        await run(["sleep", "30"], timeout=0.05)
    with pytest.raises(ProgramMissing, match="install the package none"):
        require("no-such-program", package="none")
    with pytest.raises(ProgramMissing):
        await run(["/no/such/program"], timeout=1)


def test_input_that_nobody_reads_is_no_error():
    """On the loop of a server, whose pipes say so by an exception of their own: the program may be gone before it was given everything."""

    async def often():
        return [(await run(["true"], timeout=5, stdin=b"x" * size)).code for size in (1, 1 << 20) for _ in range(20)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert set(runner.run(often())) == {0}



def test_children_get_nothing_that_is_for_us_alone(monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/host")
    found = clean_environment({"A": "b"})
    assert (found["LD_LIBRARY_PATH"], found["A"]) == ("/host", "b")
    assert "NOTIFY_SOCKET" not in found


def test_the_pid_file_is_a_lock(tmp_path):
    path = tmp_path / "pid"
    assert running(path) == 0
    held = PidFile(path)
    assert running(path) == os.getpid()
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        PidFile(path)
    held.close()
    assert running(path) == 0
    PidFile(path).close()


def test_log_lines():
    record = logging.LogRecord("edgekube.x.y", logging.WARNING, "", 0, "pod bound", (), None)
    record.pod, record.why = "default/a", 'two "words"'
    line = FieldFormatter(journal=False).format(record)
    assert line.endswith("""Z warning x.y pod bound pod=default/a why='two "words"'""")
    assert FieldFormatter(journal=True).format(record).startswith("<4>warning x.y")


async def test_one_failing_task_leaves_the_others_alone(caplog):
    async def fail():
        raise ValueError("broken")

    async with TaskScope("scope") as scope:
        forever = scope.spawn(asyncio.Event().wait(), name="forever")
        failing = scope.spawn(fail(), name="failing")
        await asyncio.wait([failing])
        await asyncio.sleep(0)
        assert not forever.done()
    assert forever.cancelled()
    assert [record.task for record in caplog.records] == ["scope/failing"]


@pytest.mark.parametrize(("points", "code", "out"), [("p=kill:2", -9, b"1\n"), ("p=error", 1, b""), ("other=kill", 0, b"1\n2\n")])
def test_failpoints(points, code, out):
    program = "from edgekube.lib.failpoint import hit\nfor n in (1, 2):\n    hit('p')\n    print(n, flush=True)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"EDGEKUBE_FAILPOINTS": points}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, out)
