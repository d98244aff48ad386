"""When the machine goes down its pods end with it.

Stopping edgekube leaves pods alone, so at a shutdown nobody would end them but systemd's last broadcast of SIGTERM, which waits a minute
and a half for every process that ignores it: a shell as a container's first process does. So they are ended here, while file systems and
the network are still there: SIGTERM to the first process of each container, time to act on it, then SIGKILL for all. Their Pods stay as
they are in the API, and the next boot starts them again.
"""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Collection
from pathlib import Path

from edgekube.kubelet.runtime.cgroups import Hierarchy, PodGroups
from edgekube.lib.process import clean_environment

log = logging.getLogger(__name__)

_STEP = 0.05


def machine_stops() -> bool:
    """Whether systemd is shutting the machine down or rebooting it."""
    if not os.path.isdir("/run/systemd/system"):
        return False
    try:
        asked = ["systemctl", "is-system-running"]
        told = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=10, env=clean_environment())
    except (OSError, subprocess.TimeoutExpired):
        return False
    return told.stdout.strip() == "stopping"


def end_pods(hierarchy: Hierarchy, groups: PodGroups, *, grace: float) -> None:
    """End every process of every pod, then what holds and watches them. Blocks: `grace` seconds at most where a pod does not listen."""
    running = groups.workload()
    for pid in first_processes(running):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while (left := groups.workload()) and time.monotonic() < deadline:
        time.sleep(_STEP)
    hierarchy.kill(f"/{groups.root}")
    hierarchy.kill_service()
    log.info("pods ended for the shutdown", extra={"processes": len(running), "killed": len(left)})


def first_processes(running: Collection[int]) -> list[int]:
    """Those whose parent is none of `running`: what a container was started with, not what it started itself."""
    return [pid for pid in running if _parent(pid) not in running]


def _parent(pid: int) -> int:
    """0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
