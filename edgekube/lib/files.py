"""Files that are either old or new after a power cut, never half: write aside, sync, rename, sync the folder."""

import errno
import fcntl
import os
import shutil
from pathlib import Path


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` durably. The temporary file carries the process id, so two processes never mix."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_if_changed(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """`write_atomic` unless the file already holds `data`; tells whether it wrote."""
    try:
        if path.read_bytes() == data and (path.stat().st_mode & 0o777) == mode:
            return False
    except FileNotFoundError:
        pass
    write_atomic(path, data, mode=mode)
    return True


def sync_folder(folder: Path) -> None:
    """Make a rename or creation in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def still_written(path: Path) -> bool | None:
    """Whether some process has the file open for writing: the kernel gives a read lease only if none has. None: it can not say here."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return True  # gone, or not for us yet
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return True
        return None
    finally:
        os.close(file)


class MountInside(Exception):
    """Something is mounted below a folder that was to be deleted."""


def mounts_below(folder: Path) -> list[str]:
    """Mount points at or below `folder`, the deepest first."""
    prefix = str(folder)
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")  # blanks are written as \\040
        if point == prefix or point.startswith(prefix + "/"):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def remove_tree(folder: Path, *, keep: frozenset[str] = frozenset()) -> bool:
    """Delete `folder` and all in it; entries named in `keep` at its top stay, and the folder with them; so does a folder that is a
    mount point itself, empty. Never follows a link and never crosses a mount point: raises MountInside before anything is deleted.
    Idempotent; whether the folder is gone."""
    mounted, kept_below = mounts_below(folder), tuple(f"{folder / name}/" for name in keep)
    found = [point for point in mounted if point != str(folder) and not f"{point}/".startswith(kept_below)]
    if found:
        raise MountInside(f"{found[0]} is mounted: nothing below {folder} was deleted; unmount it and try again")
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if not mounted and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return not folder.exists()
