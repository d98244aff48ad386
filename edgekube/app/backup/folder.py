"""`<data-dir>/snapshots/`: names, what each file says of itself, and which go when there are too many.

Names end in .snapshot; those that edgekube makes by itself begin with auto- and are the only ones the schedule deletes.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edgekube.lib import archive
from edgekube.lib.clock import parse_rfc3339

SUFFIX = ".snapshot"
AUTO = "auto-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file of the folder. `trouble`: why its header can not be read; "" if it can (the rest of the file is not looked at)."""

    path: Path
    size: int
    header: dict[str, Any]
    trouble: str = ""

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(SUFFIX)

    @property
    def created(self) -> datetime | None:
        try:
            return parse_rfc3339(str(self.header["created"]))
        except (KeyError, ValueError):
            return None

    @property
    def order(self) -> tuple[bool, float]:
        """Sorts the newest last, unreadable ones first."""
        created = self.created
        return created is not None, created.timestamp() if created else self.path.stat().st_mtime


def folder_of(data: Path) -> Path:
    return data / "snapshots"


def bad_name(name: str) -> bool:
    """It must be a plain file name: the server writes it as root, whoever asks."""
    return not _NAME.fullmatch(name) or name.endswith(".tmp")


def path_for(folder: Path, name: str) -> Path:
    return folder / (name.removesuffix(SUFFIX) + SUFFIX)


def free_name(folder: Path, prefix: str, now: datetime) -> str:
    """A name with the time in it that no file has."""
    base = f"{prefix}{now:%Y%m%d-%H%M%S}"
    names = [base, *(f"{base}-{number}" for number in range(2, 1000))]
    return next(name for name in names if not path_for(folder, name).exists())


def found(folder: Path) -> Sequence[Snapshot]:
    """All of them, the oldest first. Raises OSError."""
    snapshots = []
    for path in folder.glob(f"*{SUFFIX}"):
        header, trouble = {}, ""
        try:
            header = archive.read_header(path)
        except FileNotFoundError:
            continue
        except archive.Damaged as error:
            trouble = str(error)
        snapshots.append(Snapshot(path, path.stat().st_size, header, trouble))
    return sorted(snapshots, key=lambda each: each.order)


def hint(data: Path) -> str:
    """What to do about a database that can not be opened, if there is a snapshot to do it with."""
    good = [each for each in found(folder_of(data)) if not each.trouble]
    return f"; the newest snapshot comes back with: edgekube snapshot restore {good[-1].name}" if good else ""


def plan_prune(snapshots: Sequence[Snapshot], keep: int) -> Sequence[Snapshot]:
    """Which go so that the newest `keep` stay. Those that can not be read count for nothing and go once there are
    enough others."""
    good = [each for each in snapshots if not each.trouble]
    gone = good[: max(0, len(good) - keep)]
    return [*(each for each in snapshots if each.trouble and len(good) >= keep), *gone]


def prune(folder: Path, keep: int, *, only: str = "") -> Sequence[Snapshot]:
    """Delete the oldest (those whose name begins with `only`) and what an interrupted save has left. What was deleted. Raises OSError."""
    remove_unfinished(folder)
    gone = plan_prune([each for each in found(folder) if each.name.startswith(only)], keep)
    for snapshot in gone:
        snapshot.path.unlink(missing_ok=True)
    return gone


def remove_unfinished(folder: Path) -> None:
    """What saves have left that were killed; the process that writes a file is in its name."""
    for path in folder.glob(f".*{SUFFIX}.*.tmp"):
        pid = path.name.split(".")[-2]
        if int(pid) == os.getpid() or not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)
