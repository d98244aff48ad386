"""mount(2), umount(2), unshare(2) and setns(2) through ctypes, and who is what in /proc: the few system calls Python 3.11 lacks."""

import ctypes
import errno
import os
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_SHARED = 1, 2, 4, 8, 4096, 16384, 1 << 20
MNT_DETACH = 2
NEWNET, NEWIPC, NEWUTS, NEWPID = 0x40000000, 0x08000000, 0x04000000, 0x20000000

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, *, kind: str = "", flags: int = 0, data: str = "") -> None:
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None),
        f"mount {target}",
    )


def unmount(target: str) -> None:
    """Lazily; no error if nothing is mounted there (any more). Every layer of a stack is removed."""
    for _ in range(16):
        if _libc.umount2(target.encode(), MNT_DETACH) != 0:
            number = ctypes.get_errno()
            if number in (errno.EINVAL, errno.ENOENT):
                return
            raise OSError(number, f"umount {target}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Of the calling thread only: call it in a thread that ends afterwards."""
    _check(_libc.unshare(flags), "unshare")


def setns(path: str, flags: int) -> None:
    """Of the calling thread only."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, flags), f"setns {path}")
    finally:
        os.close(descriptor)


def is_namespace(path: Path) -> bool:
    """A namespace is pinned at `path`."""
    try:
        return path.stat().st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def is_mounted(path: Path) -> bool:
    """Something is mounted at `path` (a bind mount of a folder on itself counts)."""
    name = str(path).replace(" ", "\\040")
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        return any(line.split(" ", 5)[4] == name for line in table)


def share(path: Path) -> None:
    """Make `path` a shared mount of its own, so that mounts below it reach every mount namespace of the node; idempotent."""
    path.mkdir(parents=True, exist_ok=True)
    if not is_mounted(path):
        mount(str(path), str(path), flags=MS_BIND)
    mount("none", str(path), flags=MS_SHARED)


def start_time(pid: int) -> str:
    """When the process started, in clock ticks: with the pid it names a process for good. "" if there is none (a zombie counts as none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def own_capability(bit: int) -> bool:
    """Whether this process may use capability number `bit`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> bit & 1)
    return False
