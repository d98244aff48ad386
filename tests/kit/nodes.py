"""edgekube on machines: one server, its agents, and kubectl from anywhere.

    with fleet(agents=2) as f:
        f.kubectl("get", "nodes"); f.agents[0].kill(); f.agents[0].start(); f.net.block(f.server.machine, f.agents[0].machine)

Each node has a Podman storage of its own below its machine's disk. At the end everything is uninstalled and the machines are gone.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekube.api import bootstraptokens
from edgekube.lib.clock import SystemClock
from tests.kit import images
from tests.kit.fabric import Fabric, fabric
from tests.kit.machine import CommandFailed, Machine, Process
from tests.kit.processes import edgekube
from tests.kit.requires import kubectl

START_SECONDS = 90
RUN = Path("/run/edgekube")  # each machine has a /run of its own


class Node:
    """An edgekube process on a machine, server or agent, and everything of it."""

    command = "server"

    def __init__(self, machine: Machine, flags: Sequence[str] = ()) -> None:
        self.machine, self.flags = machine, list(flags)
        self.data = machine.base / "data"
        self.kubeconfig = machine.base / "kubeconfig.yaml"
        self.log = machine.base / "edgekube.log"
        self.process: Process | None = None

    @property
    def name(self) -> str:
        return self.machine.name

    def argv(self, command: str, *more: str) -> list[str]:
        own = [f"--data-dir={self.data}", f"--run-dir={RUN}", f"--write-kubeconfig={self.kubeconfig}"]
        return [*edgekube(), command, *own, *more]

    def start(self, *more: str, env: Mapping[str, str] | None = None, wait: bool = True) -> None:
        """Start it; returns when it says that it is ready. Raises CommandFailed if it ends before."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        self.process = self.machine.popen(*self.argv(self.command, *self.flags, *more), log=self.log, env=env)
        if wait:
            self.says("edgekube is ready", offset=offset)

    def says(self, text: str, *, offset: int = 0, seconds: float = START_SECONDS) -> None:
        """Wait until the log has `text`. Raises CommandFailed if the process ends before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self.log.open("rb") as file:
                file.seek(offset)
                if text.encode() in file.read():
                    return
            if self.process is None or self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise CommandFailed(f"{self.name} never said {text!r}:\n{self.log_text()[-4000:]}")

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Signal it and wait for its end; the exit code. Its pods stay."""
        process, self.process = self.process, None
        if process is None:
            return 0
        if process.poll() is None:
            process.signal(number)
        return process.wait()

    def stop(self) -> int:
        return self.kill(signal.SIGTERM)

    def power_off(self) -> None:
        """Pull the plug of its machine."""
        self.machine.power_off()
        self.kill()

    def edgekube(self, command: str, *arguments: str, check: bool = True) -> str:
        return self.machine.run(*self.argv(command, *arguments), timeout=120, check=check)

    def uninstall(self) -> str:
        self.stop()
        return self.edgekube("uninstall", "--yes")


