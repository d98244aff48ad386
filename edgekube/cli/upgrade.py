"""`edgekube upgrade FILE`: another version, on trial. See edgekube.app.upgrade for what happens and who judges."""

import hashlib
import json
import os
import signal
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from edgekube.app.backup import folder
from edgekube.app.paths import Paths, paths_of
from edgekube.app.timekeeper import make_clock
from edgekube.app.upgrade import candidate, running, state, trial
from edgekube.app.upgrade.candidate import Refused
from edgekube.app.upgrade.gate import Look
from edgekube.app.upgrade.running import Way
from edgekube.app.upgrade.state import TRIAL, Trial
from edgekube.app.upgrade.switch import Switch
from edgekube.cli.agentstatus import AWAY, agent_state
from edgekube.cli.localapi import ask
from edgekube.cli.main import Failure, settings_of
from edgekube.cli.snapshot import save_snapshot
from edgekube.cli.status import node_state, readiness
from edgekube.config import ConfigError, Settings
from edgekube.lib import pidfile
from edgekube.lib.clock import rfc3339
from edgekube.lib.receipt import Change, Receipt

_PROGRAM = "/usr/local/bin/edgekube"
_KEEP = 3  # snapshots before upgrades


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="", metavar="FILE", help="the new program; a memory stick will do")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds within which it must be ready (default 60)")
    parser.add_argument("--allow-downgrade", action="store_true", default=False, help="FILE may be an older version")
    parser.add_argument("--resume", action="store_true", default=False, help=SUPPRESS)
    parser.add_argument("--program", default=_PROGRAM, help=SUPPRESS)


def main(settings: Settings, arguments: Namespace) -> int:
    """Exit code 0 if the version of FILE is in use afterwards."""
    if os.geteuid() != 0:
        raise Failure("upgrading needs root: run it with sudo")
    paths, switch = paths_of(settings), Switch(Path(arguments.program))
    before = state.load(paths.data)
    if before is not None:  # it was begun with other flags than these, perhaps
        paths = paths_of(_settings_of(before))
    try:
        with trial.judging(paths, wait=arguments.resume):
            if arguments.resume or switch.on_trial:
                return trial.resume(paths, switch, _looks, make_clock(paths.data).now, print)
            if not arguments.file:
                raise Failure("which file? edgekube upgrade FILE")
            return _upgrade(settings, switch, arguments)
    except (Refused, trial.Busy) as error:
        raise Failure(str(error)) from None
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise Failure(f"the upgrade did not happen: {(error.strerror or str(error)).lower()}{where}") from None


def _upgrade(settings: Settings, switch: Switch, arguments: Namespace) -> int:
    file = Path(arguments.file).absolute()
    if not os.path.lexists(switch.path):
        raise Failure(f"{switch.path} does not exist: edgekube is not installed here (packaging/install.sh)")
    way, settings, runs = _way(settings)
    paths = paths_of(settings)
    digest = candidate.check_file(file)
    if digest == candidate.installed_digest(switch.path):
        print(f"{file} is what is installed: nothing to do")
        return 0
    try:
        old, new = _examine(file, digest, switch, paths.data, allow_downgrade=arguments.allow_downgrade)
        if way.role == "server" and paths.database.exists():
            _snapshot(settings, paths, old)
    except BaseException:
        switch.tidy()
        raise
    planned = Trial(
        TRIAL,
        str(switch.path),
        old=old,
        new=new,
        began=rfc3339(make_clock(paths.data).now()),
        role=way.role,
        unit=way.unit,
        log=way.log,
        folder=way.folder,
        args=way.args,
        environ=way.environ,
        was_ready=runs and _was_ready(settings),
        was_running=runs,
        timeout=arguments.timeout,
    )
    return _try(paths, switch, planned)


def _examine(file: Path, digest: str, switch: Switch, data: Path, *, allow_downgrade: bool) -> tuple[str, str]:
    """(installed version, version of the file), which has been brought into place beside. Raises Refused."""
    switch.bring(file)
    with switch.next.open("rb") as copied:
        if hashlib.file_digest(copied, "sha256").hexdigest() != digest:
            raise Refused(f"{file} can not be read reliably: its copy is another file")
    new, old = candidate.ask(switch.next, data=data, name=str(file)), candidate.ask(switch.path, data=data)
    if candidate.order(new) < candidate.order(old) and not allow_downgrade:
        raise Refused(f"{file} is edgekube {new}, older than {old}, which is installed: --allow-downgrade does it all the same")
    return old, new


