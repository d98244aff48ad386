"""NetworkPolicy: a change until the kernel has it, pods that come and go, what a packet pays, memory. Needs root, nft, network namespaces.

API server, controllers and the node's component run in this process (the client is the in-process one), 100 of the pods are this node's.
Floor of the first rows: the bare library adds as many elements to a set. Packets: the same pair of pods with and without policies, in turns.
"""

import asyncio
import contextlib
import gc
import socket
import statistics
import threading
import time
from pathlib import Path

from edgekube.api.catalog import NETWORK_POLICY, POD
from edgekube.lib.nft import Nft
from tests.api.controlplane import control_plane
from tests.api.test_netpolicy import Node, policy, put_pod
from tests.kit import netns as ns
from tests.unit.netpolicy.machine import machine
from tests.unit.netpolicy.world import Pod, World

PODS, LOCAL, POLICIES = 1000, 100, 100


def row(name: str, value: object, aim: str = "") -> None:
    print(f"{name:<72}{value!s:>18}   {aim}", flush=True)


def ms(values) -> str:
    return f"{statistics.median(values) * 1000:.1f} ms (max {max(values) * 1000:.1f})"


def rss() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


async def floor() -> None:
    nft = Nft()
    addresses = [f"10.99.{n // 250}.{n % 250 + 1}" for n in range(PODS)]
    await nft.apply("add table inet floor; add set inet floor s { type ipv4_addr ; }")
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        await nft.apply(f"add element inet floor s {{ {', '.join(addresses)} }}")
        taken.append(time.perf_counter() - began)
        await nft.apply("flush set inet floor s")
    await nft.delete_table("floor", family="inet")
    nft.close()
    row(f"floor: {PODS} elements by the bare library", ms(taken))


async def settled(node, condition) -> float:
    """Seconds until the kernel has what `condition` asks of the component's tables."""
    began = time.perf_counter()
    async with asyncio.timeout(30):
        while not condition(node.policies._table._state):
            await asyncio.sleep(0)
    return time.perf_counter() - began


async def fill(plane, node) -> None:
    for number in range(PODS):
        here = number < LOCAL
        address = f"10.42.{number // 250}.{number % 250 + 1}"
        uid = await put_pod(plane, f"p{number}", node="here" if here else f"n{number % 9}", ip=address, app=f"a{number % 10}", group=f"g{number // 10}")
        if here:
            node.addresses[uid] = (address,)


def size(state) -> int:
    return sum(map(len, state.sets.values()))


