"""Reading rtnetlink with nothing but the standard library: dumps of links, addresses, routes, neighbours and FDB entries, and the same
out of event messages.

Context: what the kernel has is read at every change of anything, a hundred entries at a time, and events arrive on the event loop, where
pyroute2 must not run. Reading a message here costs some 5 us, with pyroute2 100. Changes are still made by pyroute2 (kernel.py).
The numbers are those of linux/rtnetlink.h, if_link.h, if_addr.h and neighbour.h.
"""

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
BRIDGE = 7  # the family of FDB entries
MAIN_TABLE = 254
IFF_UP = 1
NUD_PERMANENT = 0x80
PROTO_KERNEL = 2
_ERROR, _DONE = 2, 3
_REQUEST_DUMP = 0x301
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_CLONED = 0x200
_GROUPS = frozenset(map(str, range(224, 240)))


class Message(NamedTuple):
    """One netlink message: its type, who asked for the change (port id of the socket, 0: the kernel does not say) and its body."""

    kind: int
    port: int
    body: bytes


class Link(NamedTuple):
    """`data` holds the attributes of its kind (vxlan: id, local, port ...) by number."""

    ifindex: int
    name: str
    up: bool
    mtu: int
    mac: str
    alias: str
    kind: str
    data: dict[int, bytes]


class Address(NamedTuple):
    ifindex: int
    address: str
    prefix: int
    label: str
    flags: int


class Route(NamedTuple):
    """Of one next hop, in the main table. `dst` as a network; `mtu` 0: the device's."""

    dst: str
    ifindex: int
    gateway: str
    source: str
    metric: int
    protocol: int
    mtu: int
    scope: int
    type: int


class Neighbour(NamedTuple):
    """`family` BRIDGE: an FDB entry, with the remote tunnel end as its address."""

    family: int
    ifindex: int
    address: str
    mac: str
    state: int
    flags: int

    @property
    def multicast(self) -> bool:
        """Of a group: the kernel makes and forgets such entries by itself."""
        return self.address.startswith("ff") or (":" not in self.address and self.address.partition(".")[0] in _GROUPS)


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram."""
    offset, end = 0, len(data)
    while offset + 16 <= end:
        length, kind, _flags, _sequence, port = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield Message(kind, port, data[offset + 16 : offset + length])
        offset += (length + 3) & ~3


def _attributes(body: bytes, offset: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    end = len(body)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def link_of(body: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", body, 4)
    found = _attributes(body, 16)
    info = _attributes(found.get(18, b""), 0)
    return Link(
        index,
        _text(found.get(3)),
        bool(flags & IFF_UP),
        _number(found.get(4)),
        _mac(found.get(1, b"")),
        _text(found.get(20)),
        _text(info.get(1)),
        _attributes(info.get(2, b""), 0),
    )


def address_of(body: bytes) -> Address:
    _family, prefix, flags, _scope, index = struct.unpack_from("=BBBBI", body)
    found = _attributes(body, 8)
    return Address(index, _ip(found.get(2) or found.get(1, b"")), prefix, _text(found.get(3)), _number(found.get(8)) or flags)


def route_of(body: bytes) -> Route | None:
    """None: not of the main table, or a cached copy."""
    family, length, _source, _tos, table, protocol, scope, kind, flags = struct.unpack_from("=BBBBBBBBI", body)
    if flags & _CLONED:
        return None
    found = _attributes(body, 12)
    if (_number(found.get(15)) or table) != MAIN_TABLE:
        return None
    metrics = _attributes(found.get(8, b""), 0)
    dst = found.get(1) or bytes(4 if family == socket.AF_INET else 16)
    return Route(
        f"{_ip(dst)}/{length}",
        _number(found.get(4)),
        _ip(found.get(5, b"")),
        _ip(found.get(7, b"")),
        _number(found.get(6)),
        protocol,
        _number(metrics.get(2)),
        scope,
        kind,
    )


def neighbour_of(body: bytes) -> Neighbour:
    family, index, state, flags = struct.unpack_from("=BxxxiHB", body)
    found = _attributes(body, 12)
    return Neighbour(family, index, _ip(found.get(1, b"")), _mac(found.get(2, b"")), state, flags)


class Reader:
    """Dumps of what there is, over one socket of the namespace it was made in. For one thread at a time; blocks for microseconds."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def links(self) -> Sequence[Link]:
        return [link_of(body) for body in self._dump(GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0))]

    def addresses(self) -> Sequence[Address]:
        return [address_of(body) for body in self._dump(GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0))]

    def routes(self, family: int) -> Sequence[Route]:
        found = [route_of(body) for body in self._dump(GETROUTE, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0))]
        return [route for route in found if route is not None]

    def neighbours(self, family: int) -> Sequence[Neighbour]:
        return [neighbour_of(body) for body in self._dump(GETNEIGH, struct.pack("=BxxxiHBB", family, 0, 0, 0, 0))]

    def forwards(self, index: int) -> Sequence[Neighbour]:
        """FDB entries of one device."""
        request = struct.pack("=BxHiII", BRIDGE, 0, index, 0, 0)
        found = [neighbour_of(body) for body in self._dump(GETNEIGH, request)]
        return [entry for entry in found if entry.ifindex == index]

    def _dump(self, kind: int, request: bytes) -> Iterator[bytes]:
        """A dump the kernel says was interrupted is still read to its end: whoever interrupted it wakes us again by an event."""
        self._sequence += 1
        self._socket.send(_HEADER.pack(16 + len(request), kind, _REQUEST_DUMP, self._sequence, 0) + request)
        while True:
            data = self._socket.recv(1 << 17)
            for message in messages(data):
                if message.kind == _DONE:
                    return
                if message.kind == _ERROR:
                    (code,) = struct.unpack_from("=i", message.body)
                    if code:
                        raise OSError(-code, f"netlink dump {kind} refused")
                    return
                yield message.body


def _text(value: bytes | None) -> str:
    return value.rstrip(b"\0").decode(errors="replace") if value else ""


def _number(value: bytes | None) -> int:
    return int.from_bytes(value[:4], sys.byteorder) if value else 0


def _mac(value: bytes) -> str:
    return value.hex(":") if len(value) == 6 else ""


def _ip(value: bytes) -> str:
    with contextlib.suppress(ValueError, OSError):
        if len(value) == 4:
            return socket.inet_ntop(socket.AF_INET, value)
        if len(value) == 16:
            return socket.inet_ntop(socket.AF_INET6, value)
    return ""
