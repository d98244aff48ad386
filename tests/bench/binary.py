"""The one file against the source: size, unpacking, from exec to /readyz, memory; both in one run, one after the other.

Without EDGEKUBE_BINARY the released form is built first and its time told. Waiting for /readyz costs little beside the server: on a machine
with other load look at the CPU seconds. The first start of the binary unpacks it. EDGEKUBE_BENCH_ROUNDS are 5.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.node import cpu_seconds
from tests.kit import netns as ns
from tests.kit.binary import ROOT
from tests.kit.cluster import Cluster, cluster

ROUNDS = int(os.environ.get("EDGEKUBE_BENCH_ROUNDS", "5"))
SETTLE = 5.0  # seconds after readiness at which memory is read

# In the server's network: when is /readyz answered with 200?
_READY = """
import http.client, ssl, sys, time
context = ssl._create_unverified_context()
while True:
    try:
        door = http.client.HTTPSConnection("127.0.0.1", 6443, context=context, timeout=5)
        door.request("GET", "/readyz")
        if door.getresponse().status == 200:
            break
    except OSError:
        pass
    time.sleep(0.005)
print(time.monotonic())
"""


class Server(NamedTuple):
    """Seconds of the first start on an empty disk, of later ones (median and best), of the processor until ready; memory in kB."""

    first: float
    later: float
    best: float
    cpu: float
    rss: float
    anonymous: float


def main() -> None:
    named = os.environ.get("EDGEKUBE_BINARY")
    binary = Path(named).resolve() if named else _built()
    print(f"size of the file      {binary.stat().st_size / 1e6:8.1f} MB")
    with tempfile.TemporaryDirectory() as folder:
        first = _seconds([binary, "version", f"--data-dir={folder}"])
        later = statistics.median(_seconds([binary, "version", f"--data-dir={folder}"]) for _ in range(ROUNDS))
        unpacked = sum(path.stat().st_size for path in Path(folder, "data", "current").rglob("*") if path.is_file())
    source = statistics.median(_seconds([sys.executable, "-m", "edgekube", "version"]) for _ in range(ROUNDS))
    print(f"unpacked              {unpacked / 1e6:8.1f} MB")
    print(f"`version`             {first * 1e3:8.0f} ms first, {later * 1e3:.0f} ms later (source {source * 1e3:.0f} ms)")
    print(f"unpacking, once       {(first - later) * 1e3:8.0f} ms")
    programs = {"binary": (str(binary),), "source": (sys.executable, "-m", "edgekube")}
    found = {name: _server(program, ROUNDS) for name, program in programs.items()}
    for name, each in found.items():
        print(
            f"{name}: exec to /readyz {each.first:.2f} s first, {each.later:.2f} s later (best {each.best:.2f}, CPU {each.cpu:.2f});",
            end=" ",
        )
        print(f"RSS {each.rss / 1e3:.1f} MB, of it anonymous {each.anonymous / 1e3:.1f} MB")
    ratios = [mine / other for mine, other in zip(found["binary"], found["source"], strict=True)]
    print("binary / source       first {:.2f}, later {:.2f}, best {:.2f}, CPU {:.2f}, RSS {:.2f}, anonymous {:.2f}".format(*ratios))


def _built() -> Path:
    began = time.monotonic()
    subprocess.run([sys.executable, str(ROOT / "packaging" / "build.py")], check=True, stdout=subprocess.DEVNULL)
    print(f"build                 {time.monotonic() - began:8.1f} s")
    return max(ROOT.glob("dist/edgekube-*-linux-*[0-9]"), key=lambda path: path.stat().st_mtime)


def _seconds(argv: Sequence[object]) -> float:
    began = time.monotonic()
    subprocess.run([str(word) for word in argv], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _server(program: Sequence[str], rounds: int) -> Server:
    with cluster(start=False, program=program) as found:
        first = _readyz(found, lambda: found.start(wait=False))
        later, used, sizes = [], [], []
        for _ in range(rounds):
            found.stop()
            later.append(_readyz(found, lambda: found.start(wait=False)))
            assert found.process is not None
            used.append(cpu_seconds(found.process.pid))
            time.sleep(SETTLE)
            sizes.append(_memory(found.process.pid))
    rss, anonymous = (statistics.median(column) for column in zip(*sizes, strict=True))
    return Server(first, statistics.median(later), min(later), statistics.median(used), rss, anonymous)


def _readyz(found: Cluster, start: Callable[[], None]) -> float:
    with subprocess.Popen([*ns.enter_command(found.netns), sys.executable, "-c", _READY], stdout=subprocess.PIPE, text=True) as watcher:
        began = time.monotonic()
        start()
        out, _ = watcher.communicate(timeout=120)
    return float(out) - began


def _memory(pid: int) -> tuple[int, int]:
    """kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    rss, anonymous = (re.search(rf"{name}:\s+(\d+)", status) for name in ("VmRSS", "RssAnon"))
    assert rss is not None
    assert anonymous is not None
    return int(rss[1]), int(anonymous[1])
