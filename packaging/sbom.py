"""The bill of materials: a CycloneDX file that names what is really inside the binary, each with version, origin and hash.

Python packages are those of the lock of which a file was packed; the rest came from packages of the Debian it was built on.
"""

import ast
import csv
import hashlib
import json
import platform
import re
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email import message_from_string
from pathlib import Path
from typing import Any

_LAUNCHER = {"libc6-dev", "libzstd-dev"}  # what it is statically linked with


def write(output: Path, *, binary: Path, version: str, work: Path, site_packages: Path, locks: list[Path], epoch: int) -> None:
    """Write the bill of `binary`, which was just frozen in `work`."""
    digest = hashlib.sha256(binary.read_bytes()).hexdigest()
    sources = set(_sources(work / "pyinstaller" / "edgekube"))
    components = [*_python(sources, site_packages, _hashes(locks)), *_debian(path for path in sources if site_packages not in path.parents)]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat(),
            "component": {
                "type": "application",
                "bom-ref": "edgekube",
                "name": "edgekube",
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": digest}],
                "properties": [{"name": "architecture", "value": platform.machine()}],
            },
        },
        "components": sorted(components, key=lambda each: str(each["purl"])),
    }
    output.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n")


def write_sums(folder: Path) -> None:
    """SHA256SUMS of everything that was built into `folder`, as sha256sum(1) reads it."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.glob("edgekube-*"))]
    (folder / "SHA256SUMS").write_text("".join(lines))


def _sources(pyinstaller: Path) -> Iterator[Path]:
    """The files that were packed, where the build took them from."""
    for name, place in (("PYZ-00.toc", 1), ("COLLECT-00.toc", 0), ("PKG-00.toc", 2)):
        for entry in ast.literal_eval((pyinstaller / name).read_text())[place]:
            if entry[1].startswith("/") and pyinstaller not in (path := Path(entry[1])).parents:
                yield path


def _hashes(locks: list[Path]) -> Mapping[str, list[str]]:
    """Package -> SHA-256 of the files that may be installed for it."""
    found: dict[str, list[str]] = {}
    for lock in locks:
        name = ""
        for line in lock.read_text().splitlines():
            name = line.partition("==")[0] if "==" in line else name
            if digest := re.search(r"--hash=sha256:(\w+)", line):
                found.setdefault(name, []).append(digest[1])
    return found


def _python(sources: set[Path], site_packages: Path, hashes: Mapping[str, list[str]]) -> Iterator[dict[str, Any]]:
    for metadata in sorted(site_packages.glob("*.dist-info")):
        with (metadata / "RECORD").open(newline="") as record:
            files = {site_packages / row[0] for row in csv.reader(record)}
        if not files & sources:
            continue
        about = message_from_string((metadata / "METADATA").read_text())
        name, version = about["Name"].lower().replace("_", "-"), about["Version"]
        if name not in hashes:
            raise SystemExit(f"build: {name} was packed but is not in the lock")
        yield _component(
            name,
            version,
            f"pkg:pypi/{name}@{version}",
            terms=about["License-Expression"] or about["License"] or "",
            hashes=hashes[name],
        )


def _debian(files: Iterator[Path]) -> Iterator[dict[str, Any]]:
    """The Debian packages that own these files; dpkg knows some by their place before /usr was merged."""
    names = sorted({each for path in files for each in (str(path), str(path).removeprefix("/usr"), str(path.resolve()))})
    found = subprocess.run(["dpkg", "-S", *names], check=False, capture_output=True, text=True).stdout
    packages = sorted(_LAUNCHER | {line.partition(": ")[0].partition(", ")[0] for line in found.splitlines()})
    form = "${binary:Package} ${Version} ${Architecture}\n"
    text = subprocess.run(["dpkg-query", "-W", "-f", form, *packages], check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        package, version, arch = line.split()
        name = package.partition(":")[0]
        yield _component(name, version, f"pkg:deb/debian/{name}@{version}?arch={arch}", terms="", hashes=[])


def _component(name: str, version: str, purl: str, *, terms: str, hashes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if terms and "\n" not in terms:
        found["licenses"] = [{"license": {"name": terms}}]
    if hashes:  # a component's own hashes would be of one file; the lock allows one for each architecture
        found["properties"] = [{"name": "wheel-sha256", "value": digest} for digest in hashes]
    return found
