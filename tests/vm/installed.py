"""edgekube on a machine of the lab: installed as a service, asked until it answers."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kit.images import archive
from tests.kit.requires import kubectl

ROOT = Path(__file__).parents[2]


def install(vm, folder, *more):
    """The program, its unit, an image and kubectl; `more` are Python packages beside it. Nothing is started."""
    wanted = vm.run("python3 -c 'import sys; print(sys.version_info[:2])'")
    if wanted != str(sys.version_info[:2]):
        pytest.skip(f"NOT TESTED HERE: the guest's Python is {wanted}")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder / "python"), str(ROOT), *more]
    subprocess.run(pip, check=True)
    (folder / "edgekube").write_text('#!/bin/sh\nPYTHONPATH=/usr/local/lib/edgekube exec python3 -m edgekube "$@"\n')
    (folder / "edgekube").chmod(0o755)
    archive(folder / "busybox.tar")
    vm.put(folder / "python", "/usr/local/lib/edgekube")
    vm.put(folder / "edgekube", "/usr/local/bin/edgekube")
    vm.put(folder / "busybox.tar", "/root/busybox.tar")
    vm.put(Path(shutil.which(kubectl())).resolve(), "/usr/local/bin/kubectl")
    vm.put(ROOT / "systemd/edgekube.service", "/etc/systemd/system/edgekube.service")
    vm.run("systemctl daemon-reload")


def eventually(look, *, patience=120.0):
    """Look until it is true."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, "still not"
        time.sleep(1)
    return found
