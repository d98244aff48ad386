"""`edgekube check`: does this machine have what edgekube needs?"""

from argparse import ArgumentParser, Namespace

from edgekube.app.firewall import examine_firewall
from edgekube.app.paths import paths_of
from edgekube.app.preflight import examine
from edgekube.config import Settings
from edgekube.lib.pidfile import running


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--agent", action="store_true", default=False, help="look at what an agent needs, not a server")


def main(settings: Settings, arguments: Namespace) -> int:
    """One line a finding; exit code 1 if a server, or an agent, could not start."""
    agent = arguments.agent or paths_of(settings).agent.is_dir()
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
