"""Build for another architecture: the same build in a Debian 12 of that architecture, its programs run by qemu-user.

Root, debootstrap and qemu-user-static are needed. The Debian below the work folder is kept for the next build. The machine is left as it
was: mounts live in a namespace of their own, the entry in binfmt_misc goes at the end unless it was there before.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import payload

SUITE = "bookworm"
PACKAGES = "python3 python3-venv libpython3.11 binutils gcc libc6-dev libzstd-dev zstd ca-certificates"
_QEMU = {"arm64": "qemu-aarch64-static", "amd64": "qemu-x86_64-static"}
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ELF = {
    "arm64": (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00", b"\xff" * 7 + bytes(9) + b"\xfe\xff\xff\xff"),
    "amd64": (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00", b"\xff" * 7 + bytes(9) + b"\xfe\xff\xff\xff"),
}
# In a mount namespace: the tree to build, read-only, the folder of results, and what programs expect. `$@` runs in the Debian.
_ENTER = """
set -eu
mount --make-rprivate /
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount --bind "$SOURCE" "$ROOT/source"
mount -o remount,bind,ro "$ROOT/source"
mount --bind "$OUTPUT" "$ROOT/output"
exec chroot "$ROOT" "$@"
"""


def build(arch: str, source: Path, output: Path, work: Path, *flags: str, level: int) -> None:
    """Writes the binary of `arch` into `output`, and lets it say its version and whether it is whole."""
    qemu = shutil.which(_QEMU[arch])
    if os.geteuid() != 0 or qemu is None or shutil.which("debootstrap") is None:
        raise SystemExit(f"build: building for {arch} here needs root and: apt-get install debootstrap qemu-user-static")
    root = work / f"debian-{arch}"
    output.mkdir(parents=True, exist_ok=True)
    build_there = ("/usr/bin/python3", "/source/packaging/build.py", "--output=/output", "--work=/work")
    with _runnable(arch, qemu):
        _debian(arch, root)
        _run(root, source, output, *build_there, "--quick", *flags)
        binary = max((path for path in output.glob(f"edgekube-*-linux-{arch}")), key=lambda path: path.stat().st_mtime)
        if level != payload.QUICK:
            payload.compress_again(binary, level)
            _run(root, source, output, *build_there, "--only-bill")
        _run(root, source, output, f"/output/{binary.name}", "version")
        _run(root, source, output, f"/output/{binary.name}", "check", "--self")


@contextlib.contextmanager
def _runnable(arch: str, qemu: str) -> Iterator[None]:
    """The kernel starts programs of `arch` with `qemu`. Flag F: it opens qemu now, so that the Debian inside needs no copy."""
    mounted = (_BINFMT / "register").exists()
    if not mounted:
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)], check=True)
    entry = _BINFMT / f"edgekube-build-{arch}"
    present = (_BINFMT / _QEMU[arch].removesuffix("-static")).exists()
    try:
        if not present and not entry.exists():  # one of ours may have been left by a build that was killed
            magic, mask = ("".join(f"\\x{byte:02x}" for byte in part) for part in _ELF[arch])
            (_BINFMT / "register").write_text(f":{entry.name}:M::{magic}:{mask}:{qemu}:F")
        yield
    finally:
        if not present and entry.exists():
            entry.write_text("-1")
        if not mounted:
            subprocess.run(["umount", str(_BINFMT)], check=False)


def _debian(arch: str, root: Path) -> None:
    """Whole, or made anew."""
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        include = PACKAGES.replace(" ", ",")
        subprocess.run(["debootstrap", f"--arch={arch}", "--variant=minbase", f"--include={include}", SUITE, str(root)], check=True)
        for folder in ("source", "output", "work"):
            (root / folder).mkdir()
        (root / "complete").touch()
    # How this machine reaches the package index: names, authorities, pip's configuration.
    for path in map(Path, ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")):
        if path.exists():
            shutil.copy(path, root / path.relative_to("/"))


def _run(root: Path, source: Path, output: Path, *argv: str) -> None:
    variables = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.lower().endswith("_proxy")}
    variables |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    variables |= {"ROOT": str(root), "SOURCE": str(source), "OUTPUT": str(output)}
    subprocess.run(["unshare", "-m", "sh", "-c", _ENTER, "enter", *argv], check=True, env=variables)
