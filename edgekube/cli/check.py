"""`edgekube check`: does this machine have what edgekube needs? With `--network`: how are the paths to the other nodes?
With `--self`: is this program whole?"""

import sys
from argparse import ArgumentParser, Namespace

from edgekube.app.firewall import examine_firewall
from edgekube.app.paths import paths_of
from edgekube.app.preflight import examine
from edgekube.config import Settings
from edgekube.lib.pidfile import running


def arguments(parser: ArgumentParser) -> None:
    text = "what this machine is or is to become (default: what it is, else a server)"
    parser.add_argument("--as", dest="role", choices=("server", "agent"), default="", help=text)
    parser.add_argument("--self", dest="own", action="store_true", default=False, help="look whether this program is whole")
    parser.add_argument("--network", action="store_true", default=False, help="tell how the paths to the other nodes are, one line each")


def main(settings: Settings, arguments: Namespace) -> int:
    """One line a finding; exit code 1 if a server, or an agent, could not start."""
    if arguments.own:
        from edgekube.cli import selfcheck

        return selfcheck.report()
    if arguments.network:
        return _network(settings)
    agent = arguments.role == "agent" if arguments.role else paths_of(settings).agent.is_dir()
    ours = running(settings.run_dir / "edgekube.pid")
    bad = 0
    for found in (*examine(settings, agent=agent), *examine_firewall(settings, agent=agent)):
        if ours and found.check.startswith("port "):
            print(f"  ok    {found.check} is used by edgekube itself (process {ours})")
            continue
        mark = "ok  " if found.ok else "FAIL" if found.fatal else "warn"
        print(f"  {mark}  {found.text}" + (f"\n        fix: {found.fix}" if found.fix and not found.ok else ""))
        bad += found.fatal and not found.ok
    return 1 if bad else 0


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
