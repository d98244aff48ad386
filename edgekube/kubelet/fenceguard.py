"""A tiny process that keeps the promise of fence.py when edgekube itself is dead: it kills the fenced pods at their time.

Reads and writes <run-dir>/fence: the boot time by which they must have ended, the boot it is counted in, and their control groups. The
guard is a shell of a megabyte that looks every few seconds, only while there are fenced pods; it ends with the file. edgekube moves the
time on with each answered renewal, so a living edgekube never meets it.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from edgekube.kubelet.runtime.mounts import start_time
from edgekube.lib.process import clean_environment

NEVER = float("-inf")
_SCRIPT = """
while read -r dead boot groups < "$0"; do
  read -r up rest < /proc/uptime
  left=$(( dead - ${up%%.*} ))
  if [ "$left" -le 0 ]; then
    for group in $groups; do
      find "$group" -name cgroup.procs ! -path '*conmon*' ! -path '*/pause/*' -exec cat {} + 2>/dev/null |
        while read -r pid; do kill -9 "$pid" 2>/dev/null; done
    done
    left=2
  fi
  [ "$left" -gt 5 ] && left=5
  sleep "$left"
done
"""


class FenceGuard:
    """`groups` gives the folders of a pod's control group (one per tree); `place` moves a process out of our own group."""

    def __init__(self, *, run_dir: Path, groups: Callable[[str], Sequence[Path]], place: Callable[[int], None]) -> None:
        self._file, self._record = run_dir / "fence", run_dir / "fence.pid"
        self._groups, self._place = groups, place
        self._pid, self._started = 0, ""
        self._said = ""
        self.trouble = "it was not started"

    @property
    def alive(self) -> bool:
        return bool(self._pid) and start_time(self._pid) == self._started

    def load(self) -> float:
        """Boot time by which fenced pods had to be dead, as an earlier process of this boot has left it; NEVER if nothing is known."""
        with contextlib.suppress(OSError, ValueError):
            dead, boot, *_ = self._file.read_text().split()
            if boot == _boot_id():
                return float(dead)
        return NEVER

    def keep(self, dead_by: float, uids: Sequence[str]) -> None:
        """From now on those pods must be dead by then. Without pods there is no guard."""
        if not uids or dead_by == NEVER:
            self._said = ""
            self._file.unlink(missing_ok=True)
            return
        folders = [str(path) for uid in uids for path in self._groups(uid)]
        text = " ".join([str(int(dead_by)), _boot_id(), *folders]) + "\n"
        try:
            if text != self._said:
                aside = self._file.with_suffix(".new")
                aside.write_text(text)
                aside.replace(self._file)
                self._said = text
            if not self.alive:
                self._spawn()
        except OSError as error:
            self.trouble = str(error)
            self._pid = 0

    def _spawn(self) -> None:
        """One guard; that of an earlier process is replaced: its script may be another."""
        with contextlib.suppress(OSError, ValueError):
            pid, started = self._record.read_text().split()
            if start_time(int(pid)) == started:
                os.kill(int(pid), signal.SIGKILL)
        child = subprocess.Popen(
            ["sh", "-c", _SCRIPT, str(self._file)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd="/", env=clean_environment(), start_new_session=True,
        )  # fmt: skip
        child.returncode = 0  # nobody waits for it
        self._place(child.pid)
        self._pid, self._started = child.pid, start_time(child.pid)
        self._record.write_text(f"{self._pid} {self._started}")


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
