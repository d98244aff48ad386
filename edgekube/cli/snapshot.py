"""`edgekube snapshot`: the whole state of a server in one file: make one, list them, restore one, delete old ones."""

import contextlib
import shutil
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from edgekube.api.kinds.printing import human_duration
from edgekube.app.backup import exchange, folder
from edgekube.app.backup.restore import Refused, restore
from edgekube.app.backup.save import image_of, write
from edgekube.app.backup.schedule import PATH, read_passphrase
from edgekube.app.paths import Paths, paths_of
from edgekube.app.timekeeper import make_clock
from edgekube.cli.localapi import call
from edgekube.cli.main import Failure, add_settings
from edgekube.cli.tables import show
from edgekube.config import Settings
from edgekube.lib import archive
from edgekube.lib.archive import Seal
from edgekube.lib.clock import rfc3339
from edgekube.lib.pidfile import AlreadyRunning, PidFile, running
from edgekube.store.protocol import StoreDamaged

_SETTINGS = ("data-dir", "run-dir", "https-port", "node-name")
_SAVE_SECONDS = 600.0


def arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    save = actions.add_parser("save", help="make a snapshot, of a server that runs or of one that is stopped", argument_default=SUPPRESS)
    add_settings(save, only=_SETTINGS)
    where = "its name, or a path with a slash in it to put it elsewhere (default: a name with the time in it)"
    save.add_argument("target", nargs="?", metavar="NAME", default="", help=where)
    add_settings(actions.add_parser("list", help="list the snapshots of this machine", argument_default=SUPPRESS), only=_SETTINGS)
    back = actions.add_parser("restore", help="make a snapshot the state of this machine", argument_default=SUPPRESS)
    add_settings(back, only=_SETTINGS)
    back.add_argument("target", metavar="FILE", help="a file, or the name of a snapshot of this machine")
    for parser_ in (save, back):
        parser_.add_argument("--passphrase-file", default="", metavar="FILE", help="encrypted; the passphrase is this file's first line")
    prune = actions.add_parser("prune", help="delete the oldest", argument_default=SUPPRESS)
    add_settings(prune, only=_SETTINGS)
    prune.add_argument("--keep", type=int, required=True, metavar="N", help="how many stay")


def main(settings: Settings, arguments: Namespace) -> int:
    """Do what `action` says."""
    paths = paths_of(settings)
    try:
        match arguments.action:
            case "save":
                return _save(settings, paths, arguments)
            case "restore":
                return _restore(settings, paths, arguments)
            case "prune":
                return _prune(paths, arguments.keep)
        return _list(paths)
    except PermissionError:
        raise Failure(f"{paths.data} is for root only: try sudo") from None
    except OSError as error:
        raise Failure(f"{error.filename}: {(error.strerror or str(error)).lower()}" if error.filename else str(error)) from None


def _passphrase(arguments: Namespace) -> bytes | None:
    return read_passphrase(Path(arguments.passphrase_file)) if arguments.passphrase_file else None


def _save(settings: Settings, paths: Paths, arguments: Namespace) -> int:
    elsewhere = Path(arguments.target) if "/" in arguments.target else None
    name = "" if elsewhere else str(arguments.target)
    if elsewhere is not None and elsewhere.exists():
        raise Failure(f"{elsewhere} exists already")
    if name and folder.bad_name(name):
        raise Failure(f"{name!r} is no name for a snapshot: letters, digits, '.', '_' and '-' only")
    passphrase = _passphrase(arguments)
    made = save_snapshot(settings, paths, name=name, seal=archive.make_seal(passphrase) if passphrase else None)
    if elsewhere is not None:
        made = _move(made, elsewhere)
    print(f"saved {made} ({_size(made.stat().st_size)})")
    return 0


