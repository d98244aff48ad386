"""A wire between two hosts that looks into what it carries, as some switches, tunnels and clouds do: it drops encapsulated packets whose inner
UDP or TCP checksum is wrong. Frames are carried by a thread, so what a real device would make on sending stays unmade here.

with bad_wire(netns_a, netns_b) as wire: ...; wire.dropped
"""

import contextlib
import select
import socket
import struct
import threading

from tests.kit import netns as ns

VXLAN = 8472


class BadWire:
    """Ports `wa` and `wb` in a namespace, and the thread between them."""

    def __init__(self, netns):
        self.dropped = 0
        self.sockets = ns.call_inside(netns, lambda: [port_socket(name) for name in ("wa", "wb")])
        self.stop_read, self.stop_write = socket.socketpair()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        other = {self.sockets[0]: self.sockets[1], self.sockets[1]: self.sockets[0]}
        while True:
            readable, _, _ = select.select([*self.sockets, self.stop_read], [], [])
            if self.stop_read in readable:
                return
            for port in readable:
                frame, where = port.recvfrom(65536)
                if where[2] == socket.PACKET_OUTGOING:
                    continue
                if wrong(frame):
                    self.dropped += 1
                    continue
                with contextlib.suppress(OSError):
                    other[port].send(frame)

    def close(self):
        self.stop_write.send(b"x")
        self.thread.join()
        for each in (*self.sockets, self.stop_read, self.stop_write):
            each.close()


def port_socket(name):
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    found.bind((name, 0))
    return found


def wrong(frame):
    """Whether this is an encapsulated packet with a wrong checksum."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 17 or struct.unpack_from("!H", frame, 36)[0] != VXLAN:
        return False
    inner = frame[14 + 20 + 8 + 8 + 14 :]
    if inner[:1] != b"\x45" or inner[9] not in (6, 17):
        return False
    length = struct.unpack_from("!H", inner, 2)[0] - 20
    body = inner[20 : 20 + length]
    if inner[9] == 17 and body[6:8] == b"\0\0":
        return False
    return total(inner[12:20] + struct.pack("!BBH", 0, inner[9], length) + body) != 0xFFFF


def total(data):
    data += b"\0" * (len(data) % 2)
    found = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while found >> 16:
        found = (found >> 16) + (found & 0xFFFF)
    return found


@contextlib.contextmanager
def bad_wire(one, other, addresses):
    """Two hosts joined by it, on `eth0`."""
    with ns.namespace() as netns:
        for port, host, address in zip(("wa", "wb"), (one, other), addresses, strict=True):
            ns.inside(netns, f"ip link add {port} type veth peer name eth0 netns {host.rsplit('/', 1)[1]}")
            ns.inside(netns, f"ip link set {port} up promisc on")
            ns.inside(host, f"ip link set eth0 gso_max_segs 1 up && ip addr add {address} dev eth0")
        wire = BadWire(netns)
        try:
            yield wire
        finally:
            wire.close()
