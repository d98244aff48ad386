"""`edgekube stop`: end the server or agent of this machine; containers, links and rules stay as they are."""

import os
import select
import signal
import subprocess
from argparse import ArgumentParser, Namespace
from pathlib import Path

from edgekube.cli.main import Failure
from edgekube.config import Settings
from edgekube.lib import log as logs
from edgekube.lib.pidfile import running

UNITS = ("edgekube.service", "edgekube-agent.service")
_DEADLINE_SECONDS = 40


def arguments(parser: ArgumentParser) -> None:
    text = "for the shutdown unit: end the pods instead, if the machine is going down; edgekube itself has ended by then"
    parser.add_argument("--end-pods", action="store_true", default=False, help=text)


def main(settings: Settings, arguments: Namespace) -> int:
    """Stop it and wait until it is gone."""
    if getattr(arguments, "end_pods", False):
        from edgekube.app.shutdown import end_pods_with_machine

        logs.set_up(settings.log_level)
        end_pods_with_machine(settings)
        return 0
    pid = running(settings.run_dir / "edgekube.pid")
    if not pid:
        _must_see(settings.run_dir / "edgekube.pid")
        print("edgekube is not running")
        return 0
    for unit in UNITS:
        if _is_the_service(unit, pid):
            subprocess.run(["systemctl", "stop", unit], check=False)
    stop_process(pid)
    print(f"edgekube (process {pid}) has stopped; its pods keep running")
    return 0


def _must_see(path: Path) -> None:
    """Raises Failure for who can not know whether it runs."""
    try:
        path.open("rb").close()
    except PermissionError:
        raise Failure(f"{path.parent} is for root only: try sudo") from None
    except OSError:
        return


def stop_process(pid: int) -> None:
    """SIGTERM, wait, SIGKILL at the deadline. Raises Failure if that is not allowed."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not select.select([descriptor], [], [], _DEADLINE_SECONDS)[0]:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], _DEADLINE_SECONDS)
    except ProcessLookupError:
        return
    except PermissionError:
        raise Failure(f"process {pid} belongs to root: try sudo") from None
    finally:
        os.close(descriptor)


def _is_the_service(unit: str, pid: int) -> bool:
    """A service must be stopped by systemd, which would start it again. Other processes of ours are none of its business."""
    if not os.path.isdir("/run/systemd/system"):
        return False
    asked = ["systemctl", "show", "--property=MainPID", "--value", unit]
    return subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip() == str(pid)
