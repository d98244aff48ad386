"""An installed edgekube: a program at a path, versions of it to upgrade to, good ones and others, and a server that runs it.

A program is a script that runs this source, or a copy of it with another version number; what an upgrade sees of it is what it would see
of the one file that users install.
"""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import edgekube
from tests.kit.cluster import Cluster, cluster

SOURCE = Path(edgekube.__file__).parent


def make_version(base: Path, version: str, server: str = "") -> Path:
    """A program of that version below `base`. `server`: shell that runs when it is started as a server or agent, before or instead of the
    real thing."""
    tree = base / f"source-{version}"
    if not tree.exists():
        shutil.copytree(SOURCE, tree / "edgekube", ignore=shutil.ignore_patterns("__pycache__"))
        path = tree / "edgekube" / "__init__.py"
        path.write_text(path.read_text().replace(f'"{edgekube.__version__}"', f'"{version}"'))
    file = base / f"edgekube-{version}"
    real = f'PYTHONPATH={tree} exec {sys.executable} -P -m edgekube "$@"'
    file.write_text(f'#!/bin/sh\n# {version}\ncase "$1" in server|agent)\n{server or ":"}\nesac\n{real}\n')
    file.chmod(0o755)
    return file


class Installed(Cluster):
    """A server that was started as BASE/bin/edgekube server."""

    @property
    def file(self) -> Path:
        """What is installed."""
        return self.base / "bin" / "edgekube"

    def install(self, version: str = "0.1.0") -> None:
        self.file.parent.mkdir()
        self.version(version).rename(self.file)
        self.program = (str(self.file),)

    def version(self, version: str, server: str = "") -> Path:
        return make_version(self.base, version, server)

    def upgrade(self, file: Path, *more: str) -> tuple[int, str]:
        """(exit code, what it said)."""
        done = subprocess.run(
            self.argv("upgrade", str(file), f"--program={self.file}", *more), capture_output=True, text=True, timeout=180, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def answers(self) -> str:
        """The version that the API answers with."""
        return str(json.loads(self.kubectl("get", "--raw=/version"))["gitVersion"]).split("+edgekube")[-1]

    def uninstall(self) -> str:
        self.edgekube("stop")
        return super().uninstall()


@contextlib.contextmanager
def installed(*flags: str) -> Iterator[Installed]:
    """A started server; removed with everything it made at the end."""
    with cluster(*flags, start=False) as plain:
        found = Installed(plain.netns, plain.base, plain.run_dir, flags=flags)
        found.install()
        try:
            found.start()
            yield found
        finally:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                found.uninstall()
            found.kill()
