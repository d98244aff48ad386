"""A UDP client with a fixed port follows the Service when its endpoint is replaced."""

import asyncio
import socket
import threading

from edgekube.proxy import conntrack
from edgekube.proxy.model import Endpoint, Front, Plan, Target, stale_udp
from edgekube.proxy.ruleset import difference, tables_of, whole
from tests.kit import netns as ns
from tests.kit.requires import needs
from tests.unit.proxy.test_kernel import FRAME, host

pytestmark = needs("root", "netns", "nft")
__all__ = ("host",)

FRONT = Front("10.43.0.5", "udp", 53)


def serve_udp(found, address, answer):
    server = ns.call_inside(found.pods[address], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("0.0.0.0", 5353))
    server.settimeout(0.1)
    over = threading.Event()

    def loop():
        while not over.is_set():
            try:
                _, peer = server.recvfrom(100)
            except TimeoutError:
                continue
            server.sendto(answer, peer)

    thread = threading.Thread(target=loop)
    thread.start()
    found.stops.append(lambda: (over.set(), thread.join(), server.close()))


def test_the_flow_moves_to_the_new_endpoint(host):
    serve_udp(host, "10.42.0.11", b"one")
    serve_udp(host, "10.42.0.12", b"two")
    old = {FRONT: Target((Endpoint("10.42.0.11", 5353),))}
    new = {FRONT: Target((Endpoint("10.42.0.12", 5353),))}
    host.apply(whole(FRAME, tables_of(Plan(old))))
    client = ns.call_inside(host.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.settimeout(2)
    client.connect(("10.43.0.5", 53))

    def ask():
        client.send(b"?")
        return client.recv(100)

    try:
        assert ask() == b"one"
        host.apply(difference(FRAME, tables_of(Plan(old)), tables_of(Plan(new))))
        assert ask() == b"one"  # the kernel remembers the flow: this is why it must be told
        ns.call_inside(host.path, lambda: asyncio.run(conntrack.forget(conntrack.stale_flows(stale_udp(old, new)))))
        assert ask() == b"two"
    finally:
        client.close()
