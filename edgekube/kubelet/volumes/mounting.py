"""tmpfs mounts, and removal that never goes through a mount point or follows a link. Blocking: run in a thread.

`remove_tree` unmounts what is mounted below, deepest first, refuses to cross into another file system, and deletes by directory
descriptors, so that a link swapped in meanwhile leads nowhere.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgekube.kubelet.runtime.mounts import MS_BIND, MS_RDONLY, MS_REC, is_mounted, mount, unmount

__all__ = ("bind", "ensure_tmpfs", "is_mounted", "mounts_below", "remove_tree")

MS_REMOUNT = 32


class StillMounted(Exception):
    """Something below is mounted and cannot be unmounted: nothing was deleted."""


def _unescaped(text: str) -> str:
    return text.encode().decode("unicode_escape").encode("latin-1").decode("utf-8", "surrogateescape") if "\\" in text else text


def mounts_below(folder: Path) -> Iterator[str]:
    """Mount points at and below `folder`, deepest first."""
    prefix = str(folder)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        points = [_unescaped(line.split(" ", 5)[4]) for line in table]
    below = [point for point in points if point == prefix or point.startswith(prefix + "/")]
    return iter(sorted(below, key=len, reverse=True))


def ensure_tmpfs(target: Path, *, size: int = 0, mode: int = 0o755) -> None:
    """Idempotent: one that is there (an edgekube before us made it) is adopted."""
    target.mkdir(parents=True, exist_ok=True)
    if is_mounted(target):
        return
    options = f"mode={mode:o}" + (f",size={size}" if size else "")
    mount("tmpfs", str(target), kind="tmpfs", data=options)


def bind(source: str, target: Path, *, read_only: bool = False) -> None:
    """A bind mount; what was mounted there before is replaced."""
    unmount(str(target))
    mount(source, str(target), flags=MS_BIND | MS_REC)
    if read_only:
        mount("none", str(target), flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def remove_tree(folder: Path) -> None:
    """Idempotent. Raises StillMounted, OSError."""
    if not os.path.lexists(folder):
        return
    for point in mounts_below(folder):
        unmount(point)
    if next(mounts_below(folder), None) is not None:
        raise StillMounted(f"{folder} still has mounts below it")
    device = os.lstat(folder).st_dev
    for base, names, _ in os.walk(folder, followlinks=False):
        for name in names:
            info = os.lstat(os.path.join(base, name))
            if info.st_dev != device:
                raise StillMounted(f"{os.path.join(base, name)} is on another file system")
    shutil.rmtree(folder)
