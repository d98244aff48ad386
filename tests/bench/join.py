"""From a token to a Ready node, what an agent costs while nothing happens, and what a hundred of them cost the server.

Times of joining run from exec to the Node's Ready condition as kubectl shows it, image storage empty. The hundred are tests.bench.crowd:
real connections, watches and leases, no containers; the server runs without a node of its own, so that its memory is the server's alone.
Needs root, podman, network namespaces. Idle time is 60 s (`EDGEKUBE_BENCH_IDLE`), agents are 100 (`EDGEKUBE_BENCH_AGENTS`).
"""

import contextlib
import json
import os
import statistics
import sys
import time
from types import SimpleNamespace

from edgekube.api import nodeidentity
from edgekube.lib import csr, pki
from edgekube.lib.clock import SystemClock
from tests.bench.node import Api, cpu_seconds, pss, row, wakeups, written
from tests.kit.nodes import fleet, wait_until

IDLE_SECONDS = float(os.environ.get("EDGEKUBE_BENCH_IDLE", "60"))
AGENTS = int(os.environ.get("EDGEKUBE_BENCH_AGENTS", "100"))
PROCESSES = 4


def joins(f, count=3):
    taken = []
    for number in range(count):
        machine = f.machine(f"join-{number}")
        token = f.token()
        began = time.monotonic()
        agent = f.add(machine, token=token)
        f.ready(agent)
        taken.append(time.monotonic() - began)
    row("token to Ready, median of 3 / worst (s)", f"{statistics.median(taken):.2f} / {max(taken):.2f}", "aim <= 5")
    return agent


def idle(agent):
    pid = agent.process.pid
    time.sleep(10)
    row("memory of an agent that has just joined (PSS, MB)", f"{pss(pid) / 1e6:.1f}", "aim <= 70")
    agent.stop()
    agent.start()
    agent.says("connected to the server")
    time.sleep(10)
    pid = agent.process.pid
    row("memory of an agent after a restart (PSS, MB)", f"{pss(pid) / 1e6:.1f}", "aim <= 70")
    before = cpu_seconds(pid), written(pid), wakeups(pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    after = cpu_seconds(pid), written(pid), wakeups(pid), time.monotonic()
    cpu, disk, woken, spent = (new - old for new, old in zip(after, before, strict=True))
    row("idle CPU of an agent (% of a core)", f"{cpu / spent * 100:.2f}", "aim <= 0.5")
    row(f"idle disk writes of an agent in {spent:.0f} s (kB)", f"{disk / 1e3:.0f}", "aim 0")
    row("idle wake-ups of an agent per second", f"{woken / spent:.1f}")


def mint(f, folder, count):
    """Credentials as joined nodes have them, and the pins that make them good."""
    authority, now = (f.server.data / "pki" / "ca.pem").read_bytes(), SystemClock().now()
    (folder / "ca.crt").write_bytes(pki.certificate_pem(authority))
    pins = []
    for number in range(count):
        name, key = f"sim-{number}", pki.create_key()
        subject = pki.Subject(f"system:node:{name}", ("system:nodes",), client=True)
        pki.write_secret(folder / f"{name}.pem", key + pki.sign(authority, subject, pki.load_key(key).public_key(), now))
        pins.append(nodeidentity.pinned(name, csr.parse(csr.make(key, subject)).key_digest, now, None))
    f.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": pins}))


@contextlib.contextmanager
def crowd(f, machine, count):
    share = -(-count // PROCESSES)
    logs, processes = [], []
    for first in range(0, count, share):
        logs.append(machine.base / f"crowd-{first}.log")
        argv = (sys.executable, "-m", "tests.bench.crowd", f.url, str(machine.base), str(first), str(min(share, count - first)))
        processes.append(machine.popen(*argv, log=logs[-1]))
    try:
        yield lambda: all("all registered" in log.read_text() for log in logs)
    finally:
        for process in processes:
            process.signal(9)
            process.wait()


def probe(f, seconds):
    """Milliseconds of single requests by another client."""
    api = Api(SimpleNamespace(kubeconfig=f.server.kubeconfig, netns=f"/proc/{f.server.machine.pid}/ns/net"))
    api.create("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "probe"}, "data": {"n": "0"}})
    requests = (
        ("GET", "/api/v1/nodes/sim-0", None),
        ("GET", "/api/v1/nodes?limit=500", None),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dsim-1", None),
        ("PATCH", "/api/v1/namespaces/default/configmaps/probe", {"data": {"n": str(time.time())}}),
    )
    taken, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        for method, path, body in requests:
            began = time.monotonic()
            headers = {"Content-Type": "application/merge-patch+json"}
            api._connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = api._connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            taken.append((time.monotonic() - began) * 1000)
        time.sleep(0.05)
    return sorted(taken)


def many():
    with fleet(agents=0, image=False, start=False, server_flags=("--disable-agent",)) as f:
        f.server.start()
        machine = f.machine("crowd")
        mint(f, machine.base, AGENTS)
        time.sleep(5)
        server = f.server.process.pid
        empty = pss(server)
        alone = probe_once(f)
        began = time.monotonic()
        with crowd(f, machine, AGENTS) as registered:
            wait_until(registered, seconds=300)
            row(f"{AGENTS} agents started to all registered (s)", f"{time.monotonic() - began:.1f}")
            time.sleep(20)
            full = pss(server)
            row("server without agents (PSS, MB)", f"{empty / 1e6:.1f}")
            row(f"server with {AGENTS} agents (PSS, MB)", f"{full / 1e6:.1f}")
            row("server memory per agent (MB)", f"{(full - empty) / 1e6 / AGENTS:.2f}", "aim <= 1")
            cpu, start = cpu_seconds(server), time.monotonic()
            time.sleep(IDLE_SECONDS / 2)
            row(
                f"server CPU with {AGENTS} idle agents (% of a core)",
                f"{(cpu_seconds(server) - cpu) / (time.monotonic() - start) * 100:.1f}",
            )
            taken = probe(f, IDLE_SECONDS / 2)
            row("API, p50 without agents (ms)", f"{alone:.1f}")
            row(
                "API, p50 / p99 with agents (ms)", f"{statistics.median(taken):.1f} / {taken[int(len(taken) * 0.99)]:.1f}", "aim p99 <= 100"
            )


def probe_once(f):
    api = Api(SimpleNamespace(kubeconfig=f.server.kubeconfig, netns=f"/proc/{f.server.machine.pid}/ns/net"))
    taken = []
    for _ in range(200):
        began = time.monotonic()
        api._connection.request("GET", "/api/v1/nodes?limit=500")
        api._connection.getresponse().read()
        taken.append((time.monotonic() - began) * 1000)
    return statistics.median(taken)


def main():
    with fleet(agents=0, image=False) as f:
        idle(joins(f))
    many()


if __name__ == "__main__":
    main()
