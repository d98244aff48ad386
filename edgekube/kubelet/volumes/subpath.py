"""subPath without escapes: the path is opened one component at a time below the volume, links resolved never to leave it, and the opened
descriptor is bind-mounted, so that what was checked is what the container gets.

Upstream: pkg/volume/util/subpath/subpath_linux.go. Blocking: run in a thread.
"""

import errno
import os
import stat
from pathlib import Path

from edgekube.kubelet.volumes.mounting import bind

_OPEN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40


class SubPathRefused(Exception):
    """The path leaves its volume, or cannot be made."""


def check_subpath(path: str) -> None:
    """Raises SubPathRefused for what validation refuses too (an expanded subPathExpr has not been through it)."""
    if path.startswith("/"):
        raise SubPathRefused(f"subPath must not be an absolute path: {path}")
    if ".." in path.split("/"):
        raise SubPathRefused(f"subPath must not contain '..': {path}")


def open_inside(root: str, path: str, *, create: bool, mode: int = 0o750) -> int:
    """A descriptor (O_PATH) of `path` below `root`. Missing folders are made when `create`. Raises SubPathRefused."""
    here = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack = [here]
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    try:
        while todo:
            part = todo.pop()
            if part == "..":
                if len(stack) == 1:
                    raise SubPathRefused(f"subpath {path} not within volume path {root}")
                os.close(stack.pop())
                continue
            descriptor = _step(stack[-1], part, create=create, mode=mode)
            if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                target = os.readlink("", dir_fd=descriptor)
                os.close(descriptor)
                links += 1
                if links > _MAX_LINKS:
                    raise SubPathRefused(f"too many links in subpath {path}")
                if target.startswith("/"):
                    target = _relative(root, target, path)
                    while len(stack) > 1:
                        os.close(stack.pop())
                todo += [piece for piece in reversed(target.split("/")) if piece not in ("", ".")]
                continue
            stack.append(descriptor)
        return os.dup(stack[-1])
    except OSError as error:
        raise SubPathRefused(f"failed to prepare subPath {path}: {error.strerror}") from error
    finally:
        for descriptor in stack:
            os.close(descriptor)


def _relative(root: str, target: str, path: str) -> str:
    if target == root or target.startswith(root.rstrip("/") + "/"):
        return target[len(root) :]
    raise SubPathRefused(f"subpath {path} not within volume path {root}")


def _step(parent: int, name: str, *, create: bool, mode: int) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=parent)
    except OSError as error:
        if error.errno != errno.ENOENT or not create:
            raise
    os.mkdir(name, mode, dir_fd=parent)
    owner = os.fstat(parent)
    descriptor = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=parent)
    where = f"/proc/self/fd/{descriptor}"
    os.chmod(where, mode | (owner.st_mode & 0o2077))
    os.chown(where, owner.st_uid, owner.st_gid)
    return descriptor


def bind_subpath(root: str, path: str, target: Path, *, read_only_volume: bool) -> None:
    """Mount `path` of the volume at `target` (a folder or file as the source is). Raises SubPathRefused, OSError."""
    check_subpath(path)
    descriptor = open_inside(os.path.realpath(root), path, create=not read_only_volume)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if target.exists() and not target.is_dir():
                target.unlink()
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        bind(f"/proc/self/fd/{descriptor}", target)
    finally:
        os.close(descriptor)
