"""Several files and folders of the data directory replaced as one step: after a crash anywhere it is completed, or nothing has happened.

    <data>/exchange/new/NAME       what is to come; filled and synced first
    <data>/exchange.json           the decision; from its rename on the exchange will happen: at once, or when the next process starts
    <data>/NAME.before-restore-T   what was there before, kept

Each step is a rename that finds by what is there whether it was done. Only who holds the lock of the run directory may call `finish`.
"""

import json
from collections.abc import Collection
from pathlib import Path

from edgekube.lib.failpoint import hit
from edgekube.lib.files import remove_tree, sync_folder, write_atomic

_DECISION = "exchange.json"
_STAGE = "exchange"


def stage(data: Path) -> Path:
    """An empty folder for what is to come; what an interrupted attempt has left goes."""
    remove_tree(data / _STAGE)
    folder = data / _STAGE / "new"
    folder.mkdir(mode=0o700, parents=True)
    return folder


def abandon(data: Path) -> None:
    """Nothing of it will happen."""
    remove_tree(data / _STAGE)


def decide(data: Path, *, names: Collection[str], suffix: str) -> None:
    """What is staged replaces `names` (of which some may not be staged: they go without replacement). The old ones get `suffix`."""
    _sync_all(data / _STAGE / "new")
    staged = [entry.name for entry in (data / _STAGE / "new").iterdir()]
    plan = {"names": sorted({*names, *staged}), "staged": sorted(staged), "suffix": suffix}
    hit("exchange.before-decision")
    write_atomic(data / _DECISION, json.dumps(plan).encode(), mode=0o600)
    hit("exchange.decided")


def finish(data: Path) -> bool:
    """Do what was decided, or go on with it; whether there was anything to do. Raises OSError."""
    try:
        plan = json.loads((data / _DECISION).read_bytes())
    except FileNotFoundError:
        return False
    new = data / _STAGE / "new"
    for name in plan["names"]:
        current, aside, coming = data / name, data / f"{name}{plan['suffix']}", new / name
        if name in plan["staged"] and not coming.exists():
            continue  # this one is in place
        if current.exists() and not aside.exists():
            hit("exchange.aside")
            current.rename(aside)
            sync_folder(data)
        if name in plan["staged"]:
            hit("exchange.into-place")
            coming.rename(current)
            sync_folder(data)
    hit("exchange.before-end")
    (data / _DECISION).unlink()
    sync_folder(data)
    remove_tree(data / _STAGE)
    return True


def free_suffix(data: Path, wanted: str) -> str:
    """`wanted`, or something longer that nothing was set aside with yet."""
    return next(suffix for suffix in (wanted, *(f"{wanted}-{n}" for n in range(2, 1000))) if not any(data.glob(f"*{suffix}")))


def kept(data: Path, marker: str) -> list[Path]:
    """What exchanges have set aside: entries with `marker` in their name."""
    return sorted(data.glob(f"*{marker}*"))


def forget(data: Path, marker: str) -> None:
    """Delete what was set aside."""
    for path in kept(data, marker):
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)


def _sync_all(folder: Path) -> None:
    """Files were synced when they were written; here their names are."""
    for entry in [folder, *folder.rglob("*")]:
        if entry.is_dir():
            sync_folder(entry)
    sync_folder(folder.parent)
    sync_folder(folder.parent.parent)
