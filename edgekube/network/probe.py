"""Probes through the overlay: a datagram of a given size to a node's own pod-range address and back, and who answers them.

    UDP port: the overlay's own plus one (8473), inside the overlay, on the node's addresses in its pod ranges
    request, reply: `ekprobe1`, one byte (1, 2), a nonce of 16 bytes, zeros up to the size

A reply is as long as its request and goes only to the own address of a node of this cluster, so nobody can be flooded through it; pods can
not pretend to be one (their links have a strict reverse path filter). Datagrams are never fragmented by this host. The kernel's own echo
(ICMP) tells what answers when edgekube does not: its checksums are made by software, so a broken checksum offload does not hit it.
"""

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from edgekube.network.model import family

MAGIC = b"ekprobe1"
_REQUEST, _REPLY = 1, 2
_NONCE = slice(9, 25)
LEAST = 25
HEADERS = {4: 28, 6: 48}  # IP and UDP
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PROBE = 10, 23, 3  # linux/in.h: never fragment, whatever the path's MTU was said to be
_FREEBIND, _IPV6_FREEBIND = 15, 78


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a probe waits for its reply, and how often it is sent."""

    seconds: float = 0.3
    tries: int = 3


class Prober:
    """One socket for each of the node's own addresses: it answers others and asks for us."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._allowed: frozenset[str] = frozenset()
        self.on_asked: Callable[[str], None] = lambda _address: None

    def open(self, addresses: Sequence[str], port: int) -> None:
        """Answer at these addresses, and at no others any more. Raises OSError."""
        for address in set(self._sockets) - set(addresses):
            self._close(address)
        for address in addresses:
            if address not in self._sockets:
                self._sockets[address] = found = _bound(address, port)
                asyncio.get_running_loop().add_reader(found.fileno(), self._readable, found)

    def allow(self, addresses: Collection[str]) -> None:
        """Whom to answer: the own addresses of all nodes."""
        self._allowed = frozenset(addresses)

    def close(self) -> None:
        for address in list(self._sockets):
            self._close(address)

    def _close(self, address: str) -> None:
        found = self._sockets.pop(address)
        asyncio.get_running_loop().remove_reader(found.fileno())
        found.close()

    async def probe(self, address: str, port: int, packet: int, patience: Patience) -> bool:
        """Whether an IP packet of `packet` bytes gets to the node with this own address and back."""
        kind = family(address)
        own = next((found for mine, found in self._sockets.items() if family(mine) == kind), None)
        if own is None:
            return False
        nonce = secrets.token_bytes(16)
        data = (MAGIC + bytes((_REQUEST,)) + nonce).ljust(packet - HEADERS[kind], b"\0")
        waiting = self._waiting[nonce] = asyncio.get_running_loop().create_future()
        try:
            for _ in range(patience.tries):
                with contextlib.suppress(OSError):  # no route just now, too big for the device: as good as lost
                    own.sendto(data, (address, port))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience.seconds):
                        await asyncio.shield(waiting)
                        return True
            return False
        finally:
            del self._waiting[nonce]

    def _readable(self, found: socket.socket) -> None:
        for _ in range(64):
            try:
                data, peer = found.recvfrom(65535)
            except OSError:
                return
            if len(data) < LEAST or not data.startswith(MAGIC) or peer[0] not in self._allowed:
                continue
            if data[8] == _REQUEST:
                with contextlib.suppress(OSError):
                    found.sendto(MAGIC + bytes((_REPLY,)) + data[9:], peer)
                self.on_asked(peer[0])
            elif (waiting := self._waiting.get(data[_NONCE])) is not None and not waiting.done():
                waiting.set_result(None)


def _bound(address: str, port: int) -> socket.socket:
    six = family(address) == 6
    found = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if six:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            found.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)
            found.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            found.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)
            found.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        found.bind((address, port))
    except OSError:
        found.close()
        raise
    return found


async def echo(address: str, *, seconds: float = 0.5, tries: int = 2) -> bool:
    """Whether the kernel at this address answers an ICMP echo."""
    six = family(address) == 6
    number = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    found = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, number)
    loop, mark = asyncio.get_running_loop(), secrets.token_bytes(16)
    heard = asyncio.Event()

    def readable() -> None:
        with contextlib.suppress(OSError):
            data = found.recv(2048)
            reply = data if six else data[(data[0] & 15) * 4 :]
            if reply[:1] == (b"\x81" if six else b"\0") and reply[8:24] == mark:
                heard.set()

    with found:
        loop.add_reader(found.fileno(), readable)
        try:
            for sequence in range(tries):
                with contextlib.suppress(OSError):
                    found.sendto(_echo_request(mark, sequence, six=six), (address, 0))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await heard.wait()
                        return True
        finally:
            loop.remove_reader(found.fileno())  # before it is closed: its number may be another's the next moment
    return False


def _echo_request(mark: bytes, sequence: int, *, six: bool) -> bytes:
    head = struct.pack("!BBHHH", 128 if six else 8, 0, 0, os.getpid() & 0xFFFF, sequence)
    checksum = 0 if six else _checksum(head + mark)  # the kernel fills in that of ICMPv6
    return head[:2] + struct.pack("!H", checksum) + head[4:] + mark


def _checksum(data: bytes) -> int:
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


async def listens(address: str, port: int, *, seconds: float = 1.0) -> bool:
    """Whether a machine is there at all: a TCP port that is open or refuses proves it."""
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return True
    except OSError as error:  # a timeout is one, too
        return error.errno == errno.ECONNRESET
    writer.close()
    return True
