"""Controllers of control groups, without which the limits of pods do not hold; on a Raspberry Pi the firmware turns memory off.

There the kernel's command line is a file on the boot partition: /boot/firmware/cmdline.txt, before Raspberry Pi OS 12 /boot/cmdline.txt
(which since then only says where the file went). The firmware reads its first line alone.
"""

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from edgekube.app.checks.finding import Finding, Remedy
from edgekube.config import Settings
from edgekube.kubelet.runtime.cgroups import Hierarchy
from edgekube.lib.files import sync_folder
from edgekube.lib.receipt import Receipt

_BOOT_FILES = (Path("/boot/firmware/cmdline.txt"), Path("/boot/cmdline.txt"))
_WORDS = ("cgroup_memory=1", "cgroup_enable=memory")  # the first for the firmware's older kernels
_NEEDED = ("memory", "cpu", "pids")


def check_controllers(settings: Settings) -> Sequence[Finding]:
    if settings.disable_agent:
        return ()
    hierarchy = Hierarchy()
    return judge(hierarchy.controllers, version=2 if hierarchy.v2 else 1, boot_file=boot_file(), kernel_line=_read(Path("/proc/cmdline")))


def judge(controllers: Collection[str], *, version: int, boot_file: Path | None, kernel_line: str) -> list[Finding]:
    """Pure but for the boot file, which is only read."""
    proof = f"cgroup v{version} has: {', '.join(controllers) or 'none'}"
    found = [
        Finding(f"cgroup controller {name}", False, f"the kernel has no {name} controller: such limits of pods do not hold",
                "use a kernel with it", fatal=False, proof=proof)
        for name in _NEEDED if name not in controllers and name != "memory"
    ]  # fmt: skip
    if "memory" not in controllers:
        found.append(_memory(boot_file, kernel_line, proof))
    return found or [Finding("cgroup controllers", True, f"{proof}")]


def _memory(boot_file: Path | None, kernel_line: str, proof: str) -> Finding:
    text = "memory limits of pods do not hold: the kernel's memory controller is off"
    if boot_file is None:
        fix = f"add '{_WORDS[1]}' to the kernel's command line and reboot (with GRUB: GRUB_CMDLINE_LINUX in /etc/default/grub, update-grub)"
        return Finding("cgroup controller memory", False, text, fix, fatal=False, proof=proof)
    wanted = plan_cmdline(_read(boot_file))
    if wanted is None:
        done = [word for word in _WORDS if word in kernel_line.split()]
        why = f"{boot_file} asks for it, but this kernel was started without: reboot" if not done else "this kernel does not have it"
        return Finding("cgroup controller memory", False, text, why, fatal=False, proof=proof)
    fix = f"add '{' '.join(_WORDS)}' to the end of the one line of {boot_file}, then reboot"
    remedy = Remedy(f"add '{' '.join(_WORDS)}' to {boot_file}: it holds after a reboot", lambda receipt: edit(boot_file, receipt))
    return Finding("cgroup controller memory", False, text, fix, fatal=False, proof=proof, remedy=remedy)


def boot_file(candidates: Sequence[Path] = _BOOT_FILES) -> Path | None:
    """Where the command line is kept on this machine, if in such a file at all."""
    for path in candidates:
        if path.is_file() and not _read(path).startswith("DO NOT EDIT"):
            return path
    return None


def plan_cmdline(text: str) -> str | None:
    """The file with our words in its first line; None if they are there, or if it is no command line. What turns it off goes."""
    first, newline, rest = text.lstrip("\n").partition("\n")
    words = first.split()
    if not any(word.startswith("root=") for word in words):
        return None
    kept = [word for word in words if word != "cgroup_disable=memory" and not (word.startswith("cgroup_memory=") and word != _WORDS[0])]
    wanted = kept + [word for word in _WORDS if word not in kept]
    return None if wanted == words else " ".join(wanted) + (newline or "\n") + rest


def edit(path: Path, receipt: Receipt) -> None:
    """The boot partition is FAT: no modes, but a rename is one step. The old file is kept by the receipt."""
    wanted = plan_cmdline(path.read_text())
    if wanted is None:
        return
    receipt.note_file(path)
    aside = path.with_name(f"{path.name}.new")
    with aside.open("w") as file:
        file.write(wanted)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    with contextlib.suppress(OSError):
        sync_folder(path.parent)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").replace("\r\n", "\n")
    except OSError:
        return ""
