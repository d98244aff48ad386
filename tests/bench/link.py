"""The one connection of an agent, beside direct TLS connections in the same run: python -m tests.bench.link

Server in a process of its own (memory store, real authentication and RBAC), agents in this one, both on uvloop.
"""

import argparse
import asyncio
import contextlib
import gc
import multiprocessing
import os
import resource
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

from edgekube.lib.clock import SystemClock
from edgekube.lib.tlsclock import client_context
from tests.kit.agentlink import agent_link, credential, pin

MB = 1024 * 1024
PIECE = b"x" * 65536


def serve(pipe):
    """The server's process."""
    import uvloop

    uvloop.run(_serve(pipe))


async def _serve(pipe):
    from edgekube.api.catalog import NODE
    from tests.kit.apiserver import live_server

    async with live_server() as live:
        direct = await _bare(live)
        for number in range(200):
            await live.client.create(NODE, {"metadata": {"name": f"node-{number}", "annotations": {"a": "x" * 2000}}})
        pipe.send((live.port, direct, str(live.folder), str(live.pki.ca), str(live.pki.authority), str(live.pki.admin)))
        while True:
            command, *rest = await asyncio.to_thread(pipe.recv)
            if command == "stop":
                return
            if command == "rss":
                gc.collect()
                pipe.send(_rss())
            elif command == "cpu":
                used = resource.getrusage(resource.RUSAGE_SELF)
                pipe.send(used.ru_utime + used.ru_stime)
            elif command == "touch":
                await live.client.patch(NODE, "node-0", "", {"metadata": {"labels": {"t": str(time.monotonic_ns())[-6:]}}})
                pipe.send(time.monotonic())
            elif command == "ping":
                pipe.send(await _ping(*live.tunnels.open(rest[0], "kubelet"), rest[1]))
            elif command == "bulk":
                bulk = [asyncio.get_running_loop().create_task(_endless(*live.tunnels.open(rest[0], "kubelet"))) for _ in range(rest[1])]
                pipe.send("ok")
            elif command == "calm":
                for task in bulk:
                    task.cancel()
                pipe.send("ok")
            elif command == "pour":
                pipe.send(await _pour(*live.tunnels.open(rest[0], "kubelet"), rest[1]))


async def _bare(live):
    """The floor: a TLS server that swallows bytes and answers one byte per 64 KB, and a bare echo for one byte."""
    from edgekube.apiserver.front import server_context

    async def swallow(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if data == b"!":
                    writer.write(b"!")
                elif data.endswith(b"\n"):
                    writer.write(b"\n")
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0, ssl=server_context(live.pki.apiserver, live.pki.ca))
    live.server.bare = server
    return server.sockets[0].getsockname()[1]


async def _ping(reader, writer, count):
    """Round trips of one byte (ms)."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        writer.write(b"!")
        await reader.readexactly(1)
        times.append(1000 * (time.perf_counter() - started))
    writer.close()
    return times


async def _pour(reader, writer, size):
    """Seconds to bring `size` bytes over."""
    started = time.perf_counter()
    for _ in range(size // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()
    writer.write(b"\n")
    await reader.readexactly(1)
    taken = time.perf_counter() - started
    writer.close()
    return taken


async def _endless(reader, writer):
    try:
        while True:
            writer.write(PIECE)
            await writer.drain()
    finally:
        writer.transport.abort()


def _rss():
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


async def swallow(reader, writer):
    """What the agent's end does with streams of the server."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            if data == b"!":
                writer.write(b"!")
            elif data.endswith(b"\n"):
                writer.write(b"\n")
    writer.close()


async def gets(client, count, at_once):
    """Milliseconds of each of `count` GETs, and how many per second, with `at_once` under way."""
    times = []

    async def one():
        while len(times) < count:
            started = time.perf_counter()
            await client.raw("GET", "/api/v1/nodes/node-1")
            times.append(1000 * (time.perf_counter() - started))

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(at_once)))
    return times, len(times) / (time.perf_counter() - began)


def connection_to(found):
    """What agent_link needs to know of a server in another process; and the port of the floor."""
    from edgekube.client.http import HttpClient, HttpConfig

    port, bare, folder, ca, authority, admin = found
    client = HttpClient(HttpConfig(server=f"https://127.0.0.1:{port}", ca_file=Path(ca), cert_file=Path(admin)))
    live = SimpleNamespace(port=port, folder=Path(folder), client=client, pki=SimpleNamespace(ca=Path(ca), authority=Path(authority)))
    return live, bare


async def joined(live, name):
    """A credential that the server accepts."""
    own = credential(live.folder, live.pki.authority, name)
    await pin(live.client, name, own)
    return own


