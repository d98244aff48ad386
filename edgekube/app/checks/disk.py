"""The disk below the data directory: its kind, what is left, and how long a write takes to be safe.

Each acknowledged write of the API waits for the disk once: on an SD card that is the speed of the whole cluster.
"""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edgekube.app.checks.finding import Finding
from edgekube.config import Settings

_NETWORK = frozenset(("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs", "fuse.glusterfs"))
_MEMORY = frozenset(("tmpfs", "ramfs"))
_FAT = frozenset(("vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "msdos"))
_LEAST_INODES = 10_000
_COMFORT = 1 << 30
_SLOW, _SECONDS, _WRITES = 0.050, 0.5, 20


def check_disk(settings: Settings) -> Sequence[Finding]:
    folder = nearest(settings.data_dir)
    kind, options, device = mount_of(folder, Path("/proc/self/mountinfo").read_text())
    if settings.disable_agent and kind == "overlay":
        kind = "overlay without containers"
    found = judge_mount(settings.data_dir, kind, options, device, frozen=bool(getattr(sys, "frozen", False)))
    state = os.statvfs(folder)
    found += judge_room(settings.data_dir, state.f_bavail * state.f_frsize, state.f_favail if state.f_files else None)
    if kind not in _MEMORY and os.access(folder, os.W_OK):
        with contextlib.suppress(OSError):
            found.append(judge_speed(settings, sync_seconds(folder)))
    return found


def nearest(folder: Path) -> Path:
    """It, or the nearest of its parents that is there."""
    while not os.path.isdir(folder):
        folder = folder.parent
    return folder


def mount_of(folder: Path, mountinfo: str) -> tuple[str, Sequence[str], str]:
    """(kind of the file system, its options, its device) from the text of /proc/self/mountinfo. The last of the longest match counts."""
    best: tuple[int, str, Sequence[str], str] = (-1, "", (), "")
    real = os.path.realpath(folder)
    for line in mountinfo.splitlines():
        words, rest = line.split(" - ")[0].split(), line.partition(" - ")[2].split()
        point = words[4].encode().decode("unicode_escape")
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= best[0]:
            best = (len(point), rest[0], words[5].split(","), rest[1])
    return best[1:]


def judge_mount(data_dir: Path, kind: str, options: Sequence[str], device: str, *, frozen: bool) -> list[Finding]:
    """Pure."""
    proof = f"{device} is {kind} ({','.join(options)})"
    if kind in _NETWORK:
        text = f"{data_dir} is on a network file system: the database's locks are not safe there, and containers can not be layered"
        return [Finding("file system", False, text, "use a local disk: --data-dir", proof=proof)]
    if kind in _FAT:
        text = f"{data_dir} is on {kind}, which has no owners and modes"
        return [Finding("file system", False, text, "use a disk with ext4, xfs or btrfs: --data-dir", proof=proof)]
    if "ro" in options:
        text = f"{data_dir} is on a disk that is mounted read-only"
        return [Finding("file system", False, text, "see dmesg for why, then mount it read-write", proof=proof)]
    if kind == "overlay":
        text = f"{data_dir} is on overlayfs, over which podman can not layer images: this is the inside of a container, or a live system"
        return [Finding("file system", False, text, "use a disk: --data-dir", proof=proof)]
    found = []
    if kind in _MEMORY:
        text = f"{data_dir} is in memory: everything is lost with a reboot"
        found.append(Finding("file system", False, text, "use a disk: --data-dir", fatal=False, proof=proof))
    if "noexec" in options:
        text = f"{data_dir} is mounted noexec: programs can not be run from there"
        fix = f"mount it without noexec (mount -o remount,exec {data_dir}), or use another --data-dir"
        found.append(Finding("noexec", False, text, fix, fatal=frozen, proof=proof))
    return found or [Finding("file system", True, f"{data_dir} is on {kind}")]


def judge_room(data_dir: Path, free: int, inodes: int | None) -> list[Finding]:
    """Pure. Too little to start at all is told by those who decide a start."""
    found = []
    if free < _COMFORT:
        text = f"only {free >> 20} MiB are free for {data_dir}: images need room"
        found.append(Finding("free space", False, text, "make room, or use a larger disk: 1 GiB is little already", fatal=False))
    if inodes is not None and inodes < _LEAST_INODES:
        text = f"only {inodes} more files fit on the disk of {data_dir}: an image has thousands"
        found.append(Finding("inodes", False, text, "delete many small files, or make the file system anew with more inodes", fatal=False))
    return found


def sync_seconds(folder: Path) -> float:
    """Median time of a small write that is safe on the disk. Half a second at most."""
    path = folder / f".edgekube-check-{os.getpid()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    times: list[float] = []
    try:
        begun = time.monotonic()
        while len(times) < _WRITES and time.monotonic() - begun < _SECONDS:
            start = time.monotonic()
            os.write(descriptor, b"\0" * 4096)
            os.fdatasync(descriptor)
            times.append(time.monotonic() - start)
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)
    return statistics.median(times)


def judge_speed(settings: Settings, seconds: float) -> Finding:
    """Pure."""
    text = f"a write is safe on the disk after {seconds * 1000:.1f} ms"
    if seconds < _SLOW:
        return Finding("disk speed", True, text)
    fix = "use a faster card or disk (an SSD over USB); --write-linger-ms=10 gathers writes meanwhile"
    return Finding("disk speed", False, f"the disk is slow: {text}, and each change of the cluster waits for that", fix, fatal=False)
