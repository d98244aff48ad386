"""Facts of the machine a node runs on: size, names, pressure. Blocking reads of /proc, /sys and /etc, all quick."""

import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "riscv64": "riscv64"}

_LITTLE = 16 << 20  # bytes of memory that are no news


@dataclass(frozen=True, slots=True)
class Machine:
    """What hardly changes while we run: see `resized`."""

    cpus: int
    memory: int
    machine_id: str
    boot_id: str
    system_uuid: str
    kernel: str
    os_image: str
    architecture: str
    huge_pages: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    total: int
    available: int
    inodes: int
    inodes_free: int


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def meminfo() -> dict[str, int]:
    """Bytes by name."""
    found: dict[str, int] = {}
    for line in _text("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (1024 if len(words) > 1 else 1)
    return found


def available_memory() -> int:
    return meminfo().get("MemAvailable", 0)


def disk(path: Path) -> Disk:
    """Of the file system that holds `path` or its nearest parent that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    info = os.statvfs(path)
    return Disk(info.f_blocks * info.f_frsize, info.f_bavail * info.f_frsize, info.f_files, info.f_favail)


def read_machine(data_dir: Path) -> Machine:
    """`data_dir` keeps the made-up ids of machines that have none."""
    boot = _text("/proc/sys/kernel/random/boot_id")
    machine_id = _text("/etc/machine-id") or _text("/var/lib/dbus/machine-id") or _own_id(data_dir)
    uuid = _text("/sys/class/dmi/id/product_uuid") or _text("/proc/device-tree/serial-number").strip("\x00") or machine_id
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        memory=meminfo().get("MemTotal", 0),
        machine_id=machine_id,
        boot_id=boot,
        system_uuid=uuid,
        kernel=platform.release(),
        os_image=_os_image(),
        architecture=ARCHITECTURES.get(platform.machine(), platform.machine()),
    )


def resized(machine: Machine) -> Machine:
    """The same with what it has of processors and memory now: a virtual machine may be given more, or lose some, while it runs."""
    cpus, memory = len(os.sched_getaffinity(0)), meminfo().get("MemTotal", 0)
    if cpus == machine.cpus and abs(memory - machine.memory) < _LITTLE:
        return machine
    return replace(machine, cpus=cpus, memory=memory)


def _own_id(data_dir: Path) -> str:
    path = data_dir / "machine-id"
    found = _text(str(path))
    if not found:
        found = os.urandom(16).hex()
        data_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(found + "\n")
    return found


def _os_image() -> str:
    for line in _text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip('"')
    return platform.system()
