"""How edgekube runs on this machine, and the same again: a unit of systemd, or a process in the background with its arguments and log."""

import os
import select
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekube.lib.pidfile import running
from edgekube.lib.process import clean_environment

ROLES = ("server", "agent")
_UNITS = {"edgekube.service": "server", "edgekube-agent.service": "agent"}
_STOP_SECONDS = 40.0
_SYSTEMCTL_SECONDS = 120
# What belongs to the one process: the next one gets its own.
_OWN = ("_PYI_", "_MEIPASS", "_EDGEKUBE", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID")
_RESTARTS = 3


@dataclass(frozen=True, slots=True)
class Way:
    """`unit`: of systemd, "" for a process in the background. `args`: what follows the role."""

    role: str
    unit: str = ""
    args: Sequence[str] = ()
    environ: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    log: str = ""


def look(pid: int, *, default_log: Path) -> Way:
    """How process `pid` was started. Raises OSError if it is gone."""
    proc = Path(f"/proc/{pid}")
    words = (proc / "cmdline").read_bytes().decode(errors="surrogateescape").rstrip("\0").split("\0")
    role, args = plan_arguments(words)
    pairs = (entry.partition("=") for entry in (proc / "environ").read_bytes().decode(errors="surrogateescape").split("\0"))
    environ = {name: value for name, _, value in pairs if name and not name.startswith(_OWN)}
    return Way(role, _unit_of(pid), args, environ, os.readlink(proc / "cwd"), _log_of(proc) or str(default_log))


def plan_arguments(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """(role, arguments after it) of a command line: of the program, or of a Python that runs it."""
    for index, word in enumerate(words):
        if word in ROLES and index > 0:
            return word, tuple(words[index + 1 :])
    return "server", ()


def _log_of(proc: Path) -> str:
    try:
        target = os.readlink(proc / "fd" / "2")
    except OSError:
        return ""
    return target if target.startswith("/") and os.path.isfile(target) else ""


def _unit_of(pid: int) -> str:
    return next((unit for unit in _UNITS if is_systemd() and _property(unit, "MainPID") == str(pid)), "")


def installed_unit() -> str:
    """The unit that would run here, if there is one; "" without systemd."""
    return next((unit for unit in _UNITS if is_systemd() and _property(unit, "UnitFileState") == "enabled"), "")


def is_systemd() -> bool:
    return os.path.isdir("/run/systemd/system")


def _property(unit: str, name: str) -> str:
    return _systemctl("show", f"--property={name}", "--value", unit)[1].strip()


def _systemctl(*arguments: str) -> tuple[int, str]:
    try:
        argv = ["systemctl", *arguments]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=_SYSTEMCTL_SECONDS, env=clean_environment())
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout or done.stderr


def stop(way: Way, pid_file: Path, *programs: Path) -> None:
    """It does not run afterwards; its pods do. `programs`: their servers and agents end too, also those that never took the lock."""
    if way.unit:
        _systemctl("stop", way.unit)
        _systemctl("reset-failed", way.unit)
    for pid in [running(pid_file), *(pid for program in programs for pid in started_as(program))]:
        if pid:
            _end(pid)


def started_as(program: Path) -> Sequence[int]:
    """Processes that were started by this path, as server or agent: the program itself or a script."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0") if folder.name.isdigit() else []
        except OSError:
            continue
        if any(word == str(program) and words[at + 1 : at + 2] in (["server"], ["agent"]) for at, word in enumerate(words[:2])):
            found.append(int(folder.name))
    return found


def _end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not select.select([descriptor], [], [], _STOP_SECONDS)[0]:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], _STOP_SECONDS)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def spawn(argv: Sequence[str]) -> None:
    """Start a process that outlives this one and, under systemd, the service."""
    if is_systemd():
        subprocess.run(["systemd-run", "-q", "--collect", *argv], check=False, capture_output=True, env=clean_environment())
        return
    null = subprocess.DEVNULL
    script = '(setsid "$@" &)'
    subprocess.run(["sh", "-c", script, "sh", *argv], check=False, stdin=null, stdout=null, stderr=null, env=clean_environment(), cwd="/")


class Started:
    """A start that is under way. `ended`: why it will not succeed any more, "" as long as it may."""

    def __init__(self, way: Way, process: "subprocess.Popen[bytes] | None", offset: int) -> None:
        self._way, self._process, self._offset = way, process, offset

    def ended(self) -> str:
        if self._process is not None and (code := self._process.poll()) is not None:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return f"it ended with {how}{self._said()}"
        if self._way.unit and _number(_property(self._way.unit, "NRestarts")) >= _RESTARTS:
            return f"systemd had to start it again and again: see journalctl -u {self._way.unit}"
        return ""

    def end(self) -> None:
        """The process that was started here, whatever became of it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _said(self) -> str:
        try:
            with open(self._way.log, "rb") as file:
                file.seek(self._offset)
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return f": {lines[-1].removeprefix('edgekube: ')[:300]}" if lines else ""


def start(way: Way, program: Path) -> Started:
    """Start it the way it ran. Does not wait for anything."""
    if way.unit:
        _systemctl("start", "--no-block", way.unit)
        return Started(way, None, 0)
    Path(way.log).parent.mkdir(parents=True, exist_ok=True)
    with open(way.log, "ab") as log:
        process = subprocess.Popen(
            [str(program), way.role, *way.args],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=way.environ,
            cwd=way.folder if os.path.isdir(way.folder) else "/",
            start_new_session=True,
        )
        return Started(way, process, log.tell())


def watch(way: Way) -> Started:
    """One that somebody else has started."""
    return Started(way, None, 0)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
