"""What the service proxy costs as Services grow: python -m tests.bench.proxy

One process with API server (memory store), proxy and prober; pods and host are network namespaces, packets go through the real kernel.
A change is a new endpoint in a slice, or a new Service with its slice; it counts from the API call to the first answer through it.
Floor: the same change given to nftables directly, and one connection to the pod itself.
"""

import argparse
import asyncio
import contextlib
import logging
import socket
import statistics
import time

from edgekube.api.catalog import ENDPOINT_SLICE, SERVICE
from edgekube.apiserver.identity import User
from edgekube.apiserver.local import LocalClient
from edgekube.proxy.backend import Node
from edgekube.proxy.component import Proxy, ProxyConfig
from edgekube.proxy.model import Endpoint, Front, Target
from edgekube.proxy.nftables import NftablesBackend
from tests.api.controlplane import control_plane
from tests.bench import proxymodes
from tests.kit.proxyhost import ADDRESSES, PORT, proxy_host

ROUNDS = 30
ONE, TWO = (ADDRESSES[name][0] for name in ("one", "two"))


def service(number, address=""):
    spec = {"selector": {"app": f"s-{number}"}, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
    return {"metadata": {"name": f"s-{number}", "namespace": "default"}, "spec": spec | ({"clusterIP": address} if address else {})}


def slice_of(number, *addresses):
    metadata = {"name": f"s-{number}", "namespace": "default", "labels": {"kubernetes.io/service-name": f"s-{number}"}}
    endpoints = [{"addresses": [a], "nodeName": "pi", "conditions": {"ready": True}} for a in addresses]
    ports = [{"name": "http", "port": PORT, "protocol": "TCP"}]
    return {"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints}


async def answer(address, port=80):
    """Who answers one connection; "" if nobody does."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        try:
            await loop.sock_connect(client, (address, port))
            return (await loop.sock_recv(client, 100)).split()[0].decode()
        except OSError:
            return ""


async def until(address, name):
    started = time.perf_counter()
    while await answer(address) != name:
        if time.perf_counter() - started > 10:
            raise RuntimeError(f"{name} never answered on {address}")


def median(values):
    return 1000 * statistics.median(values)


async def timed(work):
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def endpoint_changes(plane, probe):
    found = []
    for turn in range(ROUNDS):
        address, name = ((TWO, "two"), (ONE, "one"))[turn % 2]
        started = time.perf_counter()
        await plane.client.update(ENDPOINT_SLICE, slice_of("probe", address))
        await until(probe, name)
        found.append(time.perf_counter() - started)
    return found


async def new_services(plane):
    found = []
    for turn in range(ROUNDS):
        name = f"new-{turn}"
        started = time.perf_counter()
        made = await plane.client.create(SERVICE, service(name))
        await plane.client.create(ENDPOINT_SLICE, slice_of(name, ONE))
        await until(made["spec"]["clusterIP"], "one")
        found.append(time.perf_counter() - started)
    return found


async def floors():
    """The bare change, and the bare connection."""
    backend = NftablesBackend(Node(instance="floor", pods=("10.42.0.0/16",), services=("10.44.0.0/16",)))
    front = Front("10.43.254.254", "tcp", 80)
    states = [{front: Target((Endpoint(address, PORT, True),))} for address in (ONE, TWO)]
    await backend.replace(states[0])
    changes = [await timed(backend.apply(states[turn % 2], states[1 - turn % 2])) for turn in range(ROUNDS)]
    connections = [await timed(answer(ONE, PORT)) for _ in range(ROUNDS)]
    await backend.replace({})
    backend.close()
    return changes, connections


async def rebuilds(proxy):
    return [await timed(proxy._backend.replace(proxy._book.all())) for _ in range(3)]


async def soon(address):
    """Whether a connection is answered at once: without rules it would be tried for minutes."""
    try:
        async with asyncio.timeout(0.05):
            return await answer(address)
    except TimeoutError:
        return ""


async def flushes(probe):
    """Somebody empties nftables: until a connection is answered again."""
    found = []
    for _ in range(3):
        child = await asyncio.create_subprocess_exec("nft", "flush", "ruleset")
        await child.wait()
        started = time.perf_counter()
        while not await soon(probe):
            if time.perf_counter() - started > 30:
                raise RuntimeError("the rules did not come back")
        found.append(time.perf_counter() - started)
    return found


async def measure(counts):
    show("measurement", "median", "aim")
    changes, connections = await floors()
    show("floor: one change given to nftables", f"{median(changes):.2f} ms", "")
    show("floor: one connection to the pod itself", f"{median(connections):.2f} ms", "")
    await proxymodes.rows(show)
    async with control_plane(only=lambda name: name == "service-account-controller", nodes=False) as plane:
        have = 0
        probe = "10.43.0.99"  # of the band that is not handed out
        await plane.client.create(SERVICE, service("probe", probe))
        await plane.client.create(ENDPOINT_SLICE, slice_of("probe", ONE))
        for count in counts:
            while have < count:
                await plane.client.create(SERVICE, service(have))
                await plane.client.create(ENDPOINT_SLICE, slice_of(have, ONE, TWO))
                have += 1
            await at(plane, count, probe)


async def at(plane, count, probe):
    client = LocalClient(plane.server, User("system:node:pi", ("system:nodes", "system:masters")))
    config = ProxyConfig(node_name="pi", instance="bench", cluster_cidrs=("10.42.0.0/16",), service_cidrs=("10.43.0.0/16",))
    proxy = Proxy(config=config, client=client)
    ready = asyncio.Event()
    started = time.perf_counter()
    task = asyncio.get_running_loop().create_task(proxy.run(ready))
    await ready.wait()
    show(f"start of the proxy with {count:,} Services", f"{time.perf_counter() - started:.2f} s", "")
    show(f"endpoint change to first answer, {count:,} Services", f"{median(await endpoint_changes(plane, probe)):.2f} ms", "<= 7 ms")
    show(f"new Service to first answer, {count:,} Services", f"{median(await new_services(plane)):.2f} ms", "<= 7 ms")
    show(
        f"full rebuild of the rules, {count:,} Services",
        f"{statistics.median(await rebuilds(proxy)):.2f} s",
        "<= 2 s" if count == 10000 else "",
    )
    show(f"flush of nftables to first answer, {count:,} Services", f"{statistics.median(await flushes(probe)):.2f} s", "<= 2 s")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    for turn in range(ROUNDS):
        for kind in (SERVICE, ENDPOINT_SLICE):
            await plane.client.delete(kind, f"s-new-{turn}", "default")


def show(what, value, target):
    print(f"{what:<58}{value:>26}   {target}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", default="100,1000,10000")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with proxy_host() as host:
        host.do(lambda: measure([int(count) for count in options.counts.split(",")]), seconds=600)


if __name__ == "__main__":
    main()
