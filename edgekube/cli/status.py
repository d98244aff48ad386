"""`edgekube status`: ask the server on this machine whether it is ready, and say what is not."""

import http.client
import ssl
import time
from argparse import ArgumentParser, Namespace

from edgekube.cli.main import Failure
from edgekube.config import Settings
from edgekube.lib.pidfile import running


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait this long for it to become ready")
    parser.add_argument("--quiet", action="store_true", default=False, help="print nothing; the exit code tells")
    parser.add_argument("--https-port", type=int, metavar="PORT", help="port of the API")


def main(settings: Settings, arguments: Namespace) -> int:
    """Exit code 0 if ready."""
    deadline = time.monotonic() + arguments.wait
    while True:
        ready, text = _ask(settings)
        if ready or time.monotonic() >= deadline:
            break
        time.sleep(0.05)
    if not arguments.quiet:
        pid = running(settings.run_dir / "edgekube.pid")
        print(f"process: {pid or 'none'}")
        print(f"ready: {'yes' if ready else 'no'}")
        print(text.rstrip())
    return 0 if ready else 1


def _ask(settings: Settings) -> tuple[bool, str]:
    pki = settings.data_dir / "pki"
    try:
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.pem")
    except FileNotFoundError:
        return False, f"{pki} does not exist yet: the server has not run here"
    except PermissionError:
        raise Failure(f"{pki} is for root only: try sudo") from None
    except ssl.SSLError as error:
        return False, f"the credentials in {pki} can not be used: {error.reason}"
    connection = http.client.HTTPSConnection("127.0.0.1", settings.https_port, timeout=5, context=context)
    try:
        connection.request("GET", "/readyz?verbose")
        answer = connection.getresponse()
        return answer.status == 200, answer.read().decode(errors="replace")
    except OSError as error:
        return False, f"https://127.0.0.1:{settings.https_port} does not answer: {error}"
    finally:
        connection.close()
