"""Projected files that readers see change all at once (upstream: pkg/volume/util/atomic_writer.go).

    <target>/..data -> ..2026_11_20_12_00_00.123456789     the current version, swapped by rename
    <target>/..2026_11_20_12_00_00.123456789/key            the files
    <target>/key -> ..data/key                              one link per top-level name

Writes nothing when the payload is as it was. A crash between any two steps leaves the old version in place.
"""

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

DATA, DATA_NEW = "..data", "..data_tmp"
MAX_NAME = 255


class BadPath(Exception):
    """A key would leave the volume."""


@dataclass(frozen=True, slots=True)
class File:
    data: bytes
    mode: int
    owner: int = -1


def check_path(name: str) -> None:
    """Raises BadPath."""
    if not name:
        raise BadPath("must not be empty")
    if name.startswith("/"):
        raise BadPath(f"invalid path: must be relative path: {name}")
    parts = name.split("/")
    if ".." in parts:
        raise BadPath(f"invalid path: must not contain '..': {name}")
    if parts[0].startswith(".."):
        raise BadPath(f"invalid path: must not start with '..': {name}")
    if any(len(part) > MAX_NAME for part in parts):
        raise BadPath(f"invalid path: filename must be less than or equal to {MAX_NAME} characters")


def write_payload(target: Path, payload: Mapping[str, File], *, group: int | None = None) -> bool:
    """Make `target` show exactly `payload`; whether anything changed. Blocks: run it in a thread."""
    for name in payload:
        check_path(name)
    current = _current(target)
    if current is not None and _same(current, payload, group):
        _link_names(target, payload)
        return False
    fresh = _write_version(target, payload, group)
    temporary = target / DATA_NEW
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(fresh.name)
    _link_names(target, payload)
    os.replace(temporary, target / DATA)
    _drop_stale(target, payload, keep=fresh.name)
    return True


def _current(target: Path) -> Path | None:
    try:
        return target / os.readlink(target / DATA)
    except OSError:
        return None


def _same(folder: Path, payload: Mapping[str, File], group: int | None) -> bool:
    found: set[str] = set()
    for base, _, names in os.walk(folder):
        found |= {os.path.relpath(os.path.join(base, name), folder) for name in names}
    if found != set(payload):
        return False
    for name, file in payload.items():
        path = folder / name
        try:
            info = path.stat()
            if stat.S_IMODE(info.st_mode) != _mode(file, group) or path.read_bytes() != file.data:
                return False
            if group is not None and info.st_gid != group:
                return False
        except OSError:
            return False
    return True


def _mode(file: File, group: int | None) -> int:
    # With fsGroup the group gets what the owner may read, as upstream's SetVolumeOwnership does.
    return file.mode | (0o440 if group is not None else 0)


def _write_version(target: Path, payload: Mapping[str, File], group: int | None) -> Path:
    stamp = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f") + f"{os.urandom(3).hex()}"
    folder = target / stamp
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    for name, file in payload.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
        path.chmod(_mode(file, group))
        if file.owner >= 0 or group is not None:
            os.chown(path, file.owner, -1 if group is None else group)
    if group is not None:
        for base, _, _ in os.walk(folder):
            os.chown(base, -1, group)
            Path(base).chmod(0o2775)
    return folder


def _link_names(target: Path, payload: Mapping[str, File]) -> None:
    for top in {name.split("/", 1)[0] for name in payload}:
        link = target / top
        if not link.is_symlink():
            link.symlink_to(f"{DATA}/{top}")


def _drop_stale(target: Path, payload: Mapping[str, File], *, keep: str) -> None:
    tops = {name.split("/", 1)[0] for name in payload}
    for entry in list(os.scandir(target)):
        if entry.name in (DATA, keep) or entry.name in tops:
            continue
        if entry.is_symlink():
            os.unlink(entry.path)
        elif entry.name.startswith("..") and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
