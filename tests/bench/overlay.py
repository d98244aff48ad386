"""Pods of two nodes beside the bare path between the two machines in the same run, what one more node costs, and what idling costs.

The machines are network namespaces joined by a bridge: no real device, so checksums and segmentation cost what they cost in memory. Rounds
of bare and overlay alternate. Needs root. EDGEKUBE_BENCH_SECONDS: per round.
"""

import contextlib
import os
import socket
import statistics
import threading
import time

from edgekube.api.catalog import NODE
from tests.kit import netns as ns
from tests.kit.overlay import overlay, reaches

SECONDS = float(os.environ.get("EDGEKUBE_BENCH_SECONDS", "1"))
ROUNDS = 7
PRESENT = 100
IDLE_SECONDS = 10


def throughput(here, there, address):
    """MB/s of one TCP stream."""
    server = ns.call_inside(there, lambda: socket.create_server(("0.0.0.0", 5001)))
    taken = []

    def sink():
        connection, _ = server.accept()
        got, buffer, began = 0, bytearray(1 << 20), time.monotonic()
        while count := connection.recv_into(buffer):
            got += count
        taken.append(got / (time.monotonic() - began) / 1e6)
        connection.close()

    thread = threading.Thread(target=sink)
    thread.start()
    data = bytes(1 << 18)
    with ns.call_inside(here, lambda: socket.create_connection((address, 5001), timeout=10)) as connection:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            connection.sendall(data)
    thread.join()
    server.close()
    return taken[0]


def round_trip(here, there, address):
    """Median microseconds of a datagram there and back."""
    server = ns.call_inside(there, lambda: bound_datagram("0.0.0.0", 5002))

    def answer():
        with contextlib.suppress(OSError):
            while True:
                data, peer = server.recvfrom(100)
                if data == b"stop":
                    return
                server.sendto(data, peer)

    thread = threading.Thread(target=answer)
    thread.start()
    client = ns.call_inside(here, lambda: bound_datagram("0.0.0.0", 0))
    client.connect((address, 5002))
    taken, end = [], time.monotonic() + SECONDS / 2
    while time.monotonic() < end:
        began = time.perf_counter()
        client.send(b"x")
        client.recv(100)
        taken.append((time.perf_counter() - began) * 1e6)
    client.send(b"stop")
    thread.join()
    client.close()
    server.close()
    return statistics.median(taken)


def bound_datagram(address, port):
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.bind((address, port))
    return found


WIRES = (("memory", ""), ("1 Gbit/s", "tbf rate 1gbit burst 128k latency 20ms"))


def paths(backend, wire, qdisc):
    with overlay(2, backend=backend) as net:
        one, two = net.hosts
        here, there = one.add_pod(), two.add_pod()
        target = two.pods[there][0]
        reaches(here, target)
        bare, pods = (one.netns, two.netns, "192.168.50.11"), (here, there, target)
        for number in (0, 1) if qdisc else ():
            ns.inside(net.wire, f"tc qdisc add dev p{number}eth0 root {qdisc}")
        for name, measure, unit, better in (("TCP, one stream", throughput, "MB/s", 1), ("round trip", round_trip, "us", -1)):
            figures = {kind: [] for kind in ("bare", "pods")}
            for _ in range(ROUNDS):
                for kind, where in (("bare", bare), ("pods", pods)):
                    figures[kind].append(measure(*where))
            middle = {kind: statistics.median(values) for kind, values in figures.items()}
            ratio = (middle["pods"] / middle["bare"]) ** better
            print(f"{backend:<9}{wire:<10}{name:<17}bare {middle['bare']:>8.1f} {unit:<5}pods {middle['pods']:>8.1f} {unit:<5}ratio {ratio:.2f}   (aim >= 0.95)", flush=True)


def node(number):
    cidr = f"10.42.{number}.0/24"
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"far-{number}"}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}


def add_node(net, number):
    status = {"addresses": [{"type": "InternalIP", "address": f"192.168.50.{number}"}]}
    client = net.api.live.client
    net.api.run(client.create(NODE, node(number)))
    net.api.run(client.patch(NODE, f"far-{number}", "", {"status": status}, subresource="status"))


def joining():
    with overlay(1) as net:
        (one,) = net.hosts
        for number in range(100, 100 + PRESENT):
            add_node(net, number)
        while len(one.sh("ip route show proto 231").splitlines()) < PRESENT + 1:
            time.sleep(0.02)
        time.sleep(8)  # until nodes that do not exist have been given up for now
        taken, spent = [], []
        for number in range(210, 220):
            began, before = time.perf_counter(), time.process_time()
            add_node(net, number)
            while not one.sh(f"ip route show 10.42.{number}.0/24"):
                pass
            taken.append((time.perf_counter() - began) * 1000)
            time.sleep(0.2)
            spent.append((time.process_time() - before) * 1000)
        print(f"one node joins, {PRESENT} present       route there after {statistics.median(taken):.1f} ms, CPU of everything in this process {statistics.median(spent):.1f} ms", flush=True)


def switches(pid):
    """Voluntary context switches of a thread: how often it went to sleep again."""
    with open(f"/proc/self/task/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("voluntary"))


def idle():
    with overlay(2) as net:
        here, there = (host.add_pod() for host in net.hosts)
        reaches(here, net.hosts[1].pods[there][0])
        time.sleep(3)
        threads = [host.loop.thread.native_id for host in net.hosts]
        before = [switches(pid) for pid in threads]
        time.sleep(IDLE_SECONDS)
        print(f"idle, two nodes, {IDLE_SECONDS} s            wake-ups of each loop: {[switches(pid) - old for pid, old in zip(threads, before, strict=True)]}   (aim 0)", flush=True)


def main():
    for wire, qdisc in WIRES:
        for backend in ("vxlan", "host-gw"):
            paths(backend, wire, qdisc)
    joining()
    idle()


if __name__ == "__main__":
    main()
