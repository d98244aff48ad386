"""The parts of an upgrade that decide without a server: versions, command lines, the gate, the names of the program."""

import hashlib
import os
import struct
import subprocess
import time

import pytest

from edgekube.app.upgrade import gate
from edgekube.app.upgrade.candidate import Refused, ask, check_file, order
from edgekube.app.upgrade.gate import Look
from edgekube.app.upgrade.running import plan_arguments, started_as
from edgekube.app.upgrade.switch import Switch


def test_order_of_versions():
    wanted = ["0.9.0", "0.10.0-alpha", "0.10.0-rc.2", "0.10.0-rc.10", "0.10.0", "0.10.1", "v1.0.0", "2.0"]
    assert sorted(sorted(wanted), key=order) == wanted
    assert order("1.0.0+build5") == order("1.0.0")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["/usr/local/bin/edgekube", "server"], ("server", ())),
        (["/usr/bin/python3", "-m", "edgekube", "agent", "--server=https://a:6443"], ("agent", ("--server=https://a:6443",))),
        (["/var/lib/edgekube/data/ab/edgekube", "server", "--node-name", "agent"], ("server", ("--node-name", "agent"))),
    ],
)
def test_how_it_was_started(words, found):
    assert plan_arguments(words) == found


GOOD, BAD = Look(7, True), Look(7, False, "node pi is not ready")


def play(looks, **options):
    """The gate, shown these looks one after the other; the last one for ever."""
    left = list(looks)
    return gate.wait(lambda: left.pop(0) if len(left) > 1 else left[0], lambda: "", **{"timeout": 0.6, "stable": 0.3} | options)


def test_the_gate():
    assert play([BAD, GOOD]) == ""
    assert play([BAD]) == "it was not ready within 1 s: node pi is not ready"
    assert play([GOOD, BAD]) == "it was not ready within 1 s: node pi is not ready"
    assert play([GOOD, Look(8, True), Look(9, True), Look(10, True), Look(11, True), Look(12, True), Look(13, True), BAD]) != "", "restarts are not stable"
    assert gate.wait(lambda: Look(0, False, "it does not run"), lambda: "it ended with exit code 1", timeout=60) == "it ended with exit code 1"


@pytest.fixture
def switch(tmp_path):
    found = Switch(tmp_path / "edgekube")
    found.path.write_text("#!/bin/sh\necho old $*\n")
    found.path.chmod(0o755)
    new = tmp_path / "new"
    new.write_text("#!/bin/sh\necho new $*\n")
    found.bring(new)
    new.unlink()
    return found


def says(path, *arguments):
    return subprocess.run([str(path), *arguments], check=True, capture_output=True, text=True).stdout.strip()


def eventually(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def names(switch):
    return sorted(entry.name for entry in switch.path.parent.iterdir())


@pytest.mark.parametrize("keep", [True, False])
def test_names(switch, tmp_path, keep):
    for _ in range(2):  # each step may have been done already
        switch.keep()
        switch.go_back()
    assert says(switch.path) == "old"
    switch.keep_previous()
    switch.begin(tmp_path / "data")
    assert switch.on_trial
    assert says(switch.path, "status", "--x=a b") == "new status --x=a b"
    assert says(switch.previous) == "old"
    (switch.keep if keep else switch.go_back)()
    assert not switch.on_trial
    assert says(switch.path) == ("new" if keep else "old")
    assert says(switch.previous) == "old"
    switch.tidy()
    assert names(switch) == ["edgekube", "edgekube.previous"]


def test_the_script_starts_the_judge_with_servers_only(switch, tmp_path):
    switch.path.write_text(f"#!/bin/sh\necho $* >>{tmp_path}/judged\n")
    switch.keep_previous()
    switch.begin(tmp_path / "da ta")
    says(switch.path, "status")
    assert says(switch.path, "server", "--x") == "new server --x"
    judged = tmp_path / "judged"
    assert eventually(judged.exists)
    assert judged.read_text() == f"upgrade --resume --data-dir={tmp_path}/da ta --program={switch.path}\n"


def test_an_installation_that_is_a_link(switch, tmp_path):
    """As an installer from a checkout makes it: a link into a Python environment."""
    (tmp_path / "environment").write_text("#!/bin/sh\necho linked\n")
    (tmp_path / "environment").chmod(0o755)
    switch.path.unlink()
    switch.path.symlink_to(tmp_path / "environment")
    switch.keep_previous()
    switch.begin(tmp_path)
    assert says(switch.path, "version") == "new version"
    assert says(switch.previous) == "linked"
    switch.go_back()
    assert switch.path.is_symlink()
    assert says(switch.path) == "linked"


def test_what_runs_under_a_name(tmp_path):
    script = tmp_path / "edgekube.next"
    script.write_text("#!/bin/sh\nread x\n")
    script.chmod(0o755)
    with subprocess.Popen([script, "server", "--x"], stdin=subprocess.PIPE) as process:
        assert eventually(lambda: started_as(script) == [process.pid])  # Popen returns before the kernel has written the command line
        assert started_as(tmp_path / "other") == []
        process.stdin.close()
    with subprocess.Popen([script, "status"], stdin=subprocess.PIPE) as process:
        assert started_as(script) == []
        process.stdin.close()


def test_what_is_packed_must_fit_its_end(tmp_path):
    """A launcher that has unpacked this version already looks at the end only."""
    payload = os.urandom(5000)
    end = struct.pack("<QQQ32s32s64sII32s16s", 7, 5000, 0, hashlib.sha256(payload).digest(), b"", b"", 35, 0, b"0.2.0", b"EDGEKUBE-PAYLOAD")
    file = tmp_path / "edgekube"
    file.write_bytes(b"#!x\n123" + payload + end)
    check_file(file)
    for at in (7, 3000, 5006):
        data = bytearray(file.read_bytes())
        data[at] ^= 1
        (tmp_path / "flipped").write_bytes(data)
        with pytest.raises(Refused, match="is damaged: what is packed in it"):
            check_file(tmp_path / "flipped")


def test_asking_a_file(tmp_path):
    file = tmp_path / "edgekube"
    for text, why in (
        ("exit 0", "does not run here: exit code 0"),
        ("echo 'edgekube 1.2.3 (Kubernetes)'; [ $1 = version ] || { echo '  FAIL  module x is missing'; exit 1; }", "is not whole: FAIL  module x is missing"),
        ("kill -9 $$", "does not run here: exit code -9"),
    ):
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        with pytest.raises(Refused, match=why):
            ask(file, data=tmp_path)
    file.write_text("#!/bin/sh\n[ $1 = version ] || exit 2\necho 'edgekube 1.2.3 (Kubernetes v1.36.0)'\n")
    assert ask(file, data=tmp_path) == "1.2.3"
    assert len(check_file(file)) == 64
    os.chmod(file, 0o644)
    with pytest.raises(Refused, match="does not run here: Permission denied"):
        ask(file, data=tmp_path)
