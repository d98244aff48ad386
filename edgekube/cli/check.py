"""`edgekube check`: does this machine have what edgekube needs? With `--network`: how are the paths to the other nodes?
With `--self`: is this program whole?"""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from edgekube.app.checks.finding import Finding
from edgekube.app.checks.run import apply_remedies, examine_all
from edgekube.app.paths import paths_of
from edgekube.cli.main import Failure
from edgekube.config import Settings
from edgekube.lib.pidfile import running
from edgekube.lib.receipt import Receipt


def arguments(parser: ArgumentParser) -> None:
    text = "what this machine is or is to become (default: what it is, else a server)"
    parser.add_argument("--as", dest="role", choices=("server", "agent"), default="", help=text)
    parser.add_argument("--self", dest="own", action="store_true", default=False, help="look whether this program is whole")
    parser.add_argument("--network", action="store_true", default=False, help="tell how the paths to the other nodes are, one line each")
    parser.add_argument("--fix", action="store_true", default=False, help="put right what safely can be, and say what was done")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to print it")


def main(settings: Settings, arguments: Namespace) -> int:
    """One line a finding, with proof and fix below; exit code 1 if a server, or an agent, could not start."""
    if arguments.own:
        from edgekube.cli import selfcheck

        return selfcheck.report()
    if arguments.network:
        return _network(settings)
    agent = arguments.role == "agent" if arguments.role else _is_agent(settings)
    found = _look(settings, agent=agent)
    if arguments.fix:
        if os.geteuid() != 0:
            raise Failure("fixing needs root: run it with sudo")
        said = sys.stderr if arguments.output == "json" else sys.stdout
        if apply_remedies(found, Receipt(paths_of(settings).receipt), lambda what: print(what, file=said)):
            found = _look(settings, agent=agent)
    if arguments.output == "json":
        print(json.dumps([_fields(one) for one in found], indent=2))
    else:
        _print(found)
    return 1 if any(one.fatal and not one.ok for one in found) else 0


def _is_agent(settings: Settings) -> bool:
    """Who may not look into the data directory is told about a server: the rest of the findings are the same."""
    try:
        return paths_of(settings).agent.is_dir()
    except PermissionError:
        return False


def _look(settings: Settings, *, agent: bool) -> list[Finding]:
    ours = running(settings.run_dir / "edgekube.pid")
    found = examine_all(settings, agent=agent)
    if not ours:
        return found
    return [Finding(one.check, True, f"{one.check} is used by edgekube itself (process {ours})") if one.check.startswith("port ") else one
            for one in found]  # fmt: skip


def _level(found: Finding) -> str:
    return "ok" if found.ok else "fatal" if found.fatal else "warning"


def _print(found: Sequence[Finding]) -> None:
    marks = {"ok": "ok  ", "fatal": "FAIL", "warning": "warn"}
    for one in found:
        print(f"  {marks[_level(one)]}  {one.text}")
        if one.ok:
            continue
        if one.proof:
            print(f"        seen: {one.proof}")
        if one.fix:
            print(f"        fix: {one.fix}" + (" (or run edgekube check --fix)" if one.remedy is not None else ""))


def _fields(found: Finding) -> dict[str, object]:
    return {"check": found.check, "level": _level(found), "cause": found.text, "proof": found.proof, "fix": found.fix,
            "fixable": found.remedy is not None}  # fmt: skip


def _network(settings: Settings) -> int:
    """What the running node found at its last test: it tests at each change, and again and again what failed."""
    from edgekube.network.publish import load
    from edgekube.network.verdict import lines

    found = load(settings.run_dir)
    if found is None:
        print(f"edgekube: no node has run in {settings.run_dir} since the machine booted: start it first", file=sys.stderr)
        return 1
    if not running(settings.run_dir / "edgekube.pid"):
        print("  warn  edgekube is not running: this is what it found last")
    told = lines(found)
    for good, text in told:
        print(f"  {'ok  ' if good else 'FAIL'}  {text}")
    return 0 if all(good for good, _ in told) else 1
