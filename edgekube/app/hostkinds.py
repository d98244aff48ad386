"""The kinds of changes that a receipt knows, and for each: is it still as we made it, and how is it undone?

    sysctl           net/ipv4/ip_forward: its old value comes back, unless the host's own configuration asks for ours
    file, folder     a file goes, or its copy comes back; a folder goes when it is empty
    shared           a file that other programs may use as well: it goes when nobody has it open
    tree             a folder with all in it, or a file that may change as it likes
    controllers      what a control group hands down to its children
    module           a kernel module that brought settings with it: out again, unless somebody uses it
    unit             a systemd unit: stopped, disabled, deleted
    class            links, rules, mounts, groups, logs: found by their marks, however many there are (app/removal.py)
    package          told only: other programs may need it by now

What somebody else has changed since (`foreign`) is left as it is, always. Everything may run twice.
"""

import contextlib
import glob
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgekube.lib.files import MountInside, remove_tree
from edgekube.lib.process import clean_environment
from edgekube.lib.receipt import Change, Receipt

SYSCTL, FILE, FOLDER, SHARED, TREE, CONTROLLERS, MODULE, UNIT, CLASS, PACKAGE = (
    "sysctl", "file", "folder", "shared", "tree", "controllers", "module", "unit", "class", "package",
)  # fmt: skip
_SYSCTL_D = (
    "/etc/sysctl.conf",
    "/etc/sysctl.d/*.conf",
    "/run/sysctl.d/*.conf",
    "/usr/local/lib/sysctl.d/*.conf",
    "/usr/lib/sysctl.d/*.conf",
)


class State(StrEnum):
    """How a change stands now."""

    OURS = "as made"
    UNDONE = "undone"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Kind:
    """`undo` returns what it did, in the words of a person; "" if there was nothing to do."""

    look: Callable[[Change], State]
    undo: Callable[[Change, Receipt], str]


def undo(change: Change, receipt: Receipt) -> str:
    """Undo it if it is as we made it. Raises OSError."""
    kind = KINDS.get(change.kind)
    return kind.undo(change, receipt) if kind is not None and kind.look(change) is State.OURS else ""


def look(change: Change) -> State:
    kind = KINDS.get(change.kind)
    return kind.look(change) if kind is not None else State.OURS


