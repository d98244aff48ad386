"""When the machine goes down its pods end with it.

Two ask for it: the process itself, when it is told to stop by a shutdown, and systemd's edgekube-shutdown.service, which stops after it:
for a process that had been stopped before, that was killed, or that could not finish.

Stopping edgekube leaves pods alone, so at a shutdown nobody would end them but systemd's last broadcast of SIGTERM, which waits a minute
and a half for every process that ignores it: a shell as a container's first process does. So they are ended here, while file systems and
the network are still there: SIGTERM to the first process of each container, time to act on it, then SIGKILL for all; critical pods after
the others, within the same time. Their Pods stay as they are in the API, and the next boot starts them again. Upstream's graceful node
shutdown marks them Failed instead, for other nodes to replace: a box in a shed has no others.
"""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekube.app.paths import paths_of
from edgekube.config import Settings
from edgekube.kubelet.critical import noted
from edgekube.kubelet.runtime.cgroups import Hierarchy, PodGroups
from edgekube.lib.process import clean_environment
from edgekube.lib.systemd import notify

log = logging.getLogger(__name__)

_STEP = 0.05
_SHUTDOWN_MARGIN = 15  # seconds to ask systemd for beyond what pods may take


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


def end_pods_with_machine(settings: Settings) -> None:
    """Only when the machine goes down: stopping edgekube alone leaves its pods as they are."""
    if not machine_stops():
        return
    grace = settings.shutdown_grace_seconds
    notify(f"EXTEND_TIMEOUT_USEC={(grace + _SHUTDOWN_MARGIN) * 1_000_000}")
    paths, hierarchy = paths_of(settings), Hierarchy()
    end_pods(
        hierarchy,
        PodGroups(hierarchy, paths.cgroup_root(settings.instance)),
        grace=grace,
        critical=noted(settings.run_dir),
        critical_grace=settings.shutdown_grace_critical_seconds,
    )


@dataclass(frozen=True, slots=True)
class Turn:
    """Pods that end together, and the seconds they have."""

    pods: frozenset[str]
    seconds: float


def plan_turns(pods: Collection[str], critical: Collection[str], grace: float, critical_grace: float) -> Sequence[Turn]:
    """Critical pods last, all within `grace`: the others may need them (storage, network) until their own end."""
    last = frozenset(pods) & frozenset(critical)
    first = frozenset(pods) - last
    if not first or not last:
        return [Turn(first or last, grace)] if pods else []
    kept = min(critical_grace, grace)
    return [Turn(first, grace - kept), Turn(last, kept)]


def end_pods(
    hierarchy: Hierarchy, groups: PodGroups, *, grace: float, critical: Collection[str] = (), critical_grace: float = 0.0
) -> None:
    """End every process of every pod, then what holds and watches them. Blocks: `grace` seconds at most where a pod does not listen."""
    ended, killed = 0, 0
    for turn in plan_turns(groups.pods(), critical, grace, critical_grace):
        running = groups.workload(turn.pods)
        ended += len(running)
        killed += _end(groups, turn, running)
    hierarchy.kill(f"/{groups.root}")
    hierarchy.kill_service()
    log.info("pods ended for the shutdown", extra={"processes": ended, "killed": killed})


def _end(groups: PodGroups, turn: Turn, running: Collection[int]) -> int:
    """Ask, wait, kill; how many had to be killed."""
    _signal(first_processes(running), signal.SIGTERM)
    deadline = time.monotonic() + turn.seconds
    while (left := groups.workload(turn.pods)) and time.monotonic() < deadline:
        time.sleep(_STEP)
    _signal(left, signal.SIGKILL)
    return len(left)


def _signal(pids: Collection[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def first_processes(running: Collection[int]) -> list[int]:
    """Those whose parent is none of `running`: what a container was started with, not what it started itself."""
    return [pid for pid in running if _parent(pid) not in running]


def _parent(pid: int) -> int:
    """0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
