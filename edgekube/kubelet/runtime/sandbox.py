"""Sandboxes: the namespaces that a pod's containers share, pinned without any container to hold them.

    run-dir/pods/<uid>/net, ipc, uts, pid    namespaces, kept alive by bind mounts
                       shm/                  the pod's /dev/shm
                       hostname              mounted as /etc/hostname
                       sandbox.json          written last: a folder without it is half-made and is thrown away

One thread per new sandbox: unshare(2) is per thread, so it makes the namespaces, names the host, writes the sysctls, brings `lo` up and
pins itself (about 1.2 ms, no fork). A shared PID namespace needs a first process: `sleep`, with SIGCHLD ignored so that the kernel reaps.
Everything blocks for a millisecond or two: call it through `asyncio.to_thread`, one call per pod at a time.
"""

import contextlib
import fcntl
import json
import logging
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekube.kubelet.runtime import mounts
from edgekube.kubelet.runtime.cgroups import Hierarchy
from edgekube.kubelet.runtime.pidfd import reap
from edgekube.kubelet.runtime.protocol import PodRef, RuntimeFailure, Sandbox, SandboxSpec
from edgekube.lib.process import clean_environment

log = logging.getLogger(__name__)

_KINDS = ("net", "ipc", "uts", "pid")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_SHM_BYTES = 64 << 20
# As containerd sets them: a pod's ports and pings are its own affair, no root needed.
_DEFAULT_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


class Sandboxes:
    """The folder of pinned namespaces."""

    def __init__(self, folder: Path, hierarchy: Hierarchy) -> None:
        self._folder, self._hierarchy = folder, hierarchy

    def prepare(self) -> None:
        """Make the folder a shared mount; remove what a crash left half-made."""
        mounts.share(self._folder)
        for path in self._folder.iterdir():
            if _load(path) is None:
                log.info("half-made sandbox removed", extra={"uid": path.name})
                self.remove(path.name)

    def ensure(self, spec: SandboxSpec) -> Sandbox:
        """See Runtime.ensure_sandbox."""
        path = self._path(spec.pod.uid)
        if (found := _load(path)) is not None:
            return found
        self.remove(spec.pod.uid)
        path.mkdir(mode=0o711)
        try:
            self._make(spec, path)
        except OSError as error:
            self.remove(spec.pod.uid)
            raise RuntimeFailure("CreatePodSandboxError", f"failed to create pod sandbox: {error}") from error
        made = _load(path)
        if made is None:
            raise RuntimeFailure("CreatePodSandboxError", "failed to create pod sandbox: its namespaces vanished")
        return made

    def list(self) -> Iterator[Sandbox]:
        """All whole ones."""
        for path in self._folder.iterdir() if self._folder.exists() else ():
            if (found := _load(path)) is not None:
                yield found

    def hostname(self, uid: str) -> str:
        with contextlib.suppress(OSError):
            return (self._path(uid) / "hostname").read_text().strip()
        return ""

    def hostname_file(self, uid: str) -> Path:
        return self._path(uid) / "hostname"

    def remove(self, uid: str) -> None:
        """Unpin and delete; idempotent, also for half-made ones."""
        path = self._path(uid)
        if not path.exists():
            return
        record = _record(path)
        (path / "sandbox.json").unlink(missing_ok=True)
        _end_pause(record)
        for name in (*_KINDS, "shm"):
            if (path / name).exists():
                mounts.unmount(str(path / name))
        shutil.rmtree(path)

    def _path(self, uid: str) -> Path:
        if not uid or "/" in uid or uid.startswith("."):
            raise RuntimeFailure("CreatePodSandboxError", f"invalid pod uid {uid!r}")
        return self._folder / uid

    def _make(self, spec: SandboxSpec, path: Path) -> None:
        (path / "hostname").write_text(spec.hostname + "\n")
        record: dict[str, Any] = {
            "pod": asdict(spec.pod),
            "created": datetime.now(UTC).isoformat(),
            "pinned": _pinned(spec),
            "host_pid": spec.host_pid,
        }
        if not spec.host_ipc:
            (path / "shm").mkdir()
            flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
            mounts.mount("shm", str(path / "shm"), kind="tmpfs", flags=flags, data=f"mode=1777,size={_SHM_BYTES}")
            record["shm"] = True
        _in_thread(lambda: self._pin(spec, path, record))
        aside = path / ".sandbox.json"
        aside.write_text(json.dumps(record))
        aside.rename(path / "sandbox.json")

    def _pin(self, spec: SandboxSpec, path: Path, record: dict[str, Any]) -> None:
        """Runs in a thread of its own, which ends afterwards."""
        kinds: list[str] = record["pinned"]
        flags = {"net": mounts.NEWNET, "ipc": mounts.NEWIPC, "uts": mounts.NEWUTS, "pid": mounts.NEWPID}
        mounts.unshare(sum(flags[kind] for kind in kinds))
        if "uts" in kinds:
            socket.sethostname(spec.hostname)
        if "net" in kinds:
            _lo_up()
        _write_sysctls(spec, net="net" in kinds)
        tid = threading.get_native_id()
        sources = {kind: f"/proc/self/task/{tid}/ns/{kind}" for kind in kinds}
        if "pid" in kinds:
            pause = _start_pause()
            record["pause"], record["pause_started"] = pause, mounts.start_time(pause)
            sources["pid"] = f"/proc/{pause}/ns/pid"
            self._place(pause, spec.cgroup_parent)
        for kind in kinds:
            (path / kind).touch()
            mounts.mount(sources[kind], str(path / kind), flags=mounts.MS_BIND)

    def _place(self, pid: int, parent: str) -> None:
        if not parent:
            return
        group = f"{parent}/pause"
        for tree in self._hierarchy.trees():
            with contextlib.suppress(OSError):
                folder = tree / group.lstrip("/")
                folder.mkdir(parents=False, exist_ok=True)
                (folder / "cgroup.procs").write_text(str(pid))


