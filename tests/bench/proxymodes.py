"""Each way of serving Services beside the others: what a rewrite, a change and a connection cost with 1,000 Services.

Called by tests.bench.proxy; alone: python -m tests.bench.proxymodes. Runs in the namespace of a proxy host.
"""

import argparse
import asyncio
import statistics
import time

from edgekube.proxy.backend import Node
from edgekube.proxy.iptables import IptablesBackend
from edgekube.proxy.model import Endpoint, Front, Target
from edgekube.proxy.modes import MODES, make
from tests.kit.proxyhost import ADDRESSES, OWN, PORT, proxy_host
from tests.kit.requires import has

NODE = Node(instance="modes", pods=("10.42.0.0/16",), services=("10.43.0.0/16",))
PROBE = Front("10.43.200.1", "tcp", 80)
ROUNDS = 20


def kinds():
    """Those that this kernel can do."""
    found = {mode: lambda mode=mode: make(mode, NODE) for mode in MODES if has(mode)}
    if has("iptables-legacy"):
        found["iptables (legacy)"] = lambda: IptablesBackend(NODE, "legacy")
    return found


def targets(count):
    endpoints = tuple(Endpoint(ADDRESSES[name][0], PORT, True) for name in ("one", "two"))
    return {Front(f"10.43.{number // 250}.{number % 250 + 1}", "tcp", 80): Target(endpoints) for number in range(count)}


async def connect():
    reader, writer = await asyncio.open_connection(PROBE.address, PROBE.port, local_addr=(OWN[0], 0))
    answer = (await reader.read(100)).split()[0].decode()
    writer.close()
    return answer


async def measure_one(make_backend, count):
    """Seconds: of a rewrite, of changes until the first answer, of connections."""
    backend = make_backend()
    try:
        started = time.perf_counter()
        await backend.replace(targets(count))
        rewrite = time.perf_counter() - started
        states = [{PROBE: Target((Endpoint(ADDRESSES[name][0], PORT, True),))} for name in ("one", "two")]
        await backend.apply({}, states[0])
        changes, connections = [], []
        for turn in range(ROUNDS):
            started = time.perf_counter()
            await backend.apply(states[turn % 2], states[1 - turn % 2])
            assert await connect() == ("two", "one")[turn % 2]
            changes.append(time.perf_counter() - started)
            started = time.perf_counter()
            await connect()
            connections.append(time.perf_counter() - started)
        await backend.replace({})
    finally:
        backend.close()
    return rewrite, statistics.median(changes), statistics.median(connections)


async def rows(show, count=1000):
    for name, make_backend in kinds().items():
        rewrite, change, connection = await measure_one(make_backend, count)
        show(f"{name}: rewrite of {count:,} Services", f"{rewrite:.2f} s", "")
        show(f"{name}: one change to first answer, {count:,} Services", f"{1000 * change:.2f} ms", "<= 7 ms" if name == "nftables" else "")
        show(f"{name}: one connection", f"{1000 * connection:.2f} ms", "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    with proxy_host() as host:
        host.do(lambda: rows(lambda *words: print(f"{words[0]:<58}{words[1]:>26}   {words[2]}", flush=True), options.count), seconds=600)


if __name__ == "__main__":
    main()
