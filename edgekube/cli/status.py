"""`edgekube status`: ask the server on this machine whether it is ready, and say what is not. With --node, ask for this node too."""

import http.client
import json
import ssl
import time
from argparse import ArgumentParser, Namespace

from edgekube.cli.main import Failure
from edgekube.config import Settings
from edgekube.lib.pidfile import running
from edgekube.lib.tlsclock import ignore_time


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait this long for it to become ready")
    parser.add_argument("--node", action="store_true", default=False, help="this node must be ready too, not only the API")
    parser.add_argument("--quiet", action="store_true", default=False, help="print nothing; the exit code tells")


def main(settings: Settings, arguments: Namespace) -> int:
    """Exit code 0 if ready."""
    deadline = time.monotonic() + arguments.wait
    while True:
        ready, text = _ready(settings, node=arguments.node and not settings.disable_agent)
        if ready or time.monotonic() >= deadline:
            break
        time.sleep(0.05)
    if not arguments.quiet:
        pid = running(settings.run_dir / "edgekube.pid")
        print(f"process: {pid or 'none'}")
        print(f"ready: {'yes' if ready else 'no'}")
        print(text.rstrip())
    return 0 if ready else 1


def _ready(settings: Settings, *, node: bool) -> tuple[bool, str]:
    status, text = _ask(settings, "/readyz?verbose")
    if status != 200 or not node:
        return status == 200, text
    ready, line = node_state(settings.node_name, *_ask(settings, f"/api/v1/nodes/{settings.node_name}"))
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


def _ask(settings: Settings, path: str) -> tuple[int, str]:
    """(status, body); status 0 and why, if there is no answer."""
    pki = settings.data_dir / "pki"
    try:
        context = ignore_time(ssl.create_default_context(cafile=str(pki / "ca.crt")))  # the same machine: its clock may be wrong
        context.load_cert_chain(pki / "admin.pem")
    except FileNotFoundError:
        return 0, f"{pki} does not exist yet: the server has not run here"
    except PermissionError:
        raise Failure(f"{pki} is for root only: try sudo") from None
    except ssl.SSLError as error:
        return 0, f"the credentials in {pki} can not be used: {error.reason}"
    connection = http.client.HTTPSConnection("127.0.0.1", settings.https_port, timeout=5, context=context)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, f"https://127.0.0.1:{settings.https_port} does not answer: {error}"
    finally:
        connection.close()
