#!/usr/bin/env python3
"""Write requirements.lock and build-requirements.lock: exact versions with the hashes of the files for each architecture.

    packaging/lock.py        needs a package index; run it to take newer versions, read the difference, commit it

The first is what edgekube itself needs (the dependencies of pyproject.toml), the second what only building needs.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = "3.11"
# glibc up to 2.34 is below every floor we promise; a wheel that needs more is not taken.
PLATFORMS = {
    machine: [f"manylinux2014_{machine}", *(f"manylinux_2_{minor}_{machine}" for minor in (17, 24, 26, 27, 28, 31, 34))]
    for machine in ("x86_64", "aarch64")
}


def resolve(requirements: Sequence[str], machine: str) -> dict[str, tuple[str, str]]:
    """name -> (version, sha256 of its wheel) of everything that is needed on this machine."""
    platforms = [argument for platform in PLATFORMS[machine] for argument in ("--platform", platform)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--dry-run",
            "--ignore-installed",
            "--only-binary=:all:",
            "--target",
            folder,
        ]
        command += ["--python-version", PYTHON, *platforms, "--report", str(report), *requirements]
        subprocess.run(command, check=True)
        found = json.loads(report.read_text())["install"]
    return {
        each["metadata"]["name"].lower().replace("_", "-"): (
            each["metadata"]["version"],
            each["download_info"]["archive_info"]["hash"].removeprefix("sha256="),
        )
        for each in found
    }


def write(output: Path, requirements: Sequence[str], pinned: Sequence[str] = ()) -> list[str]:
    """`pinned`: versions that are chosen already. Returns the versions written."""
    by_machine = {machine: resolve([*requirements, *pinned], machine) for machine in PLATFORMS}
    lines, versions = [f"# Made by packaging/{Path(__file__).name}; CPython {PYTHON}, glibc, {' and '.join(PLATFORMS)}."], []
    for name in sorted(set().union(*by_machine.values())):
        found = [packages[name] for packages in by_machine.values() if name in packages]
        if len({version for version, _ in found}) != 1:
            raise SystemExit(f"lock: {name} has different versions on different machines: {found}")
        versions.append(f"{name}=={found[0][0]}")
        lines.append(" \\\n    ".join([versions[-1], *(f"--hash=sha256:{digest}" for digest in sorted({digest for _, digest in found}))]))
    output.write_text("\n".join(lines) + "\n")
    return versions


def main() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    versions = write(HERE / "requirements.lock", project["project"]["dependencies"])
    wanted = (HERE / "build-requirements.in").read_text().split()
    write(HERE / "build-requirements.lock", wanted, [line for line in versions if line.split("==")[0] in ("packaging",)])


main()