def save_snapshot(settings: Settings, paths: Paths, *, name: str, seal: Seal | None = None) -> Path:
    """Through the server if it runs, else of its database. Raises Failure, OSError."""
    if running(paths.pid):
        body = {"name": name, "seal": {"key": seal.key.hex(), "how": dict(seal.how)} if seal else None}
        return Path(call(settings, PATH, method="POST", body=body, timeout=_SAVE_SECONDS)["path"])
    if not paths.database.exists():
        raise Failure(f"{paths.database} does not exist: no server has run here")
    with _alone(paths):
        if exchange.finish(paths.data):
            print("an interrupted restore was completed first")
        now = make_clock(paths.data).now()
        try:
            image = image_of(paths.database)
            name = name or folder.free_name(folder.folder_of(paths.data), "", now)
            return write(paths, settings, image, name=name, now=now, seal=seal).path
        except FileExistsError as error:
            raise Failure(f"{error.filename} exists already") from None
        except StoreDamaged as error:
            raise Failure(str(error)) from None


@contextlib.contextmanager
def _alone(paths: Paths) -> Iterator[None]:
    """No server starts meanwhile. Raises Failure if one runs."""
    made = not paths.run.exists()
    paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lock = PidFile(paths.pid)
    except AlreadyRunning as error:
        raise Failure(f"edgekube is {error}: stop it first (edgekube stop, or systemctl stop edgekube)") from None
    try:
        yield
    finally:
        if made:
            shutil.rmtree(paths.run, ignore_errors=True)
        lock.close()


def _move(made: Path, target: Path) -> Path:
    """To another folder, which may be another disk: whole or not at all."""
    aside = target.with_name(f".{target.name}.tmp")
    try:
        shutil.copyfile(made, aside)
        aside.chmod(0o600)
        archive.verify(aside)
        with aside.open("rb") as file:
            aside.rename(target)
            archive.sync(file, target.parent)
    except archive.Damaged as error:
        raise Failure(f"{target} could not be written: {error}") from None
    finally:
        aside.unlink(missing_ok=True)
    made.unlink()
    return target


def _restore(settings: Settings, paths: Paths, arguments: Namespace) -> int:
    file = Path(arguments.target)
    if not file.exists() and "/" not in arguments.target:
        file = folder.path_for(folder.folder_of(paths.data), arguments.target)
    if not file.is_file():
        raise Failure(f"{arguments.target} does not exist")
    with _alone(paths):
        now = make_clock(paths.data).now()
        try:
            done = restore(paths, settings, file.absolute(), passphrase=_passphrase(arguments), now=now)
        except Refused as error:
            raise Failure(str(error)) from None
    print(f"restored {file}: {done.objects} objects of {done.header['created']}, node {done.header['node']}; now start the server")
    if done.kept:
        print(f"the state before it is kept until the next start has succeeded: {', '.join(map(str, done.kept))}")
    if done.flags:
        print(f"start it with the settings of this cluster: edgekube server {' '.join(done.flags)}")
    return 0


def _list(paths: Paths) -> int:
    now = make_clock(paths.data).now()
    rows = [("NAME", "AGE", "CREATED", "SIZE", "OBJECTS", "ENCRYPTED", "VERSION")]
    for each in folder.found(folder.folder_of(paths.data)):
        size = _size(each.size)
        if each.trouble or each.created is None:
            rows.append((each.name, "-", "-", size, f"<{each.trouble or 'no date'}>", "-", "-"))
            continue
        age = human_duration(max(0.0, (now - each.created).total_seconds()))
        sealed = "yes" if "sealed" in each.header else "no"
        objects, version = str(each.header.get("objects")), str(each.header.get("edgekube"))
        rows.append((each.name, age, rfc3339(each.created), size, objects, sealed, version))
    show(rows)
    return 0


def _size(count: int) -> str:
    return f"{count / 1e6:.1f}MB" if count >= 1e6 else f"{count / 1e3:.1f}kB"


def _prune(paths: Paths, keep: int) -> int:
    if keep < 0:
        raise Failure(f"--keep: {keep} is out of range")
    for each in folder.prune(folder.folder_of(paths.data), keep):
        print(f"deleted {each.path}")
    return 0