def _try(paths: Paths, switch: Switch, planned: Trial) -> int:
    print(f"upgrading from {planned.old} to {planned.new}", flush=True)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # half way there is no way out; were this process killed, another would go on
    Receipt(paths.receipt).note_all([Change("tree", str(switch.previous)), Change("tree", str(switch.next))])
    trial.begin(paths, switch, planned)
    if not planned.was_running:
        print(f"edgekube does not run: {planned.new} is on trial from its next start on")
        return 0
    started = running.start(trial.way_of(planned), switch.path)
    why = trial.judge(paths, switch, planned, _looks, make_clock(paths.data).now, started)
    if not why:
        print(f"{planned.new} is ready; {planned.old} is kept as {switch.previous}")
        return 0
    back = trial.came_back(_looks, planned)
    print(f"edgekube: {planned.new} was taken back: {why}")
    print(f"{planned.old} is ready again" if not back else f"{planned.old} is started again, but not ready yet: {back}")
    return 1


def _way(settings: Settings) -> tuple[Way, Settings, bool]:
    """How it runs, with which settings, and whether it does. Raises Failure."""
    paths = paths_of(settings)
    log = Path("/var/log/edgekube.log") if paths.is_default else paths.data / "edgekube.log"
    pid = pidfile.running(paths.pid)
    if pid:
        way = running.look(pid, default_log=log)
        return way, settings_of(way.role, way.args, way.environ), True
    role = "agent" if paths.agent.is_dir() else "server"
    args = (f"--data-dir={settings.data_dir}", f"--run-dir={settings.run_dir}")
    return Way(role, running.installed_unit() if paths.is_default else "", args, dict(os.environ), "/", str(log)), settings, False


def _snapshot(settings: Settings, paths: Paths, old: str) -> None:
    """Beside the copy that a roll-back takes: this one stays."""
    home = folder.folder_of(paths.data)
    made = save_snapshot(settings, paths, name=folder.free_name(home, f"upgrade-{old}-", make_clock(paths.data).now()))
    folder.prune(home, _KEEP, only="upgrade-")
    print(f"saved {made}")


def _settings_of(planned: Trial) -> Settings:
    return settings_of(planned.role, planned.args, planned.environ)


def _was_ready(settings: Settings) -> bool:
    """A node that was not ready before need not be afterwards."""
    return readiness(settings, node=not settings.disable_agent)[0]


def _looks(planned: Trial) -> Callable[[], Look]:
    """What the gate looks at."""
    try:
        settings = _settings_of(planned)
    except (Failure, ConfigError) as error:
        why = str(error)
        return lambda: Look(0, False, why)

    def look() -> Look:
        process = pidfile.running(settings.run_dir / "edgekube.pid")
        if not process:
            return Look(0, False, "it does not run")
        why = _missing(planned, settings)
        return Look(process, not why, why)

    return look


def _missing(planned: Trial, settings: Settings) -> str:
    """What it does not show yet; "" if it shows all."""
    if planned.role == "agent":
        good, text = agent_state(settings, lambda *told: _node(planned, *told)) if planned.was_ready else (True, "")
        # A server that does not answer us either (after a power cut of both) says nothing about the agent.
        return "" if good or AWAY in text else _last(text)
    status, text = ask(settings, "/readyz?verbose")
    if status != 200:
        return _last(text) if status == 0 else next((line for line in text.splitlines() if line.startswith("[-]")), _last(text))
    status, text = ask(settings, "/version")
    answered = str(json.loads(text).get("gitVersion")) if status == 200 else ""
    if not answered.endswith(f"+edgekube{planned.new}"):
        return f"it answers as {answered or 'no version'}, not as {planned.new}"
    if not planned.was_ready or settings.disable_agent:
        return ""
    good, line = _node(planned, settings.node_name, *ask(settings, f"/api/v1/nodes/{settings.node_name}"))
    return "" if good else line


def _node(planned: Trial, name: str, status: int, text: str) -> tuple[bool, str]:
    """Ready, and as the new version says it: an old status proves nothing."""
    good, line = node_state(name, status, text)
    if good and not text_version(text).endswith(f"+edgekube{planned.new}"):
        return False, f"node {name} has not reported since"
    return good, line


def text_version(text: str) -> str:
    """kubeletVersion of a Node."""
    return str(json.loads(text).get("status", {}).get("nodeInfo", {}).get("kubeletVersion", ""))


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no answer"
