"""`edgekube status`: ask the server on this machine whether it is ready, and say what is not. With --node, ask for this node too. On an
agent: whether a server answers it and its node is ready."""

import json
import time
from argparse import ArgumentParser, Namespace

from edgekube.cli.agentstatus import agent_state
from edgekube.cli.localapi import ask, is_agent
from edgekube.config import Settings
from edgekube.lib.pidfile import running


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait this long for it to become ready")
    parser.add_argument("--node", action="store_true", default=False, help="this node must be ready too, not only the API")
    parser.add_argument("--quiet", action="store_true", default=False, help="print nothing; the exit code tells")


def main(settings: Settings, arguments: Namespace) -> int:
    """Exit code 0 if ready."""
    deadline = time.monotonic() + arguments.wait
    while True:
        ready, text = readiness(settings, node=arguments.node and not settings.disable_agent)
        if ready or time.monotonic() >= deadline:
            break
        time.sleep(0.05 if not is_agent(settings) else 0.25)  # each look of an agent is a connection to the server
    if not arguments.quiet:
        pid = running(settings.run_dir / "edgekube.pid")
        print(f"process: {pid or 'none'}")
        print(f"ready: {'yes' if ready else 'no'}")
        print(text.rstrip())
    return 0 if ready else 1


def readiness(settings: Settings, *, node: bool) -> tuple[bool, str]:
    """(is it ready, what there is to say). `node`: this node must be, too."""
    if is_agent(settings):
        ready, text = agent_state(settings, node_state)
        if not running(settings.run_dir / "edgekube.pid"):
            return False, f"edgekube does not run here: start it with edgekube agent\nin the cluster: {text}"
        return ready, text
    status, text = ask(settings, "/readyz?verbose")
    if status != 200 or not node:
        return status == 200, text
    ready, line = node_state(settings.node_name, *ask(settings, f"/api/v1/nodes/{settings.node_name}"))
    return ready, f"{text.rstrip()}\n{line}"


def node_state(name: str, status: int, text: str) -> tuple[bool, str]:
    """(is it ready, one line that says so or why not) from the answer to a GET of the Node."""
    if status == 404:
        return False, f"node {name} has not registered yet"
    if status != 200:
        return False, f"node {name} can not be read: {text.strip()}"
    conditions = json.loads(text).get("status", {}).get("conditions", ())
    found = next((condition for condition in conditions if condition["type"] == "Ready"), None)
    if found is None:
        return False, f"node {name} has not reported yet"
    if found["status"] == "True":
        return True, f"node {name} is ready"
    return False, f"node {name} is not ready: {found.get('message', '')}"
