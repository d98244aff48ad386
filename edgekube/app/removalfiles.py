"""The last part of an uninstall: files, and what the receipt says, played backwards.

The order makes an interruption harmless: run again, it completes. The receipt goes once all in it is undone; after it go the
configuration, which says where the data directory is, and the program, the last of all. (Killed between these, an empty folder above a
data directory in an unusual place may stay.)
"""

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from edgekube.app.hostkinds import FILE, FOLDER, PACKAGE, UNIT, State, look, undo
from edgekube.app.paths import Paths
from edgekube.config import Settings
from edgekube.lib.failpoint import hit
from edgekube.lib.files import remove_tree, write_atomic
from edgekube.lib.receipt import Change, Receipt

Say = Callable[[str], None]
LAUNCHER = Path("/usr/local/bin/edgekube")
CONFIG = Path("/etc/edgekube/config.yaml")
_LAST = (str(LAUNCHER), str(CONFIG))
_INSTALLED = ("/usr/local/lib/edgekube", "/etc/edgekube", "/var/log/edgekube.log")
_UNITS = tuple(Path("/etc/systemd/system") / name for name in ("edgekube.service", "edgekube-agent.service", "edgekube-shutdown.service"))


def remove_files(settings: Settings, paths: Paths, *, keep: frozenset[str], say: Say, leave: Say) -> None:
    """`keep`: what stays of the data directory. Nothing may be mounted any more by us. Raises OSError, MountInside."""
    receipt = Receipt(paths.receipt)
    changes = list(receipt.changes())
    installed = is_installation(paths) or any(change.name == str(LAUNCHER) for change in changes)
    config = _kept_config(changes, receipt)
    for folder, kept in ((paths.run, frozenset[str]()), (paths.data, keep | {paths.receipt.name})):
        if folder.exists():
            remove_tree(folder, keep=kept)
            hit("uninstall")
    replay(changes, receipt, say, leave)
    if not changes:
        _remove_file(settings.write_kubeconfig, say)
        if installed:
            _remove_unnoted(say)
    hit("uninstall")
    if paths.data.exists():
        gone = remove_tree(paths.data, keep=keep)
        say(f"{paths.data}" + (" (volumes kept)" if keep else "" if gone else " (emptied: it is a mount point)"))
    hit("uninstall")
    if any(change.name == str(CONFIG) for change in changes):
        _finish_config(config, say)
    hit("uninstall")
    for change in reversed(changes):
        if change.kind == FOLDER:
            _finish_folder(change, receipt, say, leave)
    hit("uninstall")
    if installed:
        _remove_file(LAUNCHER, say)


def is_installation(paths: Paths) -> bool:
    """Whether this is the installation of this machine: where its configuration says, or in the usual place."""
    text = ""
    with contextlib.suppress(OSError):
        text = CONFIG.read_text(errors="replace")
    named = re.search(r"^data-dir:\s*[\"']?([^\"'#\n]+?)[\"']?\s*(#.*)?$", text, re.M)
    return str(paths.data) == named[1] if named is not None else paths.is_default


def replay(changes: Sequence[Change], receipt: Receipt, say: Say, leave: Say) -> None:
    """Undo what was noted, the last first. What somebody else has changed since stays, and is told."""
    for change in reversed(changes):
        if change.name in _LAST:
            continue
        if change.kind == PACKAGE:
            leave(f"package {change.name}: other programs may need it by now")
        if change.kind == FILE and look(change) is State.FOREIGN:
            leave(f"{change.name}: somebody has changed it since")
            continue
        try:
            done = undo(change, receipt)
        except OSError as error:
            leave(f"{change.name}: {error.strerror or error}")
            continue
        if done:
            say(done)
        hit("uninstall")


def _kept_config(changes: Sequence[Change], receipt: Receipt) -> bytes | None:
    """How the configuration file was before us; None if it was not."""
    for change in changes:
        if change.name == str(CONFIG) and change.before is not None:
            with contextlib.suppress(OSError):
                return receipt.kept(change.before).read_bytes()
    return None


def _finish_config(before: bytes | None, say: Say) -> None:
    if before is None:
        _remove_file(CONFIG, say)
    elif not CONFIG.exists() or CONFIG.read_bytes() != before:
        write_atomic(CONFIG, before, mode=CONFIG.stat().st_mode & 0o777 if CONFIG.exists() else 0o644)
        say(f"{CONFIG} is as it was")


def _finish_folder(change: Change, receipt: Receipt, say: Say, leave: Say) -> None:
    """Those that were not empty before."""
    if undo(change, receipt):
        say(change.name)
    elif look(change) is State.OURS and change.name.startswith("/etc/"):
        leave(f"{change.name}: there is something else in it")


def _remove_file(path: Path, say: Say) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
        say(str(path))


def _remove_unnoted(say: Say) -> None:
    """What an installer before the receipt has left, or what an interrupted end has."""
    for unit in _UNITS:
        if unit.exists():
            say(undo(Change(UNIT, str(unit)), Receipt(unit.parent)))
    for name in _INSTALLED:
        if os.path.lexists(name):
            remove_tree(Path(name)) if os.path.isdir(name) else os.unlink(name)
            say(name)
