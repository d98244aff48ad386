"""Is a file a program for this machine, whole, and which version? Everything that can be known before anything is stopped.

Reads the file and runs it twice (`version`, `check --self`), which also lets it unpack itself before the clock of a trial runs.
"""

import hashlib
import os
import platform
import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekube.lib.process import clean_environment

_MAGIC = b"EDGEKUBE-PAYLOAD"
_FOOTER = struct.Struct("<QQ8x32s32x64x8x32x16s")  # packaging/launcher/launcher.h: offset, length, sha256, magic
_ELF = b"\x7fELF"
_MACHINES = {62: "x86_64", 183: "aarch64", 40: "armv7l", 3: "i686", 243: "riscv64"}
_SECONDS = 180  # a slow card unpacks
_USAGE = 2


class Refused(Exception):
    """Not this file. The message is one line."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What it says of itself."""

    version: str
    digest: str


def check_file(file: Path) -> str:
    """Before it is copied or run: kind, architecture, checksum; its SHA-256. Raises Refused, OSError."""
    if not file.is_file():
        raise Refused(f"{file} is no file" if file.exists() else f"{file} does not exist")
    with file.open("rb") as opened:
        start = opened.read(20)
        opened.seek(0)
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if start.startswith(_ELF) and len(start) == 20:
        number = int.from_bytes(start[18:20], "little")
        made_for, here = _MACHINES.get(number, f"machine type {number}"), platform.machine()
        if made_for != here:
            raise Refused(f"{file} is a program for {made_for}, this machine is {here}")
    elif not start.startswith(b"#!"):
        raise Refused(f"{file} is no program: it is damaged or another file")
    if not _payload_fits(file):
        raise Refused(f"{file} is damaged: what is packed in it is not what its end says; copy it again")
    expected = _listed(file)
    if expected and expected != digest:
        raise Refused(f"{file} is damaged: its checksum is not the one in {file.with_name('SHA256SUMS')}")
    return digest


def _payload_fits(file: Path) -> bool:
    """The launcher looks at what it unpacks, but a version that is unpacked already it does not unpack again (packaging/launcher)."""
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        if size < _FOOTER.size:
            return True
        opened.seek(size - _FOOTER.size)
        offset, length, payload, magic = _FOOTER.unpack(opened.read())
        if magic != _MAGIC:
            return True  # not packed: a script, another kind of program
        opened.seek(offset)
        left, found = length, hashlib.sha256()
        while left > 0 and (data := opened.read(min(left, 1 << 20))):
            found.update(data)
            left -= len(data)
    return left == 0 and found.digest() == bytes(payload)


def _listed(file: Path) -> str:
    """What SHA256SUMS beside it says; "" if it says nothing."""
    try:
        text = file.with_name("SHA256SUMS").read_text(errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        found = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line)
        if found and found[2].removeprefix("./") == file.name:
            return found[1].lower()
    return ""


def ask(program: Path, *, data: Path, name: str = "") -> str:
    """Its version, once it has said that it is whole. `name`: what to call it. Raises Refused."""
    name = name or str(program)
    code, said = _run(program, "version", f"--data-dir={data}")
    found = re.search(r"^edgekube (\S+) \(", said, re.M)
    if code != 0 or found is None:
        raise Refused(f"{name} does not run here: {_last(said) or f'exit code {code}'}")
    code, said = _run(program, "check", "--self", f"--data-dir={data}")
    if code not in (0, _USAGE):  # an old one does not know the question
        raise Refused(f"{name} is not whole: {_last(said) or f'exit code {code}'}")
    return found[1]


def _run(program: Path, *arguments: str) -> tuple[int, str]:
    try:
        done = subprocess.run(
            [str(program), *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            env=clean_environment(),
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        return 1, f"`{' '.join(arguments[:1])}` did not end within {_SECONDS} s"
    except OSError as error:
        return 1, error.strerror or str(error)
    return done.returncode, done.stdout.decode(errors="replace")


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("edgekube: ")[:300] if lines else ""


def order(version: str) -> tuple[Sequence[int], bool, Sequence[tuple[bool, int, str]]]:
    """A key to compare versions by, as semver does: 0.9.0 < 0.10.0-rc.1 < 0.10.0. What follows a + does not count."""
    core, _, pre = version.partition("+")[0].partition("-")
    numbers = [int(part) if part.isdigit() else 0 for part in core.removeprefix("v").split(".")]
    parts = [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in pre.split(".")] if pre else []
    return [*numbers, 0, 0, 0][:3], not pre, parts


def installed_digest(program: Path) -> str:
    """Of what is installed; "" if that is not a file of its own (a link into a Python environment)."""
    if os.path.islink(program) or not program.is_file():
        return ""
    with program.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
