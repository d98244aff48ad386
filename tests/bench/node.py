"""The whole process on one node: start, memory, idle CPU and disk writes, pods per second. Needs root, podman, network namespaces.

Floor: the same number of containers by the bare OCI runtime is measured by `tests.bench.runtime`; here the rows of interest are seconds and
megabytes of the whole. Idle time is 60 s by default (`EDGEKUBE_BENCH_IDLE=1800` for the full half hour).
"""

import base64
import http.client
import json
import os
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.manifests import IMAGE, pod
from tests.kit import netns
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


class Api:
    """One keep-alive TLS connection to the API server with the admin's certificate, from outside of the namespace."""

    def __init__(self, c: Cluster) -> None:
        with open(c.kubeconfig) as file:
            known = yaml.safe_load(file)
        with tempfile.NamedTemporaryFile() as credential:
            user = known["users"][0]["user"]
            credential.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            credential.flush()
            authority = base64.b64decode(known["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
            context = ssl.create_default_context(cadata=authority)
            context.load_cert_chain(credential.name)
        plain = netns.call_inside(c.netns, lambda: socket.create_connection(("127.0.0.1", 6443)))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = http.client.HTTPConnection("127.0.0.1")
        self._connection.sock = context.wrap_socket(plain, server_hostname="127.0.0.1")

    def create(self, path: str, body: object) -> None:
        self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status == 201, text

    def watch(self, path: str) -> Iterator[dict[str, Any]]:
        """Events, from now on."""
        self._connection.request("GET", path)
        for line in self._connection.getresponse():
            yield json.loads(line)


def pod_latency(c: Cluster, count: int = 10) -> tuple[float, float]:
    """Median and worst milliseconds from sending the create request to receiving the event with phase Running, one pod at a time."""
    path = "/api/v1/namespaces/default/pods"
    writing, watching = Api(c), Api(c)
    stream = watching.watch(f"{path}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan")
    next(event for event in stream if event["type"] == "BOOKMARK")
    taken = []
    for n in range(count):
        body = yaml.safe_load(pod(f"lat-{n}", "sleep 600000"))
        began = time.monotonic()
        writing.create(path, body)
        next(
            event
            for event in stream
            if event["object"]["metadata"].get("name") == f"lat-{n}" and event["object"].get("status", {}).get("phase") == "Running"
        )
        taken.append((time.monotonic() - began) * 1000)
    return statistics.median(taken), max(taken)


def stored_pod(number: int) -> dict[str, Any]:
    """About 6 KB as stored (2 KB of it managedFields), held back by a scheduling gate: it is stored and cached, nothing works on it."""
    env = [{"name": f"VARIABLE_{n}", "value": f"{number:06}" + "x" * 42} for n in range(24)]
    spec = {"schedulingGates": [{"name": "bench/held"}], "containers": [{"name": "main", "image": IMAGE, "env": env}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"stored-{number}", "labels": {"app": "stored"}}, "spec": spec}


def fill(c: Cluster, count: int = 10_000, connections: int = 8) -> float:
    """Store many pods; how many a second."""

    def some(first: int) -> None:
        api = Api(c)
        for number in range(first, count, connections):
            api.create("/api/v1/namespaces/default/pods", stored_pod(number))

    began = time.monotonic()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(some, range(connections)))
    return count / (time.monotonic() - began)


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

    def total(measure: Callable[[int], float]) -> float:
        return sum(map(measure, others))

    before = cpu_seconds(server), total(cpu_seconds), written(server), total(written), wakeups(server), time.monotonic()
    time.sleep(IDLE_SECONDS)
    after = cpu_seconds(server), total(cpu_seconds), written(server), total(written), wakeups(server), time.monotonic()
    cpu, others_cpu, disk, others_disk, woken, spent = (new - old for new, old in zip(after, before, strict=True))
    row("idle CPU of edgekube with 10 pods (% of a core)", f"{cpu / spent * 100:.2f}", "aim <= 1")
    row("idle CPU of its helpers (% of a core)", f"{others_cpu / spent * 100:.2f}")
    row(f"idle disk writes in {spent:.0f} s, ours + helpers (kB)", f"{disk / 1e3:.0f} + {others_disk / 1e3:.0f}", "aim <= 100 in 30 min")
    row("idle wake-ups per second", f"{woken / spent:.1f}", "aim <= 5")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, cluster(start=False) as c:
        began = time.monotonic()
        c.start()
        first = time.monotonic() - began
        image = Path(folder) / "busybox.tar"
        archive(image)
        c.edgekube("images", "import", str(image))
        floor = []
        for _ in range(5):
            began = time.monotonic()
            os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", "import asyncio, ssl, sqlite3"])
            floor.append(time.monotonic() - began)
        row("floor: python -c 'import asyncio, ssl, sqlite3' (s)", f"{statistics.median(floor):.3f}")
        row("exec to ready, first start (s)", f"{first:.3f}", "aim <= 1")
        row("exec to ready, later starts (s)", f"{starts(c):.3f}", "aim <= 1")
        middle, worst = pod_latency(c)
        row("pod created to Running, one at a time, p50 / max (ms)", f"{middle:.0f} / {worst:.0f}", "aim p50 <= 150")
        c.stop()
        c.start()
        time.sleep(5)
        idle(c)
        row("pods per second, one Deployment of 50", f"{fifty(c):.1f}", "aim >= 8")
        row("memory after those 50 came and went (PSS, MB)", f"{pss(c.process.pid) / 1e6:.1f}")
        row("pods of 6 KB created per second, 8 TLS connections", f"{fill(c):.0f}")
        row("memory right after 10,000 pods of 6 KB (PSS, MB)", f"{pss(c.process.pid) / 1e6:.1f}", "aim <= 150")
        row("exec to ready with 10,000 pods of 6 KB (s)", f"{starts(c, 3):.3f}", "aim <= 1.5")
        time.sleep(5)
        row("memory with 10,000 pods of 6 KB after a start (PSS, MB)", f"{pss(c.process.pid) / 1e6:.1f}", "aim <= 150")
