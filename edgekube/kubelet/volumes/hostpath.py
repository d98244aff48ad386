"""hostPath: check the type, create what *OrCreate asks for. Nothing is ever removed. Blocking: run in a thread."""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from edgekube.kubelet.volumes.protocol import VolumeNotReady

_CHECKS: Mapping[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


def ensure_host_path(source: Mapping[str, str]) -> Path:
    """The path, checked. Raises VolumeNotReady with upstream's words."""
    path, kind = Path(source["path"]), source.get("type") or ""
    if not kind:
        if not os.path.lexists(path):
            path.mkdir(parents=True, exist_ok=True)  # as container runtimes do for a bind mount's source
        return path
    try:
        if kind == "DirectoryOrCreate" and not path.exists():
            path.mkdir(parents=True, mode=0o755, exist_ok=True)
        elif kind == "FileOrCreate" and not path.exists():
            path.touch(mode=0o644)
        mode = path.stat().st_mode
    except OSError as error:
        if kind.endswith("OrCreate"):
            raise VolumeNotReady(f"hostPath type check failed: {path}: {error.strerror}") from error
        raise VolumeNotReady(f"hostPath type check failed: {path} is not {_CHECKS[kind][1]}") from error
    test, what = _CHECKS.get(kind, (lambda _mode: True, ""))
    if not test(mode):
        raise VolumeNotReady(f"hostPath type check failed: {path} is not {what}")
    return path
