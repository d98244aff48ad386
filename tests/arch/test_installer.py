"""What the installer is made of: scripts that any sh understands, units that systemd understands."""

import shutil
import subprocess
from pathlib import Path

import pytest

from edgekube.app import setup

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for folder in ("packaging", "vagrant", "tests") for path in (ROOT / folder).glob("*.sh"))
UNITS = sorted((ROOT / "systemd").glob("*.service"))


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="NOT TESTED HERE: needs shellcheck")
def test_shellcheck_has_nothing_to_say():
    done = subprocess.run(["shellcheck", *map(str, SCRIPTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="NOT TESTED HERE: needs systemd-analyze")
@pytest.mark.parametrize("config", [None, Path("/srv/my 100%.yaml")])
def test_systemd_understands_the_units(tmp_path, config):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS:
        text = setup.plan_unit(unit.read_text(), config=config, data_dir=Path("/var/lib/edgekube"))
        (tmp_path / unit.name).write_text(text.replace("/usr/local/bin/edgekube", str(program)))
    argv = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in UNITS)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Unknown" not in done.stderr


def test_both_roles_are_alike_but_for_what_makes_them():
    server, agent = (dict.fromkeys(unit.read_text().splitlines()) for unit in (ROOT / "systemd/edgekube.service", ROOT / "systemd/edgekube-agent.service"))
    differ = {line.partition("=")[0] for line in server.keys() ^ agent.keys() if "=" in line and not line.startswith("#")}
    assert differ == {"Description", "ExecStart", "RestartSec", "TimeoutStartSec"}
