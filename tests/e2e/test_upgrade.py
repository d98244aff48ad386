"""Upgrades of a running server to versions that work and to versions that do not: whatever they do, pods run on and the state is as it was."""

import os
import signal
import subprocess
import sys
import time

import pytest

from edgekube.lib.pidfile import running
from tests.e2e.manifests import pod
from tests.kit.cluster import wait_until
from tests.kit.installed import installed
from tests.kit.processes import command_lines
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "busybox", "kubectl")

ELSEWHERE = 'set -- "$@" --https-port=7443'  # never ready where it is looked for
BROKEN = {
    "crashes": ("echo boom >&2; exit 3", "it ended with exit code 3: boom"),
    "ends": ("exit 0", "it ended with exit code 0"),
    "hangs": ("exec sleep 1000", "it was not ready within 4 s: it does not run"),
    "never ready": (ELSEWHERE, "it was not ready within 4 s"),
    "another version": ("exec {old} \"$@\"", "not as 0.9"),
    "damages the database": ("dd if=/dev/urandom of={data}/db/state.db bs=4096 count=9 conv=notrunc 2>/dev/null; exit 1", "it ended with exit code 1"),
    "deletes everything": ("rm -rf {data}/db {data}/pki; " + ELSEWHERE + " --disable-agent", "it was not ready within 4 s"),
    "migrates the database": (
        "{python} -c 'import sqlite3; c = sqlite3.connect(\"{data}/db/state.db\"); c.execute(\"PRAGMA user_version = 99\")'; exit 1",
        "it ended with exit code 1",
    ),
}


@pytest.fixture(scope="module")
def server(image):
    with installed() as found:
        found.edgekube("images", "import", str(image))
        found.apply(pod("stays", "sleep 3600"), "-n", "default")
        found.kubectl("wait", "-n", "default", "--for=condition=Ready", "pod/stays", "--timeout=60s")
        for number in range(20):
            found.kubectl("create", "configmap", f"c{number}", "-n", "default", f"--from-literal=a={number}")
        yield found


def state(server):
    """What must be the same afterwards."""
    found = server.get("configmaps", "-n", "default")["items"]
    container = server.get("pod", "stays", "-n", "default")["status"]["containerStatuses"][0]
    return sorted((c["metadata"]["uid"], c["metadata"]["resourceVersion"]) for c in found), container["containerID"], container["restartCount"]


def broken(server, what, version="0.9.0"):
    script = BROKEN[what][0].replace("{data}", str(server.data)).replace("{python}", sys.executable).replace("{old}", f"{server.file}.previous")
    return server.version(version, script)


@pytest.mark.parametrize("what", BROKEN)
def test_one_that_does_not_work_is_taken_back(server, what):
    before, began = state(server), time.monotonic()
    code, said = server.upgrade(broken(server, what), "--timeout=4")
    took = time.monotonic() - began
    assert code == 1, said
    assert f"0.9.0 was taken back: {BROKEN[what][1].split('0.9')[0]}" in said or BROKEN[what][1] in said, said
    assert "0.1.0 is ready again" in said
    assert state(server) == before
    assert server.answers() == "0.1.0"
    assert took < 60
    assert not server.file.with_name("edgekube.next").exists()
    assert not (server.data / "upgrade").exists()
    assert "upgrade was taken back" in server.log_text()


def test_one_that_works_and_again_and_down(server):
    before = state(server)
    code, said = server.upgrade(server.version("0.2.0"))
    assert code == 0, said
    assert "0.2.0 is ready; 0.1.0 is kept as" in said
    assert server.answers() == "0.2.0"
    assert state(server) == before
    assert server.file.read_bytes() == server.version("0.2.0").read_bytes()
    again = server.upgrade(server.version("0.2.0"))
    assert again[0] == 0
    assert "nothing to do" in again[1]
    code, said = server.upgrade(server.version("0.1.0"))
    assert code == 1
    assert "is edgekube 0.1.0, older than 0.2.0, which is installed: --allow-downgrade does it all the same" in said
    assert server.answers() == "0.2.0"
    code, said = server.upgrade(server.version("0.1.0"), "--allow-downgrade")
    assert code == 0, said
    assert server.answers() == "0.1.0"
    assert state(server) == before
    assert "upgrade-0.1.0-" in server.edgekube("snapshot", "list")


def test_files_that_are_none(server):
    base = server.base
    (base / "text").write_text("hello")
    (base / "arm").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + (183).to_bytes(2, "little") + bytes(100))
    (base / "cut").write_bytes(b"\x7fELF")
    good = server.version("0.3.0")
    (base / "SHA256SUMS").write_text(f"{'0' * 64}  {good.name}\n")
    (base / "fails").write_text("#!/bin/sh\necho \"version GLIBC_2.99 not found\" >&2; exit 127\n")
    for name, why in (
        ("text", "is no program"),
        ("arm", "is a program for aarch64, this machine is x86_64"),
        ("cut", "is no program"),
        ("nothing", "does not exist"),
        (good.name, "is damaged: its checksum is not the one in"),
        ("fails", "does not run here: version GLIBC_2.99 not found"),
    ):
        code, said = server.upgrade(base / name)
        assert code == 1
        assert why in said
        assert said.startswith("edgekube: ")
        assert said.count("\n") == 1
    (base / "SHA256SUMS").unlink()
    assert server.answers() == "0.1.0"