async def measure(options, ask, found):
    from edgekube.api.catalog import NODE
    from edgekube.client.http import HttpClient, HttpConfig

    live, bare = connection_to(found)
    def show(what, direct, tunnel, unit, *, more_is_better=False):
        ratio = tunnel / direct if more_is_better else direct / tunnel
        print(f"{what:<52}{direct:>11,.2f}{tunnel:>11,.2f} {unit:<6} ratio {ratio:.2f}", flush=True)

    print(f"{'measurement':<52}{'direct':>11}{'tunnel':>11}   ({os.cpu_count()} cores)")
    own = await joined(live, "edge-0")
    config = HttpConfig(server=f"https://127.0.0.1:{live.port}", ca_file=live.pki.ca, cert_file=own)
    async with live.client, agent_link(live, "edge-0", own=own, serve=swallow) as agent, HttpClient(config) as direct:
        for client in (direct, agent.client):
            await gets(client, 500, 10)
        pairs = [[], []]
        for _ in range(options.runs):
            for number, client in enumerate((direct, agent.client)):
                pairs[number].append((await gets(client, 1000, 1), await gets(client, 4000, 32)))
        medians = [statistics.median(statistics.median(run[0][0]) for run in runs) for runs in pairs]
        show("GET of 3 KB, one after the other", *medians, "ms")
        show("GET of 3 KB, 32 at once", *(statistics.median(run[1][1] for run in runs) for runs in pairs), "/s", more_is_better=True)
        lists = [[], []]
        for _ in range(options.runs * 3):
            for number, client in enumerate((direct, agent.client)):
                started = time.perf_counter()
                body = await client.raw("GET", "/api/v1/nodes")
                lists[number].append(1000 * (time.perf_counter() - started))
        show(f"LIST of {len(body) / 1e6:.1f} MB", *map(statistics.median, lists), "ms")
        await streams(options, ask, live, bare, agent, show)
        await beside_bulk(ask, agent, NODE)
        await memory(options, ask, live, NODE)


async def streams(options, ask, live, bare, agent, show):
    context = client_context(clock=SystemClock(), ca=live.pki.ca, credential=agent.credential)
    context.check_hostname = False
    pings, pours = [[], []], [[], []]
    for _ in range(options.runs):
        reader, writer = await asyncio.open_connection("127.0.0.1", bare, ssl=context)
        pings[0] += await _ping(reader, writer, 1000)
        pings[1] += await asyncio.to_thread(ask, "ping", "edge-0", 1000)
        reader, writer = await asyncio.open_connection("127.0.0.1", bare, ssl=context)
        pours[0].append(100 / await _pour(reader, writer, 100 * MB))
        pours[1].append(100 / await asyncio.to_thread(ask, "pour", "edge-0", 100 * MB))
    show("exec round trip, one byte", *map(statistics.median, pings), "ms")
    show("100 MB through one stream", *map(statistics.median, pours), "MB/s", more_is_better=True)


async def beside_bulk(ask, agent, kind):
    """A watch event and a small request, alone and while two streams of the same connection carry as much as they can."""
    listed = await agent.client.list(kind)
    async with agent.client.watch(kind, revision=listed.revision) as changes:
        for streams in (0, 2):
            await asyncio.to_thread(ask, "bulk", "edge-0", streams)
            events, requests = [], []
            for _ in range(50):
                committed = await asyncio.to_thread(ask, "touch")
                await anext(changes)
                events.append(1000 * (time.monotonic() - committed))
                started = time.perf_counter()
                await agent.client.raw("GET", "/api/v1/nodes/node-1")
                requests.append(1000 * (time.perf_counter() - started))
            await asyncio.to_thread(ask, "calm")
            print(
                f"beside {streams} bulk streams: watch event p50 {statistics.median(events):.2f} max {max(events):.1f} ms,"
                f" GET p50 {statistics.median(requests):.2f} max {max(requests):.1f} ms"
            )


async def memory(options, ask, live, kind):
    """Per idle session, and per idle watch on it."""
    before = await asyncio.to_thread(ask, "rss")
    async with contextlib.AsyncExitStack() as stack:
        links = (agent_link(live, f"edge-{number + 1}", serve=swallow) for number in range(options.agents))
        agents = [await stack.enter_async_context(link) for link in links]
        await asyncio.sleep(1)
        sessions = await asyncio.to_thread(ask, "rss")
        for agent in agents:
            listed = await agent.client.list(kind, limit=1)
            for _ in range(10):
                await stack.enter_async_context(agent.client.watch(kind, revision=listed.revision))
        await asyncio.sleep(1)
        watches = await asyncio.to_thread(ask, "rss")
        cpu = await asyncio.to_thread(ask, "cpu")
        await asyncio.sleep(10)
        cpu = await asyncio.to_thread(ask, "cpu") - cpu
    print(
        f"server memory: {(sessions - before) / options.agents:.0f} KB per idle agent connection,"
        f" {(watches - sessions) / options.agents / 10:.1f} KB per idle watch in it; CPU of {options.agents} idle agents {100 * cpu / 10:.2f} %"
    )


def main():
    import uvloop

    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--agents", type=int, default=100)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()  # so that its death is noticed

    def ask(*what):
        ours.send(what)
        return ours.recv()

    try:
        uvloop.run(measure(options, ask, ours.recv()))
    finally:
        with contextlib.suppress(OSError):
            ours.send(("stop",))
        process.join(20)
        if process.is_alive():
            process.kill()


if __name__ == "__main__":
    main()
