"""`edgekube host diff`: what edgekube has changed on this host, outside of its own folders, and whether it still is so.

`edgekube host note` is for installers: it writes a change into the receipt before the installer makes it.
"""

import json
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from edgekube.app.hostchanges import Line, diff
from edgekube.app.hostkinds import FILE, FOLDER, MODULE, PACKAGE, SHARED, TREE, UNIT, State, digest
from edgekube.app.paths import paths_of
from edgekube.cli.main import Failure
from edgekube.config import Settings
from edgekube.kubelet.runtime.cgroups import Hierarchy
from edgekube.lib.receipt import Receipt

_PERHAPS = (FOLDER, SHARED, MODULE)  # noted because it might be made: what is not there perhaps never was
_KINDS = (FILE, FOLDER, TREE, UNIT, PACKAGE)


def arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    shown = commands.add_parser("diff", help="what edgekube has changed on this host, and whether it still is so")
    shown.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to print it")
    noted = commands.add_parser("note", help="for installers: note a change before it is made, KIND NAME")
    noted.add_argument("kind", choices=_KINDS)
    noted.add_argument("names", nargs="+", metavar="NAME")
    noted.add_argument(
        "--made", action="store_true", default=False, help="files are as they are to be: others' changes are told from now on"
    )


def main(settings: Settings, arguments: Namespace) -> int:
    """Exit code 0, whatever there is."""
    receipt = Receipt(paths_of(settings).receipt)
    if arguments.action == "note":
        return _note(receipt, arguments)
    if os.geteuid() != 0:
        raise Failure(f"{receipt.path} is for root only: try sudo")
    found = diff(receipt, hierarchy=Hierarchy())
    if arguments.output == "json":
        fields = [{"kind": line.change.kind, "name": line.change.name, "before": line.change.before, "after": line.change.after,
                   "state": line.state, "now": line.now} for line in found]  # fmt: skip
        print(json.dumps(fields, indent=2))
        return 0
    shown = [line for line in found if line.state is not State.UNDONE or line.change.kind not in _PERHAPS]
    for line in shown:
        print(f"{line.state:8}  {told(line)}")
    if not shown:
        print("edgekube has changed nothing on this host")
    return 0


def told(line: Line) -> str:
    """The words for one change."""
    change = line.change
    if change.kind == "class":
        return f"{change.name} {change.after}" + (f": {line.now}" if line.now else "")
    text = f"{change.kind} {change.name}"
    if change.kind in ("sysctl", "controllers"):
        text += f": {change.before or 'none'} -> {change.after}"
    elif change.kind == FILE and change.before is not None:
        text += ": was there, kept"
    if line.state is State.FOREIGN:
        text += " (in use by others, or changed by them since: uninstall leaves it)"
    return text


def _note(receipt: Receipt, arguments: Namespace) -> int:
    if os.geteuid() != 0:
        raise Failure("noting changes of the host needs root: try sudo")
    for name in arguments.names:
        path = Path(name)
        if arguments.kind == FILE:
            receipt.note_file(path, after=digest(path) if arguments.made and path.is_file() else None)
        else:
            if arguments.kind in (TREE, UNIT):
                receipt.note_folders(path.parent)
            if arguments.kind in (PACKAGE, UNIT) or arguments.made or not os.path.lexists(name):
                receipt.note(arguments.kind, name)
    return 0
