"""Images without a registry: seconds per megabyte to import, and what a full images folder costs at the first and at later starts.

Floor: the same bytes through sha256 and through `podman load` of the same podman. Needs root, podman, network namespaces.
"""

import hashlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edgekube.kubelet.nodestatus import is_ready
from tests.kit.cluster import Cluster, cluster, wait_until
from tests.kit.images import archive

MEGABYTES = 200
FOLDER_FILES, FOLDER_BYTES = 5, 1 << 30


def row(name: str, value: object, aim: str = "") -> None:
    print(f"{name:<70}{value!s:>18}   {aim}", flush=True)


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def ready(c: Cluster) -> bool:
    return any(is_ready(node) for node in c.get("nodes")["items"])


def big(path: Path, tag: str, seed: int) -> Path:
    """Half of it compresses."""
    random.seed(seed)
    half = random.randbytes(MEGABYTES << 19)
    return archive(path, tags=(tag,), files={"random": half, "text": (b"%d all work and no play " % seed) * ((MEGABYTES << 19) // 24)})


def imports(base: Path) -> None:
    with cluster("--disable-discovery") as c:
        wait_until(lambda: ready(c))
        for suffix, program in (("", ()), (".gz", ("gzip", "-1")), (".zst", ("zstd", "-q", "--rm"))):
            path = big(base / f"big{suffix[1:]}.tar", f"example.org/big{suffix[1:]}:v1", len(suffix))
            if program:
                subprocess.run([*program, str(path)], check=True)
                path = path.with_name(path.name + suffix)
            taken = timed(lambda path=path: c.edgekube("images", "import", str(path)))
            row(f"import of {MEGABYTES} MB, {suffix or 'plain'}", f"{taken:.2f} s", f"{taken / MEGABYTES * 1000:.1f} ms/MB")
        storage = ["--root", str(base / "st"), "--runroot", str(base / "rr"), "--tmpdir", str(base / "tt")]
        floor = timed(lambda: subprocess.run(["podman", *storage, "load", "-q", "-i", str(base / "big.tar")], check=True, capture_output=True))
        row(f"floor: podman load of {MEGABYTES} MB, plain", f"{floor:.2f} s")


def folder(base: Path) -> None:
    small = archive(base / "small.tar", tags=("example.org/folder:v1",), files={"a": b"folder"})
    with cluster("--disable-discovery") as c:
        c.stop()
        row("start with an empty folder", f"{timed(c.start):.2f} s")
        c.stop()
        for number in range(FOLDER_FILES):
            copy = Path(shutil.copy(small, c.data / "images" / f"{number}.tar"))
            os.truncate(copy, FOLDER_BYTES)
        gigabytes = FOLDER_FILES * FOLDER_BYTES >> 30
        record = c.data / "images.json"
        began = time.monotonic()
        c.start()
        row(f"first start with {gigabytes} GB in the folder: ready", f"{time.monotonic() - began:.2f} s")
        wait_until(lambda: record.exists() and record.read_text().count("sha256\"") == FOLDER_FILES, seconds=300)
        row("  taken in, in the background", f"{time.monotonic() - began:.2f} s")
        c.stop()
        before = io_of()
        row(f"later start with {gigabytes} GB in the folder: ready", f"{timed(c.start):.2f} s")
        wait_until(lambda: ready(c))
        pid = c.process.pid if c.process else 0
        row("  read by the server since then", f"{(reads(pid)) / 1e6:.1f} MB", f"machine: {(io_of() - before) / 1e6:.1f} MB")
        sparse = c.data / "images" / "0.tar"
        row("  floor: sha256 of one of the files", f"{timed(lambda: digest(sparse)):.2f} s")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reads(pid: int) -> int:
    """rchar: also what the page cache answered."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def io_of() -> int:
    """Bytes read from the disks of this machine."""
    return sum(int(line.split()[5]) * 512 for line in Path("/proc/diskstats").read_text().splitlines() if not line.split()[2][-1:].isdigit())


def main() -> None:
    base = Path(tempfile.mkdtemp(prefix="ekb-"))
    try:
        imports(base)
        folder(base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