async def changes(plane, node) -> None:
    every = {"ingress": [{"from": [{"podSelector": {}}]}]}
    taken: dict[str, list[float]] = {"new": [], "ports": [], "label": [], "gone": []}
    for round_ in range(7):
        await plane.client.create(NETWORK_POLICY, policy("every", **every))
        taken["new"].append(await settled(node, lambda s: size(s) >= PODS))
        chains = set(node.policies._table._state.chains)
        await plane.merge(NETWORK_POLICY, "every", {"spec": {"ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80 + round_, "protocol": "TCP"}]}]}})
        taken["ports"].append(await settled(node, lambda s, chains=chains: s.chains and set(s.chains) != chains))
        await plane.merge(NETWORK_POLICY, "every", {"spec": {"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a1"}}}]}]}})
        taken["label"].append(await settled(node, lambda s: size(s) == PODS // 10))
        await plane.client.delete(NETWORK_POLICY, "every", "default")
        taken["gone"].append(await settled(node, lambda s: s.empty))
        await asyncio.sleep(0.1)
    row(f"new policy that selects and admits {PODS} pods, first of the node", ms(taken["new"]), "<= 50 ms")
    row("its ports change", ms(taken["ports"]), "<= 50 ms")
    row("it admits a tenth of the pods", ms(taken["label"]), "<= 50 ms")
    row("it is deleted", ms(taken["gone"]), "<= 50 ms")


async def churn(plane, node) -> None:
    before = rss()
    for number in range(POLICIES):
        spec = {"podSelector": {"matchLabels": {"group": f"g{number % 100}"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": f"a{number % 10}"}}}]}]}
        await plane.client.create(NETWORK_POLICY, policy(f"few-{number}", **spec))
    await settled(node, lambda s: len(s.sets) == LOCAL // 10)
    await plane.settle(0.3)
    gc.collect()
    row(f"memory of {POLICIES} policies, {PODS // 10} peers each: server and node", f"{rss() - before:.1f} MB")
    latency, cpu = [], []
    for number in range(20):
        began = time.process_time()
        size_now = size(node.policies._table._state)
        await put_pod(plane, f"new-{number}", node="far", ip=f"10.43.0.{number + 1}", app="a1", group="none")
        latency.append(await settled(node, lambda s, size_now=size_now: size(s) > size_now))
        await plane.settle(0.2)
        cpu.append(time.process_time() - began)
    row(f"a pod comes, {POLICIES} policies, it is a peer of 10", ms(latency))
    row("   CPU of all of it (API writes of the pod included)", ms(cpu))
    cpu = []
    for number in range(20):
        began = time.process_time()
        await put_pod(plane, f"other-{number}", node="far", ip=f"10.43.1.{number + 1}", app="none")
        await plane.settle(0.05)
        cpu.append(time.process_time() - began)
    row("   CPU for a pod that no policy names", ms(cpu))
    row("objects of pods in the API", plane.cache.count(POD))


async def control() -> None:
    await floor()
    async with control_plane(nodes=False) as plane:
        node = Node(plane)
        await fill(plane, node)
        async with node.running():
            await changes(plane, node)
            await churn(plane, node)


# what a packet pays


def sink(found, address: str, stop: threading.Event) -> threading.Thread:
    server = ns.call_inside(found.pods[address], lambda: socket.create_server((address, 9000)))
    echo = ns.call_inside(found.pods[address], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    echo.bind((address, 9001))
    echo.settimeout(0.2)
    server.settimeout(0.2)

    def answer() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                data, peer = echo.recvfrom(2000)
                echo.sendto(data, peer)

    def drain() -> None:
        buffer = bytearray(1 << 20)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                one, _ = server.accept()
                with one:
                    one.settimeout(2)
                    while one.recv_into(buffer):
                        pass

    threads = [threading.Thread(target=work) for work in (answer, drain)]
    for thread in threads:
        thread.start()
    return threads


def stream(found, source: str, target: str, seconds: float = 0.6) -> float:
    """MB/s of one TCP stream."""
    one = ns.call_inside(found.pods[source], lambda: socket.create_connection((target, 9000), timeout=5))
    data, sent, began = b"x" * (1 << 18), 0, time.perf_counter()
    with one:
        while time.perf_counter() - began < seconds:
            sent += one.send(data)
    return sent / (time.perf_counter() - began) / 1e6


def round_trip(found, source: str, target: str, count: int = 2000) -> float:
    """Median seconds of a small datagram there and back."""
    one = ns.call_inside(found.pods[source], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    taken = []
    with one:
        one.settimeout(5)
        one.connect((target, 9001))
        for _ in range(count):
            began = time.perf_counter()
            one.send(b"x")
            one.recv(10)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def packets() -> None:
    world = World()
    world.space("x", {})
    for number in range(2):
        world.put(Pod("x", f"p{number}", f"10.42.0.{10 + number}", {"app": f"a{number}"}))
    for number in range(1000):
        world.put(Pod("x", f"far{number}", f"10.42.{1 + number // 250}.{number % 250 + 1}", {"app": f"b{number % 50}"}, node="far"))
    allow = {"podSelector": {"matchLabels": {"app": "a1"}}, "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": [{"podSelector": {}}]}], "egress": [{"to": [{"podSelector": {}}]}]}
    both = {**allow, "podSelector": {}}
    cases = {
        f"{POLICIES} policies of other pods": [{"podSelector": {"matchLabels": {"app": f"b{n % 50}"}}} for n in range(POLICIES)],
        "1 policy for both pods, both directions": [both],
        "10 policies for both pods, both directions": [{**both, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": f"b{n}"}}}]}]} for n in range(9)] + [both],
        f"{POLICIES} policies for both pods": [{**both, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": f"b{n % 50}"}}}], "ports": [{"port": n + 1}]}]} for n in range(POLICIES - 1)] + [both],
    }  # fmt: skip
    source, target = "10.42.0.10", "10.42.0.11"
    with machine(world) as found:
        stop = threading.Event()
        threads = sink(found, target, stop)
        try:
            for name, specs in cases.items():
                ratios, trips = [], []
                for turn in range(6):
                    plain = stream(found, source, target), round_trip(found, source, target)
                    for number, spec in enumerate(specs):
                        world.policy("x", f"c{number}", spec)
                    found.apply(world)
                    judged = stream(found, source, target), round_trip(found, source, target)
                    for number in range(len(specs)):
                        world.policy("x", f"c{number}", None)
                    found.apply(world)
                    if turn:
                        ratios.append(judged[0] / plain[0])
                        trips.append(judged[1] / plain[1])
                row(f"throughput with {name}", f"x {statistics.median(ratios):.2f}", "ratio to none, same run")
                row(f"   round trip ({plain[1] * 1e6:.0f} us without)", f"x {statistics.median(trips):.2f}")
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def main() -> None:
    with ns.namespace() as path:
        ns.call_inside(path, lambda: asyncio.run(control()))
    packets()


if __name__ == "__main__":
    main()