def digest(path: Path) -> str:
    """What a file's `after` is compared with."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# sysctl


def _look_sysctl(change: Change) -> State:
    value = _text(Path("/proc/sys") / change.name)
    if value is None or value == change.before:
        return State.UNDONE
    return State.OURS if value == change.after and not configured(change.name, change.after) else State.FOREIGN


def configured(name: str, value: str | None, patterns: tuple[str, ...] = _SYSCTL_D) -> bool:
    """Whether the host itself is set up to have this value: then it is not ours to take back."""
    dotted = {name, name.replace("/", "."), name.replace(".", "/")}
    found = ""
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):
            for line in (_text(Path(path)) or "").splitlines():
                key, equals, text = line.partition("=")
                if equals and key.strip().lstrip("-") in dotted:
                    found = found or text.strip()
    return found != "" and found == value


def _undo_sysctl(change: Change, _receipt: Receipt) -> str:
    if change.before is None:
        return ""
    (Path("/proc/sys") / change.name).write_text(change.before)
    return f"{change.name.replace('/', '.')} is {change.before} again"


# files and folders


def _look_file(change: Change) -> State:
    path = Path(change.name)
    if not os.path.lexists(path):
        return State.UNDONE if change.before is None else State.OURS
    if change.after is None or (path.is_file() and digest(path) == change.after):
        return State.OURS
    return State.FOREIGN


def _undo_file(change: Change, receipt: Receipt) -> str:
    path = Path(change.name)
    if change.before is None:
        path.unlink(missing_ok=True)
        return change.name
    kept = receipt.kept(change.before)
    if not kept.is_file():
        return ""
    if not (path.is_file() and path.read_bytes() == kept.read_bytes()):
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        shutil.copyfile(kept, aside)
        with contextlib.suppress(OSError):  # FAT knows no modes
            shutil.copystat(kept, aside)
        aside.replace(path)
        return f"{change.name} is as it was"
    return ""


def _look_folder(change: Change) -> State:
    return State.OURS if os.path.isdir(change.name) else State.UNDONE


def _undo_folder(change: Change, _receipt: Receipt) -> str:
    try:
        os.rmdir(change.name)
    except OSError:  # something came in meanwhile, or it is mounted
        return ""
    return change.name


def _look_shared(change: Change) -> State:
    if not os.path.lexists(change.name):
        return State.UNDONE
    return State.FOREIGN if _in_use(change.name) else State.OURS


def _in_use(name: str) -> bool:
    """Whether a process has it open or mapped."""
    found = os.stat(name)
    mark = f" {os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x} {found.st_ino} "
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{entry.name}/maps").read_text(errors="replace"):
                return True
            for descriptor in os.scandir(f"/proc/{entry.name}/fd"):
                with contextlib.suppress(OSError):
                    if os.path.samestat(os.stat(descriptor.path), found):
                        return True
    return False


def _look_tree(change: Change) -> State:
    return State.OURS if os.path.lexists(change.name) else State.UNDONE


def _undo_tree(change: Change, _receipt: Receipt) -> str:
    path = Path(change.name)
    try:
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
    except MountInside:
        return ""
    return change.name


# control groups


def _look_controllers(change: Change) -> State:
    ours = set((change.after or "").split()) - set((change.before or "").split())
    return State.OURS if ours & set((_text(Path(change.name)) or "").split()) else State.UNDONE


def _undo_controllers(change: Change, _receipt: Receipt) -> str:
    """One by one: what somebody uses by now the kernel does not take back."""
    ours = set((change.after or "").split()) - set((change.before or "").split())
    taken = []
    for name in sorted(ours & set((_text(Path(change.name)) or "").split())):
        with contextlib.suppress(OSError):
            Path(change.name).write_text(f"-{name}")
            taken.append(name)
    return f"{', '.join(taken)} in {change.name}" if taken else ""


# kernel modules


def loaded_modules() -> dict[str, int]:
    """How many users each loaded module has."""
    return {words[0]: int(words[2]) for line in (_text(Path("/proc/modules")) or "").splitlines() if len(words := line.split()) > 2}


def _look_module(change: Change) -> State:
    users = loaded_modules().get(change.name)
    return State.UNDONE if users is None else State.FOREIGN if users else State.OURS


def _undo_module(change: Change, _receipt: Receipt) -> str:
    """The kernel refuses what is in use."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(["rmmod", change.name], check=False, capture_output=True, timeout=30, env=clean_environment())
    return "" if change.name in loaded_modules() else f"kernel module {change.name}"


# units


def _look_unit(change: Change) -> State:
    return State.OURS if os.path.lexists(change.name) else State.UNDONE


def _undo_unit(change: Change, _receipt: Receipt) -> str:
    path = Path(change.name)
    for command in (["disable", "-q", "--now", path.name], ["reset-failed", "-q", path.name]):
        _systemctl(*command)
    path.unlink(missing_ok=True)
    _systemctl("daemon-reload")
    return change.name


def _systemctl(*command: str) -> None:
    if os.path.isdir("/run/systemd/system"):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["systemctl", *command], check=False, capture_output=True, timeout=60, env=clean_environment())


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _stays(_change: Change, _receipt: Receipt) -> str:
    return ""


KINDS: Mapping[str, Kind] = {
    SYSCTL: Kind(_look_sysctl, _undo_sysctl),
    FILE: Kind(_look_file, _undo_file),
    FOLDER: Kind(_look_folder, _undo_folder),
    SHARED: Kind(_look_shared, _undo_file),
    TREE: Kind(_look_tree, _undo_tree),
    CONTROLLERS: Kind(_look_controllers, _undo_controllers),
    MODULE: Kind(_look_module, _undo_module),
    UNIT: Kind(_look_unit, _undo_unit),
    PACKAGE: Kind(lambda _change: State.OURS, _stays),
    CLASS: Kind(lambda _change: State.OURS, _stays),
}
