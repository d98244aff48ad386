"""Deletes UDP flows that the kernel would keep sending to endpoints that are gone (or past a Service that had none).

A NAT decision is made once per flow; TCP clients reconnect, UDP clients with a fixed port would talk to the void for as long as they talk.
What is deleted is judged by what should be, not by what was: flows that went stale while edgekube was away are found too.

The kernel's table is read with a netlink socket of our own: it may have tens of thousands of entries, and a library that makes objects of
each takes 0.4 ms for one, with the interpreter held.
"""

import asyncio
import errno
import logging
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from edgekube.proxy.model import ANY4, ANY6, Endpoint, Front

log = logging.getLogger(__name__)

Right = Mapping[Front, frozenset[Endpoint]]  # UDP fronts and the endpoints that their flows may go to
_UDP = 17
_NETLINK_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # of ctnetlink
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_ORIGINAL, _REPLY, _ZONE = 1, 2, 18  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ZONE
_IP, _PROTO = 1, 2  # CTA_TUPLE_IP, CTA_TUPLE_PROTO
_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3
_SECONDS = 10.0  # that the kernel may take to answer


class Flow(NamedTuple):
    """One UDP entry: what the client asked for and who answers (the same when nothing was translated)."""

    destination: tuple[str, int]
    answers: tuple[str, int]


async def forget(right: Right) -> None:
    """Delete the entries of these fronts that go elsewhere. Failing is not fatal: they time out after two minutes of silence."""
    if right:
        try:
            deleted = await asyncio.to_thread(_forget, right)
            log.debug("stale udp flows deleted", extra={"flows": deleted})
        except OSError as error:
            log.warning("stale udp flows not deleted", extra={"error": str(error)})


def is_stale(flow: Flow, right: Mapping[tuple[str, int], frozenset[tuple[str, int]]]) -> bool:
    """`right` by address and port; a wildcard address is a port of every address."""
    address, port = flow.destination
    for where in (address, ANY6 if ":" in address else ANY4):
        allowed = right.get((where, port))
        if allowed is not None:
            return flow.answers not in allowed
    return False


def _forget(right: Right) -> int:
    plain = {(front.address, front.port): frozenset(e[:2] for e in endpoints) for front, endpoints in right.items()}
    deleted = 0
    for family in {socket.AF_INET6 if front.ipv6 else socket.AF_INET for front in right}:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as door:
            door.settimeout(_SECONDS)
            door.bind((0, 0))
            doomed = [which for flow, which in _udp_flows(_ask(door, _GET, _DUMP, family)) if is_stale(flow, plain)]
            for which in doomed:
                for _ in _ask(door, _DELETE, _ACK, family, which):
                    pass
                deleted += 1
    return deleted


def _ask(door: socket.socket, kind: int, flags: int, family: int, attributes: bytes = b"") -> Iterator[bytes]:
    """Bodies of what the kernel answers, until it has said all. That an entry is gone already is fine."""
    body = struct.pack("=BBH", family, 0, 0) + attributes
    door.send(struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST, 0, 0) + body)
    while True:
        data = door.recv(1 << 18)
        offset = 0
        while offset + 16 <= len(data):
            length, answer = struct.unpack_from("=IH", data, offset)
            if answer == _DONE:
                return
            if answer == _ERROR:
                code = -struct.unpack_from("=i", data, offset + 16)[0]
                if code not in (0, errno.ENOENT):
                    raise OSError(code, os.strerror(code))
                return
            yield data[offset + 20 : offset + length]
            offset += (length + 3) & ~3


def _udp_flows(entries: Iterator[bytes]) -> Iterator[tuple[Flow, bytes]]:
    """Each with the attributes by which it is deleted."""
    for entry in entries:
        found = _attributes(entry)
        if _ORIGINAL in found and _REPLY in found:
            original, reply = _attributes(found[_ORIGINAL]), _attributes(found[_REPLY])
            ports, reply_ports = _attributes(original[_PROTO]), _attributes(reply[_PROTO])
            if ports[_NUMBER][0] == _UDP:
                asked = _address(_attributes(original[_IP]), 2), int.from_bytes(ports[_TARGET_PORT], "big")
                answering = _address(_attributes(reply[_IP]), 1), int.from_bytes(reply_ports[_SOURCE_PORT], "big")
                zone = _packed(_ZONE, found[_ZONE]) if _ZONE in found else b""
                yield Flow(asked, answering), _packed(_ORIGINAL | 0x8000, found[_ORIGINAL]) + zone


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


def _packed(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _address(part: Mapping[int, bytes], which: int) -> str:
    """`which`: 1 the source, 2 the destination; those of IPv6 have the next two numbers."""
    raw = part.get(which) or part[which + 2]
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
