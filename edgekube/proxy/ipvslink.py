"""IPVS in the kernel, by generic netlink: list, make, change and remove virtual services and their destinations. Blocking: for a thread.

Spoken by hand: five messages, and no library whose import costs megabytes. What is ours is known by its mark (fwmark services) or its
address (in the range of Services); other virtual services of this host are never touched.
"""

import contextlib
import errno
import ipaddress
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from edgekube.lib.process import clean_environment

_GENERIC = 16  # NETLINK_GENERIC
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
NEW_SERVICE, SET_SERVICE, DEL_SERVICE, GET_SERVICE, NEW_DEST, SET_DEST, DEL_DEST, GET_DEST = range(1, 9)
_SERVICE, _DEST = 1, 2
_PERSISTENT = 1
_SECONDS = 10.0
_NUMBERS = {"tcp": 6, "udp": 17}
_NAMES = {6: "tcp", 17: "udp"}


class IpvsMissing(Exception):
    """The kernel has no IPVS; the message names the module."""


class Virtual(NamedTuple):
    """What is balanced: an address and port, or with a `mark` the packets that have it."""

    ipv6: bool
    mark: int = 0
    protocol: str = "tcp"
    address: str = ""
    port: int = 0


class Destination(NamedTuple):
    address: str
    port: int


class State(NamedTuple):
    """Of a destination."""

    weight: int
    connections: int


class IpvsLink:
    """One netlink socket, in the namespace of the thread that makes it. Raises IpvsMissing, OSError."""

    def __init__(self) -> None:
        self._door = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _GENERIC)
        self._door.settimeout(_SECONDS)
        self._door.bind((0, 0))
        try:
            (found,) = self._ask(_CONTROL, _GET_FAMILY, 0, _attribute(_FAMILY_NAME, b"IPVS\0"))
        except (OSError, ValueError) as error:
            self._door.close()
            raise IpvsMissing("the kernel has no IPVS (module ip_vs)") from error
        self._family = int.from_bytes(_attributes(found)[_FAMILY_ID], "little" if struct.pack("=H", 1) == b"\1\0" else "big")

    def __enter__(self) -> "IpvsLink":
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()

    def services(self) -> dict[Virtual, int]:
        """All virtual services of this host, with the seconds of affinity (0: none)."""
        found = {}
        for body in self._ask(self._family, GET_SERVICE, _DUMP):
            parts = _attributes(_attributes(body)[_SERVICE])
            flags = struct.unpack_from("=I", parts[7])[0]
            found[_virtual(parts)] = struct.unpack("=I", parts[8])[0] if flags & _PERSISTENT else 0
        return found

    def destinations(self, virtual: Virtual) -> dict[Destination, State]:
        found = {}
        for body in self._ask(self._family, GET_DEST, _DUMP, _nested(_SERVICE, _identity(virtual))):
            parts = _attributes(_attributes(body)[_DEST])
            weight, active, inactive = (struct.unpack("=I", parts[kind])[0] for kind in (4, 7, 8))
            found[Destination(_text(parts[1], virtual.ipv6), int.from_bytes(parts[2], "big"))] = State(weight, active + inactive)
        return found

    def ensure_service(self, virtual: Virtual, seconds: int, *, there: bool) -> None:
        flags = struct.pack("=II", _PERSISTENT if seconds else 0, _PERSISTENT)
        mask = struct.pack("=I", 128) if virtual.ipv6 else b"\xff\xff\xff\xff"
        more = _attribute(6, b"rr\0") + _attribute(7, flags) + _attribute(8, struct.pack("=I", seconds)) + _attribute(9, mask)
        self._do(SET_SERVICE if there else NEW_SERVICE, _nested(_SERVICE, _identity(virtual) + more))

    def remove_service(self, virtual: Virtual) -> None:
        self._do(DEL_SERVICE, _nested(_SERVICE, _identity(virtual)), fine=errno.ESRCH)

    def ensure_destination(self, virtual: Virtual, to: Destination, weight: int, *, there: bool) -> None:
        numbers = ((3, 0), (4, weight), (5, 0), (6, 0))  # masquerading as IPVS calls it; no thresholds
        more = b"".join(_attribute(kind, struct.pack("=I", value)) for kind, value in numbers)
        body = _nested(_SERVICE, _identity(virtual)) + _nested(_DEST, _place(virtual, to) + more)
        self._do(SET_DEST if there else NEW_DEST, body)

    def remove_destination(self, virtual: Virtual, to: Destination) -> None:
        self._do(DEL_DEST, _nested(_SERVICE, _identity(virtual)) + _nested(_DEST, _place(virtual, to)), fine=errno.ENOENT)

    def _do(self, command: int, body: bytes, *, fine: int = 0) -> None:
        try:
            for _ in self._ask(self._family, command, _ACK, body):
                pass
        except OSError as error:
            if error.errno != fine:
                raise

    def _ask(self, family: int, command: int, flags: int, attributes: bytes = b"") -> Iterator[bytes]:
        """Attributes of each answer."""
        body = struct.pack("=BBH", command, 1, 0) + attributes
        self._door.send(struct.pack("=IHHII", 16 + len(body), family, flags | _REQUEST, 0, 0) + body)
        while True:
            data = self._door.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", data, offset + 16)[0]
                    if code:
                        raise OSError(code, f"ipvs: {os.strerror(code)}")
                    return
                yield data[offset + 20 : offset + length]
                offset += (length + 3) & ~3
            if not flags & (_DUMP | _ACK):
                return


def missing() -> str:
    """Why this machine can not do it, or nothing. Loads the modules if that is possible."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(["modprobe", "-qa", "ip_vs", "ip_vs_rr"], check=False, capture_output=True, timeout=20, env=clean_environment())
    try:
        with IpvsLink():
            return ""
    except (IpvsMissing, OSError) as error:
        return str(error)


def _identity(virtual: Virtual) -> bytes:
    head = _attribute(1, struct.pack("=H", socket.AF_INET6 if virtual.ipv6 else socket.AF_INET))
    if virtual.mark:
        return head + _attribute(5, struct.pack("=I", virtual.mark))
    number = _attribute(2, struct.pack("=H", _NUMBERS[virtual.protocol]))
    return head + number + _attribute(3, _packed(virtual.address)) + _attribute(4, struct.pack(">H", virtual.port))


def _place(virtual: Virtual, to: Destination) -> bytes:
    family = struct.pack("=H", socket.AF_INET6 if virtual.ipv6 else socket.AF_INET)
    return _attribute(1, _packed(to.address)) + _attribute(2, struct.pack(">H", to.port)) + _attribute(11, family)


def _virtual(parts: dict[int, bytes]) -> Virtual:
    six = struct.unpack("=H", parts[1])[0] == socket.AF_INET6
    if 5 in parts:
        return Virtual(six, struct.unpack("=I", parts[5])[0])
    protocol = struct.unpack("=H", parts[2])[0]
    return Virtual(six, 0, _NAMES.get(protocol, str(protocol)), _text(parts[3], six), int.from_bytes(parts[4], "big"))


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed.ljust(16, b"\0")


def _text(raw: bytes, six: bool) -> str:
    return socket.inet_ntop(socket.AF_INET6, raw[:16]) if six else socket.inet_ntop(socket.AF_INET, raw[:4])


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | 0x8000, value)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found
