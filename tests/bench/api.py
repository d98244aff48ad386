"""What the API server does over TLS, beside a bare aiohttp TLS server measured in the same run: python -m tests.bench.api

Server in a process of its own (memory store, real authentication, RBAC, admission); wrk for GET and PUT, this process for watches.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import resource
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PODS = 5000
CONNECTIONS = 50


def pod(name):
    """About 5.8 KB."""
    env = [{"name": f"VARIABLE_{number}", "value": "x" * 48} for number in range(62)]
    spec = {"containers": [{"name": "c", "image": "busybox:1.36", "env": env}], "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": "bench"}}, "spec": spec}


def serve(pipe, durable):
    """The server's process."""
    import uvloop

    uvloop.run(_serve(pipe, durable))


async def _serve(pipe, durable):
    from aiohttp import web

    from edgekube.api.catalog import CLUSTER_ROLE_BINDING, POD, SERVICE_ACCOUNT
    from edgekube.apiserver.codec import ListBody
    from edgekube.apiserver.front import server_context
    from edgekube.apiserver.registry import tagger
    from tests.kit.apiserver import live_server

    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        store = None
        if durable:
            from edgekube.store.sqlite import open_store

            store = await open_store(Path(folder) / "state.db", tagger=tagger)
        async with live_server(store) as live:
            with contextlib.suppress(Exception):
                await live.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": "default"}})
            binding = {
                "metadata": {"name": "bench"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
            }
            await live.client.create(CLUSTER_ROLE_BINDING, binding)
            token = await live.client.create(SERVICE_ACCOUNT, {"spec": {}}, "default", subresource="token", name="default")
            body = json.dumps(pod("bench")).encode()
            for number in range(CONNECTIONS):
                await live.client.create(POD, pod(f"bench-{number}"))

            async def bare(_request):
                return web.Response(body=body, content_type="application/json")

            floor = await loop.create_server(web.Server(bare), "127.0.0.1", 0, ssl=server_context(live.pki.apiserver, live.pki.ca))
            pipe.send((live.port, floor.sockets[0].getsockname()[1], token["status"]["token"], str(live.pki.ca)))
            while True:
                command = await asyncio.to_thread(pipe.recv)
                if command == "stop":
                    floor.close()
                    return
                if command == "rss":
                    pipe.send(_rss())
                elif command == "fill":
                    for start in range(0, PODS, 100):
                        await asyncio.gather(*(live.client.create(POD, pod(f"p-{start + n}")) for n in range(100)))
                    pipe.send("ok")
                elif command == "pod":
                    pipe.send(await live.client.get(POD, "bench-0", "default"))
                elif command == "cpu":
                    used = resource.getrusage(resource.RUSAGE_SELF)
                    pipe.send(used.ru_utime + used.ru_stime)
                elif command == "touch":
                    await live.client.patch(POD, "bench-0", "default", {"metadata": {"labels": {"t": str(time.monotonic_ns())[-6:]}}})
                    pipe.send(time.monotonic())
        assert ListBody


def _rss():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def wrk(url, token, seconds, script=""):
    """Requests per second and p99 in milliseconds."""
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-H", f"Authorization: Bearer {token}"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        if script:
            file.write(script)
            file.flush()
            argv += ["-s", file.name]
        out = subprocess.run([*argv, url], capture_output=True, text=True, check=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    if bad:
        print(f"  {bad.group(1)} requests failed", file=sys.stderr)
    return rate, float(p99.group(1)) * {"us": 0.001, "ms": 1, "s": 1000}[p99.group(2)]


PUT = """
local body = [==[%s]==]
local n = 0
request = function()
  n = n + 1
  local name = "bench-" .. (n %% %d)
  local text = body:gsub("NAME", name):gsub("SERIAL", tostring(n) .. tostring(os.clock()))
  return wrk.format("PUT", "/api/v1/namespaces/default/pods/" .. name, {["Content-Type"]="application/json", ["Authorization"]="Bearer %s"}, text)
end
"""


def put_script(token, stored):
    """Replaces pods by themselves with another label."""
    body = stored
    body["metadata"] = {"name": "NAME", "namespace": "default", "labels": {"app": "bench", "serial": "SERIAL"}}
    return PUT % (json.dumps(body), CONNECTIONS, token)


async def lists(port, token, context, ask):
    """Wall and CPU milliseconds of one LIST of all pods."""
    import aiohttp

    found = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}) as session:
        for _ in range(7):
            before, started = ask("cpu"), time.perf_counter()
            async with session.get(f"https://127.0.0.1:{port}/api/v1/pods", ssl=context) as response:
                size = 0
                async for chunk in response.content.iter_any():
                    size += len(chunk)
            found.append((1000 * (time.perf_counter() - started), 1000 * (ask("cpu") - before), size))
    return [statistics.median(column) for column in zip(*found, strict=True)]


