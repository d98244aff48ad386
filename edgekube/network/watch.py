"""What others do to links, addresses, routes and neighbours, told on the event loop: no thread, no poll, no wake-up while nothing happens.

Two sockets: one for links, addresses and routes, one for neighbours, which the kernel filters by interface (a small BPF program), since a
busy LAN changes neighbours of its own all day. Lost events (a full queue) are told as `None`: look for yourself.
"""

import asyncio
import ctypes
import socket
import struct
from collections.abc import Callable, Collection
from typing import Final

from edgekube.network.rtnl import DELLINK, NEWLINK, Message, messages

LINK, NEIGH, V4_ADDR, V4_ROUTE, V6_ADDR, V6_ROUTE = 1, 3, 5, 7, 9, 11  # multicast groups (RTNLGRP_*)
_SOL_NETLINK, _ADD_MEMBERSHIP, _ATTACH_FILTER = 270, 1, 26
_LOAD_WORD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_AT_INDEX: Final = 16 + 4  # ndm_ifindex behind the netlink header
_MOST = 2000  # a program has 4096 instructions at most
_BUFFER = 1 << 20

OnEvent = Callable[[Message | None], None]


class RtnlWatch:
    """Calls `notify` with each message of `groups`. Make it in the namespace it watches."""

    def __init__(self, groups: Collection[int], notify: OnEvent) -> None:
        self._notify = notify
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        self._filter: frozenset[int] | None = None

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def only_neighbours_of(self, indexes: Collection[int]) -> None:
        """Have the kernel drop neighbour events of other interfaces. Beyond 2000 interfaces it drops none."""
        wanted = frozenset(indexes)
        if wanted == self._filter:
            return
        self._filter = wanted
        program = _program(wanted) if len(wanted) <= _MOST else _instruction(_RETURN, 0, 0, 0xFFFFFFFF)
        buffer = ctypes.create_string_buffer(program)
        self._socket.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)))

    def _readable(self) -> None:
        """Of what is told of a link only the last counts: one that was just made has been down a moment ago."""
        found: dict[object, Message | None] = {}
        for number in range(64):  # the rest at the next turn of the loop
            try:
                data = self._socket.recv(1 << 17)
            except BlockingIOError:
                break
            except OSError:
                found[None] = None
                continue
            for position, message in enumerate(messages(data)):
                key: object = (number, position)
                if message.kind in (NEWLINK, DELLINK):
                    key = message.body[4:8]
                    found.pop(key, None)
                found[key] = message
        for event in found.values():
            self._notify(event)


def _program(indexes: Collection[int]) -> bytes:
    """Accept if ndm_ifindex is one of these. BPF reads big-endian, netlink has the host's order."""
    code = _instruction(_LOAD_WORD, 0, 0, _AT_INDEX)
    for index in sorted(indexes):
        (as_read,) = struct.unpack(">I", struct.pack("=I", index))
        code += _instruction(_EQUAL, 0, 1, as_read) + _instruction(_RETURN, 0, 0, 0xFFFFFFFF)
    return code + _instruction(_RETURN, 0, 0, 0)


def _instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
