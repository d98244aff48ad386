#!/usr/bin/env python3
"""Build the one file that users install: dist/edgekube-<version>-linux-<arch>.

    packaging/build.py                    for this machine's architecture
    packaging/build.py --arch arm64       on amd64: in a Debian of that architecture (foreign.py); 10 minutes and more
    packaging/build.py --quick            less compressed: a few seconds faster, a third larger
    packaging/build.py --pack FOLDER OUT  only pack a folder with a program `edgekube` behind the launcher (tests do)

Needs Debian 12 (what is built on a newer system would need its newer glibc) with python3, python3-venv, libpython3.11, binutils, gcc,
libc6-dev, libzstd-dev and zstd, and a package index. Two builds of the same tree give the same bytes.

The steps: environment of the locked dependencies, PyInstaller (freeze.py), launcher and payload (payload.py), bill of materials (sbom.py).
"""

import argparse
import platform
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import foreign
import freeze
import payload
import sbom

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TOOLS = {"gcc": "gcc libc6-dev libzstd-dev", "objdump": "binutils", "strip": "binutils", "zstd": "zstd"}


def version() -> str:
    found = re.search(r'^__version__ = "([^"]+)"', (ROOT / "edgekube" / "__init__.py").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("build: edgekube/__init__.py names no version")
    return found[1]


def build(output: Path, work: Path, *, python: str, level: int, clean: bool) -> Path:
    """The binary for this machine. `work` keeps the environment for the next build."""
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise SystemExit(f"build: tools are missing: apt-get install {' '.join(missing)}")
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    work.mkdir(parents=True, exist_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    environment = freeze.environment(work, python, clean=clean)
    say("the environment has what is locked")
    folder = freeze.freeze(environment, ROOT, work)
    glibc = freeze.floor(folder)
    say(f"frozen; needs glibc 2.{glibc}")
    payload.compile_launcher(work / "launcher")
    target = output / name()
    interpreter = freeze.interpreter(folder)
    payload.pack(folder, work / "launcher", target, version=version(), interpreter=interpreter, glibc_minor=glibc, level=level)
    bill(target, work, environment)
    say(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return target


def name() -> str:
    return f"edgekube-{version()}-linux-{ARCHITECTURES[platform.machine()]}"


def bill(target: Path, work: Path, environment: Path) -> None:
    """The bill of materials and the sums, of what was frozen last in `work`."""
    sbom.write(
        target.with_name(target.name + ".cdx.json"),
        binary=target,
        version=version(),
        work=work,
        site_packages=next(environment.parent.parent.glob("lib/python3*/site-packages")),
        locks=[freeze.HERE / name for name in freeze.LOCKS],
        epoch=int(freeze.EPOCH),
    )
    sbom.write_sums(target.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the one file that users install.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where the binary goes (default dist)")
    parser.add_argument("--work", type=Path, default=ROOT / "build", help="where the build works and keeps its environment (default build)")
    parser.add_argument("--python", default="/usr/bin/python3", help="CPython 3.11 with a shared library (default /usr/bin/python3)")
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES.values()), help="architecture (default: this machine's)")
    parser.add_argument("--quick", action="store_true", help="compress less")
    parser.add_argument("--clean", action="store_true", help="make the environment anew")
    parser.add_argument("--only-bill", action="store_true", help=argparse.SUPPRESS)  # after compressing outside (foreign.py)
    parser.add_argument("--pack", nargs=2, type=Path, metavar=("FOLDER", "OUT"), help="only pack FOLDER")
    arguments = parser.parse_args()
    if arguments.pack:
        folder, target = arguments.pack
        with tempfile.TemporaryDirectory() as scratch:
            launcher = Path(scratch) / "launcher"
            payload.compile_launcher(launcher)
            payload.pack(folder, launcher, target, version="0", level=payload.QUICK)
        return
    level = payload.QUICK if arguments.quick else payload.BEST
    if arguments.arch not in (None, ARCHITECTURES[platform.machine()]):
        flags = ["--clean"] if arguments.clean else []
        foreign.build(arguments.arch, ROOT, arguments.output.resolve(), arguments.work.resolve(), *flags, level=level)
        return
    if arguments.only_bill:
        bill(arguments.output / name(), arguments.work, freeze.environment(arguments.work, arguments.python))
        return
    build(arguments.output.resolve(), arguments.work.resolve(), python=arguments.python, level=level, clean=arguments.clean)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was set up on the machine is taken away
    main()
