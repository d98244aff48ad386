"""The built binary: the one that EDGEKUBE_BINARY names, else one built once for all tests of this checkout (a minute), less compressed."""

import fcntl
import functools
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build"


@functools.cache
def binary() -> Path:
    """Path of the binary. Built anew when the source is newer than what was built last."""
    if named := os.environ.get("EDGEKUBE_BINARY"):
        return Path(named).resolve()
    WORK.mkdir(exist_ok=True)
    with (WORK / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found := _built()) or found[0].stat().st_mtime < _newest():
            for stale in (WORK / "tests").glob("*"):
                stale.unlink()
            build(WORK / "tests", WORK)
            found = _built()
    return found[0]


def _built() -> list[Path]:
    return [path for path in (WORK / "tests").glob("edgekube-*") if path.suffix != ".json"]


def build(output: Path, work: Path, root: Path = ROOT) -> None:
    """packaging/build.py --quick of the checkout `root`."""
    command = [sys.executable, str(root / "packaging" / "build.py"), "--quick", f"--output={output}", f"--work={work}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _newest() -> float:
    """When the source was changed last."""
    sources = [path for folder in ("edgekube", "packaging", "systemd") for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    return max(path.stat().st_mtime for path in sources if path.is_file())


def pack(folder: Path, output: Path) -> Path:
    """`folder`, which has a program `edgekube`, behind the real launcher."""
    command = [sys.executable, str(ROOT / "packaging" / "build.py"), "--pack", str(folder), str(output)]
    subprocess.run(command, check=True, capture_output=True)
    return output
