"""The whole process on one node: start, memory, idle CPU and disk writes, pods per second. Needs root, podman, network namespaces.

Floor: the same number of containers by the bare OCI runtime is measured by `tests.bench.runtime`; here the rows of interest are seconds and
megabytes of the whole. Idle time is 60 s by default (`EDGEKUBE_BENCH_IDLE=1800` for the full half hour).
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.manifests import IMAGE, pod
from tests.kit.cluster import Cluster, cluster, wait_until
from tests.kit.images import archive

IDLE_SECONDS = float(os.environ.get("EDGEKUBE_BENCH_IDLE", "60"))
TICKS = os.sysconf("SC_CLK_TCK")


def row(name: str, value: object, aim: str = "") -> None:
    print(f"{name:<58}{value!s:>18}   {aim}", flush=True)


def starts(c: Cluster, count: int = 5) -> float:
    """Median seconds from exec to the line that says it is ready."""
    taken = []
    for _ in range(count):
        c.stop()
        began = time.monotonic()
        c.start()
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


def process_set(c: Cluster) -> list[int]:
    """edgekube, its podman service and every conmon of it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(c.run_dir) in line and "nsenter" not in line.split(" ")[0]:
                found.append(int(entry.name))
    return found


def pss(pid: int) -> int:
    """Proportional set size in bytes."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def written(pid: int) -> int:
    return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/io").read_text().splitlines() if line.startswith("write_bytes"))


def wakeups(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += next(int(line.split()[1]) for line in (task / "status").read_text().splitlines() if line.startswith("voluntary_ctxt"))
    return total


def pod_latency(c: Cluster, count: int = 10) -> tuple[float, float]:
    """Median and worst milliseconds from the create call to phase Running, one pod at a time, seen through a watch."""
    import subprocess

    taken = []
    watch = subprocess.Popen(c.kubectl_argv("get", "pods", "-w", "-o", "json", "--output-watch-events"), stdout=subprocess.PIPE)
    decoder, buffer = json.JSONDecoder(), ""

    def events():
        nonlocal buffer
        while True:
            buffer += os.read(watch.stdout.fileno(), 1 << 16).decode()
            while True:
                try:
                    found, end = decoder.raw_decode(buffer.lstrip())
                except ValueError:
                    break
                buffer = buffer.lstrip()[end:]
                yield found["object"]

    stream = events()
    for n in range(count):
        name = f"lat-{n}"
        c.apply(pod(name, "sleep 600"))
        created = running = 0.0
        for obj in stream:
            if obj["metadata"]["name"] == name:
                created = created or time.monotonic()
                if obj.get("status", {}).get("phase") == "Running":
                    running = time.monotonic()
                    break
        taken.append((running - created) * 1000)
    watch.kill()
    watch.wait()
    watch.stdout.close()
    return statistics.median(taken), max(taken)


def fifty(c: Cluster) -> float:
    """Pods per second for one Deployment of 50."""
    manifest = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: fifty}}
spec:
  replicas: 50
  selector: {{matchLabels: {{app: fifty}}}}
  template:
    metadata: {{labels: {{app: fifty}}}}
    spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, image: "{IMAGE}", command: [sleep, "600"]}}]}}
"""
    began = time.monotonic()
    c.apply(manifest)
    wait_until(lambda: c.get("deployment", "fifty")["status"].get("readyReplicas") == 50, seconds=120)
    rate = 50 / (time.monotonic() - began)
    c.kubectl("delete", "deployment", "fifty")
    wait_until(lambda: c.get("pods", "-l", "app=fifty")["items"] == [], seconds=120)
    return rate


def idle(c: Cluster) -> None:
    server = c.process.pid
    others = [pid for pid in process_set(c) if pid != server]
    row("memory of the edgekube process (PSS, MB)", f"{pss(server) / 1e6:.1f}", "aim <= 80")
    row("memory of the whole set with 10 pods (PSS, MB)", f"{(pss(server) + sum(map(pss, others))) / 1e6:.1f}", "aim <= 150")
    cpu, disk, woken, began = cpu_seconds(server), written(server), wakeups(server), time.monotonic()
    others_cpu = sum(cpu_seconds(pid) for pid in others)
    time.sleep(IDLE_SECONDS)
    spent = time.monotonic() - began
    row("idle CPU of edgekube with 10 pods (% of a core)", f"{(cpu_seconds(server) - cpu) / spent * 100:.2f}", "aim <= 1")
    row("idle CPU of its helpers (% of a core)", f"{(sum(cpu_seconds(p) for p in others) - others_cpu) / spent * 100:.2f}")
    row(f"idle disk writes in {spent:.0f} s (kB)", f"{(written(server) - disk) / 1e3:.1f}", "aim <= 100 in 30 min")
    row("idle wake-ups per second", f"{(wakeups(server) - woken) / spent:.1f}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, cluster() as c:
        image = Path(folder) / "busybox.tar"
        archive(image)
        c.edgekube("images", "import", str(image))
        floor = []
        for _ in range(5):
            began = time.monotonic()
            os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", "import asyncio, ssl, sqlite3"])
            floor.append(time.monotonic() - began)
        row("floor: python -c 'import asyncio, ssl, sqlite3' (s)", f"{statistics.median(floor):.3f}")
        row("exec to ready, later starts (s)", f"{starts(c):.3f}", "aim <= 1")
        middle, worst = pod_latency(c)
        row("pod created to Running, one at a time, p50 / max (ms)", f"{middle:.0f} / {worst:.0f}", "aim p50 <= 150")
        c.stop()
        c.start()
        time.sleep(5)
        idle(c)
        row("pods per second, one Deployment of 50", f"{fifty(c):.1f}", "aim >= 8")
