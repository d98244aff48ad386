"""A real edgekube server as a subprocess in a network namespace of its own, driven with the real kubectl.

with cluster() as c:
    c.apply(manifest); c.kubectl("rollout", "status", "deploy/web"); c.kill(); c.start(); c.uninstall()
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.kit import netns as ns
from tests.kit.processes import edgekube
from tests.kit.requires import kubectl

START_SECONDS = 90


class CommandFailed(AssertionError):
    """A command that had to succeed did not; the message has all it said."""


class Cluster:
    """One server. Everything of it lives below `base`, its sockets below a folder on /run."""

    def __init__(self, netns: str, base: Path, run: Path, *, flags: Sequence[str] = ()) -> None:
        self.netns, self.base, self.run_dir, self.flags = netns, base, run, list(flags)
        self.data = base / "data"
        self.kubeconfig = base / "kubeconfig.yaml"
        self.log = base / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.program: Sequence[str] = edgekube()

    def argv(self, command: str, *more: str) -> list[str]:
        own = [f"--data-dir={self.data}", f"--run-dir={self.run_dir}", f"--write-kubeconfig={self.kubeconfig}", "--node-name=node-1"]
        return [*ns.enter_command(self.netns), *self.program, command, *own, *more]

    def start(self, *, env: Mapping[str, str] | None = None, wait: bool = True) -> None:
        """Start the server; returns when it says that it is ready."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.argv("server", *self.flags), stderr=out, stdout=out, stdin=subprocess.DEVNULL, env=os.environ | dict(env or {})
            )
        if wait:
            self._wait_ready(offset)

    def _wait_ready(self, offset: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with self.log.open("rb") as file:
                file.seek(offset)
                if b"edgekube is ready" in file.read():
                    return
            if self.process is not None and self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise CommandFailed("the server did not become ready:\n" + self.log_text()[-4000:])

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal the server (nsenter becomes it by exec) and wait for its end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    def stop(self) -> int:
        """Orderly stop; the exit code."""
        process = self.process
        self.kill(signal.SIGTERM)
        return process.returncode if process is not None else 0

    def edgekube(self, command: str, *arguments: str) -> str:
        return self._run(self.argv(command, *arguments))

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """stdout of kubectl. Raises CommandFailed."""
        return self._run(self.kubectl_argv(*arguments), stdin=stdin, timeout=timeout)

    def kubectl_argv(self, *arguments: str) -> list[str]:
        return [*ns.enter_command(self.netns), kubectl(), f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.base}/cache", *arguments]

    def fails(self, *arguments: str, stdin: str | None = None) -> str:
        """stderr of a kubectl that must fail."""
        done = subprocess.run(self.kubectl_argv(*arguments), input=stdin, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} was expected to fail but said: {done.stdout}"
        return done.stderr

    def apply(self, manifest: str, *arguments: str) -> str:
        return self.kubectl("apply", "-f", "-", *arguments, stdin=manifest)

    def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def inside(self, *argv: str, timeout: float = 30) -> str:
        """A program in the server's network namespace."""
        return self._run([*ns.enter_command(self.netns), *argv], timeout=timeout)

    def fetch(self, url: str) -> str:
        """The body of a URL, asked for from the server's network namespace."""
        program = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=5).read().decode())"
        return self.inside(sys.executable, "-c", program, url).strip()

    def _run(self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 120) -> str:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise CommandFailed(
                f"{' '.join(argv[3:])}: exit {done.returncode}\n{done.stdout}{done.stderr}\n--- server log:\n{self.log_text()[-3000:]}"
            )
        return done.stdout

    def uninstall(self) -> str:
        self.stop()
        return self.edgekube("uninstall", "--yes")


@contextlib.contextmanager
def cluster(*flags: str, start: bool = True, program: Sequence[str] = ()) -> Iterator[Cluster]:
    """A started server; removed with everything it made at the end, even if the test failed."""
    name = f"ekt-{uuid.uuid4().hex[:8]}"
    base, run = Path("/tmp") / name, Path("/run") / name
    base.mkdir(mode=0o700)
    with ns.namespace() as netns:
        found = Cluster(netns, base, run, flags=flags)
        found.program = program or found.program
        try:
            if start:
                found.start()
            yield found
        finally:
            with contextlib.suppress(CommandFailed, subprocess.TimeoutExpired):
                found.uninstall()
            found.kill()
            if os.environ.get("EDGEKUBE_KEEP"):
                print(f"kept: {base} {run}")
            else:
                shutil.rmtree(base, ignore_errors=True)


def wait_until(condition: Any, *, seconds: float = 30, what: str = "") -> Any:
    """The first true answer of `condition()`. Raises AssertionError at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.05)