async def watches(port, token, context, ask, count):
    """Latencies of one change to `count` watchers (ms), and the server's memory per watch (KB)."""
    before = ask("rss")
    connections = []
    request = (
        "GET /api/v1/namespaces/default/pods?watch=1&fieldSelector=metadata.name%3Dbench-0&sendInitialEvents=false"
        "&resourceVersionMatch=NotOlderThan HTTP/1.1\r\n"
        f"Host: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        connections.append((reader, writer))

    for start in range(0, count, 50):
        await asyncio.gather(*(connect() for _ in range(min(50, count - start))))
    memory = (ask("rss") - before) / count
    rounds = []
    for _ in range(9):
        arrived = []

        async def hear(reader, arrived=arrived):
            await reader.readuntil(b"}\n\r\n")
            arrived.append(time.monotonic())

        async with asyncio.TaskGroup() as group:
            for reader, _ in connections:
                group.create_task(hear(reader))
            await asyncio.sleep(0.3)
            committed = await asyncio.to_thread(ask, "touch")
        arrived.sort()
        rounds.append((1000 * (arrived[len(arrived) // 2] - committed), 1000 * (arrived[int(len(arrived) * 0.99) - 1] - committed)))
    for _, writer in connections:
        writer.close()
    return statistics.median(r[0] for r in rounds), statistics.median(r[1] for r in rounds), memory


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--memory-store", action="store_true", help="without the disk")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk was not found: install the package wrk")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, not options.memory_store))
    process.start()
    theirs.close()  # so that its death is noticed
    try:
        measure(options, ours)
    finally:
        ours.send("stop")
        process.join(20)
        if process.is_alive():
            process.kill()


def measure(options, pipe):
    port, floor, token, ca = pipe.recv()
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False

    def ask(what):
        pipe.send(what)
        return pipe.recv()

    def rates(url, script=""):
        runs = [wrk(url, token, options.seconds, script) for _ in range(options.runs)]
        return statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)

    def show(what, value, target):
        print(f"{what:<58}{value:>26}   {target}", flush=True)

    show("measurement", f"median of {options.runs} ({os.cpu_count()} cores)", "aim")
    rate, p99 = rates(f"https://127.0.0.1:{floor}/")
    show("bare aiohttp TLS server, GET of the same bytes", f"{rate:,.0f}/s p99 {p99:.1f} ms", "(floor)")
    rate, p99 = rates(f"https://127.0.0.1:{port}/api/v1/namespaces/default/pods/bench-0")
    show(f"GET pod, {CONNECTIONS} TLS connections", f"{rate:,.0f}/s p99 {p99:.1f} ms", ">= 10,000/s")
    rate, p99 = rates(f"https://127.0.0.1:{port}/", put_script(token, ask("pod")))
    show(f"PUT pod, {CONNECTIONS} TLS connections", f"{rate:,.0f}/s p99 {p99:.1f} ms", ">= 2,000/s")
    time.sleep(2)  # what the load left under way
    one, last, memory = asyncio.run(watches(port, token, context, ask, 1))
    show("commit to one watcher", f"p50 {one:.2f} ms", "<= 2 ms")
    one, last, memory = asyncio.run(watches(port, token, context, ask, options.watchers))
    show(f"commit to {options.watchers} TLS watchers", f"p50 {one:.0f} p99 {last:.0f} ms", "<= 100 ms")
    show("memory of an idle TLS watch", f"{memory:.0f} KB", "<= 50 KB")
    ask("fill")
    wall, cpu, size = asyncio.run(lists(port, token, context, ask))
    show(f"LIST of {PODS} pods ({size / 1e6:.0f} MB, TLS)", f"{cpu:.0f} ms CPU, {wall:.0f} ms", "<= 30 ms CPU")


if __name__ == "__main__":
    main()
