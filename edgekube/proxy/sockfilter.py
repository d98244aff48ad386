"""Which clients a listening socket lets in, as a program for the kernel (classic BPF): whoever may not come gets no answer at all. Pure.

A program that returns 0 for a packet drops it before TCP sees it: a connection is dropped as a firewall would drop it, without one.
"""

import ipaddress
import struct
from collections.abc import Sequence

from edgekube.proxy.model import Front, Target

_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06  # ld [k]; jeq #k; and #k; ret #k
_NETWORK, _ANCILLARY = 0xFFF00000, 0xFFFFF000  # SKF_NET_OFF, SKF_AD_OFF
_INTERFACE = _ANCILLARY + 8
_ALL = 0xFFFFFFFF
_MOST = 200  # ranges of one program: jumps are short and programs end at 4096 instructions
LOOPBACK = 1  # index of `lo`, in every network namespace

Instruction = tuple[int, int, int, int]


def admission(front: Front, target: Target, pods: str) -> bytes:
    """The program for a front; b"" if everybody may come."""
    body: list[Instruction] = []
    if target.sources:
        body += _unless_within(target.sources[:_MOST], front.ipv6, [(_RETURN, 0, 0, 0)])
    if not target.endpoints:
        if target.inside:
            body += [(_LOAD, 0, 0, _INTERFACE), (_EQUAL, 0, 1, LOOPBACK), (_RETURN, 0, 0, _ALL)]
            body += _unless_within((pods,), front.ipv6, [(_RETURN, 0, 0, 0)])
        else:
            body.append((_RETURN, 0, 0, 0))
    if not body:
        return b""
    return b"".join(struct.pack("=HBBI", *one) for one in (*body, (_RETURN, 0, 0, _ALL)))


def _unless_within(ranges: Sequence[str], six: bool, otherwise: list[Instruction]) -> list[Instruction]:
    """Each range that fits jumps over the rest, by a chain of jumps: one reaches 255 instructions at most."""
    parts = [_within(cidr, six) for cidr in ranges]
    code = list(otherwise)
    for words in reversed(parts):
        after = len(code)
        body: list[Instruction] = []
        for index, (offset, mask, value) in enumerate(words):
            left = 3 * (len(words) - index - 1) + 1  # to the next range
            body += [(_LOAD, 0, 0, offset), (_AND, 0, 0, mask), (_EQUAL, 0, left, value)]
        body.append((0x05, 0, 0, after))  # ja: over everything that follows
        code = body + code
    return code


def _within(cidr: str, six: bool) -> list[tuple[int, int, int]]:
    """(offset, mask, value) of the words of a source address that must fit; none for a range that has everything."""
    network = ipaddress.ip_network(cidr)
    count, at = (4, 8) if six else (1, 12)
    width = 32 * count
    mask, address = int(network.netmask), int(network.network_address)
    found = []
    for index in range(count):
        shift = width - 32 * (index + 1)
        if part := (mask >> shift) & _ALL:
            found.append((_NETWORK + at + 4 * index, part, (address >> shift) & _ALL))
    return found
