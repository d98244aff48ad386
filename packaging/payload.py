"""The one file: launcher, payload, footer. The format is that of launcher/launcher.h and launcher/unpack.c.

The payload is one zstd frame of records; the order is that of the paths, no time and no owner is in it: equal folders give equal bytes.
"""

import hashlib
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

MANIFEST = "MANIFEST"
_FOOTER = struct.Struct("<QQQ32s32s64sII32s16s")
_RECORD = struct.Struct("<IIQ")
_MAGIC = b"EDGEKUBE-PAYLOAD"
_FLAGS = ("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-Wno-format-truncation", "-static", "-s", "-Wl,--build-id=none")
# 19 has a window of 8 MB: what the launcher needs in memory to unpack. Levels above win 2 % and need 128 MB.
BEST, QUICK = 19, 3


def compile_launcher(output: Path) -> None:
    """A static program of the machine this runs on."""
    sources = sorted((Path(__file__).parent / "launcher").glob("*.c"))
    subprocess.run(["gcc", *_FLAGS, "-o", str(output), *(path.name for path in sources), "-lzstd"], check=True, cwd=sources[0].parent)


def pack(
    folder: Path, launcher: Path, output: Path, *, version: str, interpreter: str = "", glibc_minor: int = 0, level: int = BEST
) -> None:
    """Write `output`: an executable that unpacks `folder` and runs `edgekube` in it."""
    manifest = "".join(_manifest(folder)).encode()
    (folder / MANIFEST).write_bytes(manifest)
    records = b"".join(_records(folder)) + _RECORD.pack(0, 0, 0)
    payload = _compress(records, level)
    unpacked = sum(path.stat().st_size for path in _entries(folder) if path.is_file() and not path.is_symlink())
    about = (unpacked, hashlib.sha256(manifest).digest(), interpreter.encode(), glibc_minor, 0, version.encode(), _MAGIC)
    _write(output, launcher.read_bytes(), payload, about)


def compress_again(binary: Path, level: int = BEST) -> None:
    """The same with more effort: what is built under emulation is compressed outside it."""
    data = binary.read_bytes()
    start, length, unpacked, _, *about = _FOOTER.unpack(data[-_FOOTER.size :])
    records = subprocess.run(["zstd", "-d", "-c", "-q"], input=data[start : start + length], check=True, capture_output=True).stdout
    _write(binary, data[:start], _compress(records, level), (unpacked, *about))


def _write(output: Path, launcher: bytes, payload: bytes, about: Sequence[object]) -> None:
    unpacked, *others = about
    footer = _FOOTER.pack(len(launcher), len(payload), unpacked, hashlib.sha256(payload).digest(), *others)
    fresh = output.with_name(output.name + ".new")
    fresh.write_bytes(launcher + payload + footer)
    fresh.chmod(0o755)
    fresh.rename(output)


def _entries(folder: Path) -> Sequence[Path]:
    return sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts)


def _mode(path: Path) -> int:
    """What it is, and whether it can be executed; nothing of the umask of the build."""
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        return stat.S_IFREG | (0o755 if mode & 0o100 else 0o644)
    return stat.S_IFDIR | 0o755 if stat.S_ISDIR(mode) else stat.S_IFLNK | 0o777


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return str(path.readlink()).encode()
    return path.read_bytes() if path.is_file() else b""


def _manifest(folder: Path) -> Iterator[str]:
    """One line an entry: SHA-256, mode, size, path. The launcher compares all but the hashes at every start; `check --self` those too."""
    for path in _entries(folder):
        if path.name != MANIFEST or path.parent != folder:
            content = _content(path)
            yield f"{hashlib.sha256(content).hexdigest()} {_mode(path):o} {len(content)} {path.relative_to(folder)}\n"


def _records(folder: Path) -> Iterator[bytes]:
    for path in _entries(folder):
        name, content = str(path.relative_to(folder)).encode(), _content(path)
        yield _RECORD.pack(_mode(path), len(name), len(content)) + name + content


def _compress(data: bytes, level: int) -> bytes:
    if shutil.which("zstd") is None:
        raise SystemExit("build: zstd was not found: install the package zstd")
    return subprocess.run(["zstd", f"-{level}", "--no-check", "-c", "-q"], input=data, check=True, capture_output=True).stdout