def _pinned(spec: SandboxSpec) -> list[str]:
    wanted = {
        "net": not spec.host_network,
        "ipc": not spec.host_ipc,
        "uts": not spec.host_network,
        "pid": spec.share_process_namespace and not spec.host_pid,
    }
    return [kind for kind in _KINDS if wanted[kind]]


def _in_thread(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="sandbox") as threads:
        threads.submit(work).result()


def _lo_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(door, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(door, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _write_sysctls(spec: SandboxSpec, *, net: bool) -> None:
    for name, value in _DEFAULT_SYSCTLS.items() if net else ():
        with contextlib.suppress(OSError):
            _sysctl(name, value)
    for name, value in spec.sysctls.items():
        try:
            _sysctl(name, value)
        except OSError as error:
            raise OSError(error.errno, f'sysctl "{name}": {os.strerror(error.errno or 0)}') from error


def _sysctl(name: str, value: str) -> None:
    """Dots and slashes separate alike, as in sysctl(8): the first of the two seen is the separator."""
    slashed = name if "/" in name.partition(".")[0] else name.translate(str.maketrans("./", "/."))
    parts = slashed.split("/")
    if ".." in parts:
        raise OSError(22, "invalid name")
    Path("/proc/sys", *parts).write_text(value)


def _start_pause() -> int:
    child = subprocess.Popen(
        ["sh", "-c", 'trap "" CHLD HUP INT TERM; exec sleep infinity'],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=clean_environment(),
        start_new_session=True,
    )
    child.returncode = 0  # collected by `_end_pause`: nobody calls Popen.wait
    return child.pid


def _end_pause(record: dict[str, Any]) -> None:
    pid = int(record.get("pause", 0))
    if pid and mounts.start_time(pid) == record.get("pause_started"):
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                _wait_readable(descriptor)
            finally:
                os.close(descriptor)
        reap(pid)


def _wait_readable(descriptor: int) -> None:
    select.select([descriptor], [], [], 2.0)


def _record(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((path / "sandbox.json").read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def _load(path: Path) -> Sandbox | None:
    """The sandbox in `path` if all of it is alive."""
    record = _record(path)
    if not record:
        return None
    kinds: list[str] = record["pinned"]
    if not all(mounts.is_namespace(path / kind) for kind in kinds):
        return None
    if "pause" in record and mounts.start_time(record["pause"]) != record["pause_started"]:
        return None
    shm = path / "shm"
    if record.get("shm") and not os.path.ismount(shm):
        return None
    paths = {kind: str(path / kind) if kind in kinds else "" for kind in _KINDS}
    return Sandbox(
        pod=PodRef(**record["pod"]),
        shm=shm if record.get("shm") else None,
        created_at=datetime.fromisoformat(record["created"]),
        host_pid=bool(record.get("host_pid")),
        **paths,
    )