@pytest.mark.parametrize("point", ["begin", "stopped", "copied", "kept-previous", "begun", "keep-decided", "kept"])
def test_killed_upgrade_to_one_that_works(server, point):
    """Another process goes on: what is served afterwards is one of the two, with the same state."""
    _killed(server, server.version("0.2.0"), point, timeout=30)
    assert server.answers() in ("0.1.0", "0.2.0")
    if server.answers() == "0.2.0":
        server.upgrade(server.version("0.1.0"), "--allow-downgrade")


@pytest.mark.parametrize("point", ["back-decided", "back-stopped", "back-switched", "data-decided", "back-restored"])
def test_killed_while_it_goes_back(server, point):
    _killed(server, broken(server, "deletes everything"), point, timeout=3)
    assert server.answers() == "0.1.0"


def _killed(server, file, point, *, timeout):
    before = state(server)
    argv = server.argv("upgrade", str(file), f"--program={server.file}", f"--timeout={timeout}")
    done = subprocess.run(argv, env=os.environ | {"EDGEKUBE_FAILPOINTS": f"upgrade.{point}=kill"}, check=False, capture_output=True, text=True)
    assert done.returncode in (-signal.SIGKILL, 137), done.stdout + done.stderr
    wait_until(lambda: not _judges(server), seconds=60, what="nobody judges any more")
    if not running(server.run_dir / "edgekube.pid"):
        started = subprocess.Popen([*server.argv("server", *server.flags)], stdout=server.log.open("ab"), stderr=subprocess.STDOUT)
        assert started.poll() is None
    wait_until(lambda: _serves(server), seconds=60, what="it serves")
    wait_until(lambda: not _judges(server), seconds=60, what="nobody judges any more")
    wait_until(lambda: _serves(server), seconds=60, what="it serves")
    assert state(server) == before


def _judges(server):
    """Processes that judge or wait to."""
    return [pid for pid, line in command_lines() if "--resume" in line and str(server.data) in line]


def _serves(server):
    return subprocess.run([*server.argv("status", "--node", "--quiet")], check=False).returncode == 0


@pytest.mark.parametrize("what", ["crashes", "damages the database", "never ready"])
def test_the_power_fails_and_it_boots_into_one_that_does_not_work(server, what):
    """No command, no judge is left: whatever starts edgekube as it always did finds the old version again by itself."""
    before = state(server)
    argv = server.argv("upgrade", str(broken(server, what)), f"--program={server.file}", "--timeout=4")
    done = subprocess.run(argv, env=os.environ | {"EDGEKUBE_FAILPOINTS": "upgrade.begun=kill"}, check=False, capture_output=True)
    for pid in _judges(server):
        os.kill(pid, signal.SIGKILL)
    assert done.returncode in (-signal.SIGKILL, 137)
    assert not running(server.run_dir / "edgekube.pid")
    assert b"on trial" in server.file.read_bytes()
    subprocess.Popen(server.argv("server", *server.flags), stdout=server.log.open("ab"), stderr=subprocess.STDOUT)
    wait_until(lambda: b"on trial" not in server.file.read_bytes(), seconds=60, what="the old version is back")
    wait_until(lambda: not _judges(server), seconds=60, what="nobody judges any more")
    wait_until(lambda: _serves(server), seconds=60, what="it serves")
    assert server.answers() == "0.1.0"
    assert state(server) == before


def test_a_stopped_one_is_on_trial_from_its_next_start_on(server):
    server.edgekube("stop")
    code, said = server.upgrade(server.version("0.2.0"))
    assert (code, "0.2.0 is on trial from its next start on" in said) == (0, True), said
    subprocess.Popen(server.argv("server", *server.flags), stdout=server.log.open("ab"), stderr=subprocess.STDOUT)
    wait_until(lambda: b"on trial" not in server.file.read_bytes(), seconds=60, what="it has been judged")
    assert server.file.read_bytes() == server.version("0.2.0").read_bytes()
    wait_until(lambda: _serves(server), seconds=60, what="it serves")
    assert server.answers() == "0.2.0"
    code, said = server.upgrade(server.version("0.1.0"), "--allow-downgrade", "--timeout=30")
    assert code == 0, said


@pytest.mark.parametrize("point", ["copied", "kept-previous"])
def test_a_full_disk_is_no_upgrade(server, point):
    before = state(server)
    argv = server.argv("upgrade", str(server.version("0.2.0")), f"--program={server.file}")
    done = subprocess.run(argv, env=os.environ | {"EDGEKUBE_FAILPOINTS": f"upgrade.{point}=error"}, check=False, capture_output=True, text=True)
    assert (done.returncode, "edgekube: the upgrade did not happen: " in done.stderr) == (1, True), done.stderr
    wait_until(lambda: _serves(server), seconds=60, what="it serves")
    assert (server.answers(), state(server)) == ("0.1.0", before)
    assert not (server.data / "upgrade").exists()
    assert not server.file.with_name("edgekube.next").exists()
