"""Random acts on links, routes, neighbours, FDB entries, names and addresses of two nodes, under traffic: pods reach each other again within
three seconds each time, an open connection survives them all, and nothing is left over.

EDGEKUBE_CHAOS_ACTS and EDGEKUBE_CHAOS_SEED make it longer or other.
"""

import contextlib
import json
import os
import random
import socket
import threading
import time

import pytest

from tests.kit import netns as ns
from tests.kit.overlay import overlay, plug, reaches
from tests.kit.requires import needs

pytestmark = needs("root", "netns", "busybox")

ACTS, SEED = int(os.environ.get("EDGEKUBE_CHAOS_ACTS", "40")), int(os.environ.get("EDGEKUBE_CHAOS_SEED", "7"))
SECONDS = 3.0


class Stream:
    """One TCP connection from pod to pod that never rests; `count` is what has come back."""

    def __init__(self, here, there, address):
        self.count, self.error = 0, None
        self.server = ns.call_inside(there, lambda: socket.create_server(("0.0.0.0", 7000)))
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.serve, daemon=True)]
        self.threads[0].start()
        self.client = ns.call_inside(here, lambda: socket.create_connection((address, 7000), timeout=60))
        self.threads.append(threading.Thread(target=self.talk, daemon=True))
        self.threads[1].start()

    def serve(self):
        with contextlib.suppress(OSError):
            connection, _ = self.server.accept()
            with connection:
                while data := connection.recv(4096):
                    connection.sendall(data)

    def talk(self):
        try:
            while not self.stop.is_set():
                self.client.sendall(b"x" * 4000)
                left = 4000
                while left:
                    left -= len(self.client.recv(left))
                self.count += 1
                time.sleep(0.01)
        except OSError as error:
            self.error = error

    def close(self):
        self.stop.set()
        self.threads[1].join(60)
        self.client.close()
        self.server.close()
        self.threads[0].join()


class World:
    """Two nodes, and what may happen to them."""

    def __init__(self, net, chance):
        self.net, self.chance, self.number = net, chance, 20
        self.uplinks = ["eth0", "eth0"]
        self.subnet = "192.168.50"

    def facts(self, which):
        host, other = self.net.hosts[which], self.net.hosts[1 - which]
        pod = next(iter(host.network._pods._attached.values()))
        forward = next(iter(host.network._overlay.wanted.forwards), None)
        return {
            "device": host.device, "range": other.ranges[0], "gateway": other.ranges[0].split("/")[0], "own": f"10.42.{which}.1",
            "mac": forward.mac if forward else "02:00:00:00:00:02", "link": pod.link, "pod": pod.addresses[0], "uplink": self.uplinks[which],
            "n": self.chance.randrange(100, 250), "far": f"{self.subnet}.{self.chance.randrange(200, 250)}", "pod_mac": pod.mac,
        }  # fmt: skip

    COMMANDS = (
        "ip link del {device}", "ip link set {device} down", "ip link set {device} mtu 700", "ip link set {device} address 02:11:11:11:11:11",
        "ip link set {device} down; ip link set {device} name zz{n}; ip link set zz{n} up",
        "ip route del {range}", "ip route replace {range} dev {device}", "ip route replace blackhole {range}", "ip route replace {range} dev {uplink}",
        "ip route add 10.42.{n}.0/24 via 10.42.{n}.0 dev {device} onlink", "ip route add {range} via 10.42.{n}.0 dev {device} onlink metric {n}",
        "ip neigh del {gateway} dev {device}", "ip neigh replace {gateway} lladdr 02:00:00:00:00:{n:.2} dev {device} nud permanent",
        "ip neigh flush dev {device} nud permanent", "ip neigh add 10.42.{n}.0 lladdr 02:00:00:00:00:01 dev {device} nud permanent",
        "bridge fdb del {mac} dev {device} self", "bridge fdb replace {mac} dst {far} dev {device} self permanent",
        "bridge fdb append {mac} dst {far} dev {device} self permanent", "bridge fdb append 02:00:00:00:00:07 dst {far} dev {device} self permanent",
        "ip addr del {own}/32 dev lo", "ip link set lo down", "ip route del {pod}", "ip neigh del {pod} dev {link}",
        "ip neigh replace {pod} lladdr 02:00:00:00:00:01 dev {link} nud permanent", "ip link del {link}", "ip link set {link} down",
        "ip link set {link} down; ip link set {link} name yy{n}; ip link set yy{n} up",
        "ip link set {uplink} down; ip link set {uplink} up", "ip link set {uplink} mtu 1400", "ip link set {uplink} mtu 1500",
        "ip route flush proto 231", "ip addr add 10.42.{n}.1/32 dev {device}",
    )  # fmt: skip

    def command(self):
        which, text = self.chance.randrange(2), self.chance.choice(self.COMMANDS)
        host = self.net.hosts[which]
        facts = {**self.facts(which), "n": self.chance.randrange(100, 250)}
        host.sh(text.replace("{n:.2}", "77").format(**facts), check=False)
        return f"{host.name}: {text}"

    def rename(self):
        which = self.chance.randrange(2)
        old, new = self.uplinks[which], f"lan{self.next()}"
        self.net.hosts[which].sh(f"ip link set {old} down; ip link set {old} name {new}; ip link set {new} up")
        self.uplinks[which] = new
        return f"{which}: uplink {old} is {new} now"

    def replug(self):
        """The uplink goes and another comes, with the same address: a USB stick pulled out and put in again."""
        which = self.chance.randrange(2)
        host, old, new = self.net.hosts[which], self.uplinks[which], f"usb{self.next()}"
        address = json.loads(host.sh(f"ip -j -4 addr show dev {old}"))[0]["addr_info"][0]
        host.sh(f"ip link del {old}")
        plug(self.net.wire, host.netns, which, f"{address['local']}/24", name=new)
        self.uplinks[which] = new
        return f"{which}: uplink {old} replaced by {new}"

    def readdress(self):
        which = self.chance.randrange(2)
        new = f"{self.subnet}.{self.next() + which}"
        self.net.hosts[which].sh(f"ip -4 addr flush dev {self.uplinks[which]}; ip addr add {new}/24 dev {self.uplinks[which]}")
        return f"{which}: address {new}"

    def resubnet(self):
        self.subnet = f"192.168.{60 + self.next() % 100}"
        for which, host in enumerate(self.net.hosts):
            host.sh(f"ip -4 addr flush dev {self.uplinks[which]}; ip addr add {self.subnet}.{10 + which}/24 dev {self.uplinks[which]}")
        return f"subnet {self.subnet}.0/24"

    def next(self):
        self.number += 2
        return self.number % 150 + 20

    def act(self):
        kind = self.chance.choices((self.command, self.rename, self.replug, self.readdress, self.resubnet), (20, 1, 1, 2, 1))[0]
        return kind()


