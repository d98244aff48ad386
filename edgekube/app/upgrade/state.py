"""What an upgrade has decided, and the state of the cluster (or the agent) as it was before: `<data-dir>/upgrade/`.

    state.json   who is on trial, how it was started, what it must show
    kept/        db and pki of a server, agent of an agent: copied when the old version had stopped; `complete` was written last
"""

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from edgekube.app.backup import exchange
from edgekube.lib.clock import parse_rfc3339
from edgekube.lib.failpoint import hit
from edgekube.lib.files import remove_tree, sync_folder, write_atomic
from edgekube.store import transplant
from edgekube.store.protocol import StoreDamaged

TRIAL, KEEP, BACK, DONE = "trial", "keep", "back", "done"
ASIDE = ".of-failed-upgrade-"
_KEPT = {"server": ("db", "pki"), "agent": ("agent",)}


@dataclass(frozen=True, slots=True)
class Trial:
    """The state file."""

    phase: str
    program: str
    old: str  # versions
    new: str
    began: str
    role: str  # server, agent
    unit: str = ""  # of systemd; "": a background process
    log: str = ""
    folder: str = "/"
    args: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    was_ready: bool = True
    was_running: bool = True
    timeout: float = 60.0
    why: str = ""  # it went back


def folder_of(data: Path) -> Path:
    return data / "upgrade"


def load(data: Path) -> Trial | None:
    """None if there is none, or none that can be read: then the installed path alone tells."""
    try:
        return Trial(**json.loads((folder_of(data) / "state.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def save(data: Path, trial: Trial) -> None:
    folder_of(data).mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder_of(data) / "state.json", json.dumps(asdict(trial), indent=1).encode(), mode=0o600)


def clear(data: Path) -> None:
    remove_tree(folder_of(data))


def keep_data(data: Path, role: str) -> None:
    """Copy what a roll-back needs. Nobody writes to it meanwhile."""
    kept = folder_of(data) / "kept"
    remove_tree(kept)
    kept.mkdir(mode=0o700, parents=True)
    for name in _KEPT[role]:
        if (data / name).is_dir():
            shutil.copytree(data / name, kept / name, symlinks=True)
    for path in [*kept.rglob("*"), kept]:
        if path.is_dir():
            sync_folder(path)
        elif not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    hit("upgrade.copied")
    write_atomic(kept / "complete", b"", mode=0o600)


def forget_data(data: Path) -> None:
    """The new version has proved good."""
    remove_tree(folder_of(data) / "kept")


def restore_data(data: Path, trial: Trial, now: datetime) -> bool:
    """The kept state is the state again; whether there was anything to do. Nobody has the data open. Goes on after a crash."""
    done = exchange.finish(data)
    kept = folder_of(data) / "kept"
    if not (kept / "complete").exists():
        return done
    names = [name for name in _KEPT[trial.role] if (kept / name).is_dir()]
    database = kept / "db" / "state.db"
    if database.exists():
        _raise_revision(database, trial, now)
    staged = exchange.stage(data)
    for name in names:
        shutil.copytree(kept / name, staged / name, symlinks=True)
        for path in (staged / name).rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
    exchange.decide(data, names=names, suffix=exchange.free_suffix(data, f"{ASIDE}{trial.new}"))
    hit("upgrade.data-decided")
    (kept / "complete").unlink()
    exchange.finish(data)
    return True


def _raise_revision(database: Path, trial: Trial, now: datetime) -> None:
    """Clients know revisions that the version on trial gave out."""
    elapsed = 0.0
    with contextlib.suppress(ValueError):
        elapsed = (now - parse_rfc3339(trial.began)).total_seconds()
    with contextlib.suppress(StoreDamaged, sqlite3.Error):  # as damaged as it was before: its own version deals with that
        transplant.raise_revision(database, elapsed=elapsed)