class Agent(Node):
    """A node that joins."""

    command = "agent"

    def refused(self, *more: str) -> str:
        """The one line with which an agent that does not get in ends, with exit code 1."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        self.process = self.machine.popen(*self.argv(self.command, *self.flags, *more), log=self.log)
        code = self.process.wait()
        said = self.log_text()[offset:].splitlines()
        lines = [line for line in said if line.startswith("edgekube: ")]
        assert (code, len(lines)) == (1, 1), said
        return lines[0].removeprefix("edgekube: ")


class Fleet:
    """A server and its agents on the wires of `net`."""

    def __init__(self, net: Fabric, *, server_flags: Sequence[str] = ()) -> None:
        self.net = net
        self.lan = net.lan("10.99.0.0/24")
        self.server = Node(net.machine("server", self.lan), server_flags)
        self.agents: list[Agent] = []

    @property
    def url(self) -> str:
        return f"https://{self.net.address(self.server.machine)}:6443"

    def token(self, **options: Any) -> str:
        """A new join token; `options` as in bootstraptokens.secret_of."""
        bearer = bootstraptokens.new_bearer()
        self.apply(json.dumps(bootstraptokens.secret_of(bearer, now=SystemClock().now(), **options)))
        return bootstraptokens.join_token((self.server.data / "pki" / "ca.crt").read_bytes(), bearer)

    def machine(self, name: str, **options: str) -> Machine:
        """One more machine in the server's LAN."""
        return self.net.machine(name, self.lan, **options)

    def add(self, machine: Machine, *flags: str, token: str = "", start: bool = True) -> Agent:
        """Make an agent of a machine. The token is used at the first start only."""
        found = Agent(machine, [f"--server={self.url}", *flags])
        self.agents.append(found)
        if start:
            found.start(f"--token={token or self.token()}")
        return found

    def nodes(self) -> list[Node]:
        return [self.server, *self.agents]

    def import_image(self, tar: Path) -> None:
        """On every node."""
        for node in self.nodes():
            node.edgekube("images", "import", str(tar))

    # kubectl

    def kubectl(self, *arguments: str, on: Node | None = None, stdin: str | None = None, timeout: float = 120) -> str:
        """stdout of kubectl, run on the server's machine or any other. Raises CommandFailed."""
        node = on or self.server
        try:
            return node.machine.run(*self._kubectl(node, *arguments), stdin=stdin, timeout=timeout)
        except CommandFailed as error:
            tails = [f"--- {one.name}:\n{one.log_text()[-1500:]}" for one in self.nodes()]
            raise CommandFailed("\n".join([str(error), *tails])) from None

    def fails(self, *arguments: str, on: Node | None = None, stdin: str | None = None) -> str:
        """stderr of a kubectl that must fail."""
        node = on or self.server
        argv = node.machine.enter(*self._kubectl(node, *arguments))
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} was expected to fail but said: {done.stdout}"
        return done.stderr

    def _kubectl(self, node: Node, *arguments: str) -> list[str]:
        config = self.server.kubeconfig
        if node is not self.server:
            config = node.machine.base / "kubeconfig-of-server.yaml"
            config.write_text(self.server.kubeconfig.read_text().replace("https://127.0.0.1:6443", self.url))
            config.chmod(0o600)
        return [kubectl(), f"--kubeconfig={config}", f"--cache-dir={node.machine.base}/cache", *arguments]

    def apply(self, manifest: str, *arguments: str) -> str:
        return self.kubectl("apply", "-f", "-", *arguments, stdin=manifest)

    def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def ready(self, *nodes: Node, seconds: float = 60) -> None:
        """Wait until these nodes, or all, are Ready."""
        for node in nodes or self.nodes():
            self.ready_by_name(node.name, seconds=seconds)

    def ready_by_name(self, name: str, *, seconds: float = 60) -> None:
        wait_until(lambda: self.condition(name) == "True", seconds=seconds, what=f"{name} is Ready")

    def lost(self, name: str) -> None:
        """What the cluster says of a node it has not heard of for a while, said now."""
        node = self.get("node", name)
        for condition in node["status"]["conditions"]:
            if condition["type"] == "Ready":
                condition |= {"status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
        file = self.net.base / f"{name}.json"
        file.write_text(json.dumps(node))
        self.kubectl("replace", "--raw", f"/api/v1/nodes/{name}/status", "-f", str(file))

    def condition(self, name: str, kind: str = "Ready") -> str:
        """Status of a condition of a Node, "" if it has none."""
        for node in self.get("nodes")["items"]:
            if node["metadata"]["name"] == name:
                return next((one["status"] for one in node["status"].get("conditions", ()) if one["type"] == kind), "")
        return ""

    def close(self) -> None:
        for node in reversed(self.nodes()):
            if node.machine.pid:
                with contextlib.suppress(CommandFailed, subprocess.TimeoutExpired):
                    node.uninstall()
            node.kill()


@contextlib.contextmanager
def fleet(agents: int = 1, *, image: bool = True, start: bool = True, server_flags: Sequence[str] = ()) -> Iterator[Fleet]:
    """A server and agents named agent-1..., all Ready, with the busybox image; removed with everything at the end."""
    with fabric() as net:
        found = Fleet(net, server_flags=server_flags)
        try:
            if start:
                found.server.start()
                for number in range(1, agents + 1):
                    found.add(net.machine(f"agent-{number}", found.lan))
                if image:
                    found.import_image(images.archive(net.base / "busybox.tar"))
                found.ready()
            yield found
        finally:
            if os.environ.get("EDGEKUBE_KEEP"):
                print(f"logs: {net.base}/*/edgekube.log")
            found.close()


def wait_until(condition: Callable[[], Any], *, seconds: float = 30, what: str = "") -> Any:
    """The first true answer of `condition()`. Raises AssertionError at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.05)
