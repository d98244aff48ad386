"""From the source tree and the lock to a folder that runs: a clean environment, PyInstaller, the shell of a library, the floor of glibc."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import contents

HERE = Path(__file__).parent
GLIBC_FLOOR = 35  # 2.35: Ubuntu 22.04. Debian 12 and Raspberry Pi OS 12 have 2.36
EPOCH = "1700000000"  # the time of all files inside archives
LOCKS = ("requirements.lock", "build-requirements.lock")


def environment(work: Path, python: str, *, clean: bool = False) -> Path:
    """The Python of an environment that has exactly what is locked. It is kept for the next build with the same locks."""
    stamp = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in LOCKS) + python.encode()).hexdigest()[:16]
    folder = work / f"venv-{stamp}"
    if clean or not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        locks = [argument for name in LOCKS for argument in ("-r", str(HERE / name))]
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*command, "--require-hashes", "--no-deps", "--only-binary=:all:", *locks], check=True)
        (folder / "complete").touch()
    return folder / "bin" / "python"


_SURVEY = """
import json, sys
from edgekube.cli.inventory import survey
try:
    print(json.dumps(survey(sys.argv[1:])))
except ValueError as error:
    sys.exit(f"build: {error}: see packaging/contents.py")
"""


def inventory(python: Path, source: Path, output: Path) -> None:
    """What must be inside, written where the spec and `edgekube check --self` find it."""
    variables = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(python), "-c", _SURVEY, *contents.LEFT_OUT]
    done = subprocess.run(command, check=False, env=variables, stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    output.write_bytes(done.stdout)


def freeze(python: Path, source: Path, work: Path) -> Path:
    """The folder with the program `edgekube` and, in `lib`, all it needs."""
    for stale in (work / "pyinstaller", work / "frozen"):
        shutil.rmtree(stale, ignore_errors=True)
    inventory(python, source, work / "inventory.json")
    variables = os.environ | {
        "EDGEKUBE_INVENTORY": str(work / "inventory.json"),
        "EDGEKUBE_SOURCE": str(source),
        "EDGEKUBE_PACKAGING": str(HERE),
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": EPOCH,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYINSTALLER_CONFIG_DIR": str(work / "cache"),
        "LC_ALL": "C.UTF-8",
    }
    log = work / "pyinstaller.log"
    command = [str(python), "-m", "PyInstaller", "--noconfirm", "--distpath", str(work / "frozen"), "--workpath", str(work / "pyinstaller")]
    with log.open("wb") as out:
        done = subprocess.run([*command, str(HERE / "edgekube.spec")], check=False, env=variables, stdout=out, stderr=out, cwd=work)
    if done.returncode != 0:
        raise SystemExit("build: PyInstaller failed:\n" + "\n".join(log.read_text().splitlines()[-20:]))
    folder = work / "frozen" / "edgekube"
    for metadata in folder.glob("lib/*.dist-info"):
        shutil.rmtree(metadata)  # nothing reads it; the bill of materials stands beside the binary
    _shell_of_expat(folder / "lib")
    return folder


def _shell_of_expat(libraries: Path) -> None:
    """libpython is linked with libexpat, for XML that nothing here reads. The real one needs glibc 2.36; this one has only its names."""
    text = subprocess.run(
        ["objdump", "-T", *map(str, libraries.glob("libpython3*.so*"))], check=True, capture_output=True, text=True
    ).stdout
    names = sorted(set(re.findall(r"\*UND\*.*?\b(XML_\w+)", text)))
    code = "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in names)
    command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-s", "-Wl,--build-id=none,-soname,libexpat.so.1", "-xc", "-"]
    subprocess.run([*command, "-o", str(libraries / "libexpat.so.1")], check=True, input=code.encode())


def programs(folder: Path) -> Iterator[Path]:
    """Everything in ELF format."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.open("rb").read(4) == b"\x7fELF":
            yield path


def floor(folder: Path) -> int:
    """The glibc 2.<n> that what is packed needs. Exits if that is newer than what was promised, naming who needs it."""
    newest, wanting = 0, []
    for path in programs(folder):
        text = subprocess.run(["objdump", "-T", str(path)], check=True, capture_output=True, text=True).stdout
        for minor, symbol in re.findall(r"GLIBC_2\.(\d+)\)?\s+(\w+)", text):
            newest = max(newest, int(minor))
            if int(minor) > GLIBC_FLOOR:
                wanting.append(f"{path.relative_to(folder)} needs {symbol} of glibc 2.{minor}")
    if wanting:
        raise SystemExit(f"build: not shipped, more than glibc 2.{GLIBC_FLOOR} is needed:\n" + "\n".join(sorted(set(wanting))))
    return newest


def interpreter(folder: Path) -> str:
    """The dynamic loader that the program names."""
    text = subprocess.run(["readelf", "-lW", str(folder / "edgekube")], check=True, capture_output=True, text=True).stdout
    found = re.search(r"program interpreter: (\S+)\]", text)
    if found is None:
        raise SystemExit("build: the frozen program names no dynamic loader")
    return found[1]