def leftovers(net):
    """What each host has that nobody wants."""
    found = []
    for which, host in enumerate(net.hosts):
        other = net.hosts[1 - which]
        ours = [entry["dst"] for entry in json.loads(host.sh("ip -j route show proto 231"))]
        pods = {address for addresses in host.pods.values() for address in addresses}
        found += [f"{host.name} route {dst}" for dst in ours if dst not in {other.ranges[0], "10.43.0.0/16", *pods}]
        found += [f"{host.name} {line}" for line in host.sh("ip -o link | grep -E \"yy|zz\" || true").splitlines()]
        found += [f"{host.name} on device {line}" for line in host.sh(f"ip route show dev {host.device}").splitlines() if other.ranges[0] not in line]
        neighbours = json.loads(host.sh(f"ip -j neigh show dev {host.device} nud all"))
        found += [f"{host.name} neighbour {entry['dst']}" for entry in neighbours if entry["dst"] != other.ranges[0].split("/")[0]]
        forwards = json.loads(host.sh(f"bridge -j fdb show dev {host.device}"))
        found += [f"{host.name} forwards {forwards}"] if len(forwards) != 1 else []
    return found


def picture(net):
    looks = ("ip -o link", "ip -o -4 addr", "ip route", "ip neigh show nud all", "bridge fdb show")
    told = [f"--- {host.name} {look}\n{host.sh(look)}" for host in net.hosts for look in looks]
    return "\n".join([*told, *(f"{host.name}: {host.network._test.verdicts} {host.network._troubles}" for host in net.hosts)])


@pytest.mark.timeout(60 + ACTS * 8)
def test_random_acts_under_traffic():
    chance = random.Random(SEED)
    with overlay(2) as net:
        here, there = (host.add_pod() for host in net.hosts)
        targets = {here: net.hosts[1].pods[there][0], there: net.hosts[0].pods[here][0]}
        for pod, target in targets.items():
            reaches(pod, target)
        world, taken = World(net, chance), []
        stream = Stream(here, there, targets[here])
        try:
            for number in range(ACTS):
                what = world.act()
                began = time.monotonic()
                for pod, target in targets.items():
                    try:
                        reaches(pod, target, seconds=SECONDS)
                    except AssertionError as error:
                        raise AssertionError(f"act {number} (seed {SEED}): {what}: {error}\nbefore: {taken[-4:]}\n{picture(net)}") from None
                taken.append((time.monotonic() - began, what))
            deadline = time.monotonic() + SECONDS
            while found := leftovers(net):
                assert time.monotonic() < deadline, found
            before, deadline = stream.count, time.monotonic() + 60
            while stream.count == before:
                assert stream.error is None
                assert time.monotonic() < deadline, "the connection did not survive"
                time.sleep(0.05)
        finally:
            stream.close()
        worst = sorted(taken, reverse=True)[:3]
        print(f"{ACTS} acts, worst: " + "; ".join(f"{seconds:.2f} s {what}" for seconds, what in worst))
