"""Datagrams to everybody on every local network, and from them: with no default route, with link-local addresses, on several interfaces.

A socket is bound to each interface for sending, so that no route is needed; the one that listens joins the group on each. The links of
pods and of the overlay are left out.
"""

import asyncio
import contextlib
import fcntl
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from edgekube.lib.where import GROUP4, GROUP6, SIZE

log = logging.getLogger(__name__)

_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915
_UP, _BROADCAST, _LOOPBACK, _POINT_TO_POINT, _MULTICAST = 0x1, 0x2, 0x8, 0x10, 0x1000
_IP_PKTINFO = 8
_OWN_LINKS = "ek"  # of pods and of the overlay
_BATCH = 32  # datagrams read before other parts of the process have their turn

Heard = Callable[[bytes, "Source"], None]


class Interface(NamedTuple):
    name: str
    number: int
    v4: bool  # has an IPv4 address
    broadcast: bool


class Source(NamedTuple):
    """Who sent a datagram, and on which interface it came; `socket` can answer."""

    address: tuple[str | int, ...]
    interface: int
    socket: socket.socket

    @property
    def host(self) -> str:
        """Its address; one that holds only on a link names the link."""
        host = str(self.address[0])
        if self.socket.family == socket.AF_INET6 and host.startswith("fe80:") and "%" not in host:
            with contextlib.suppress(OSError):
                return f"{host}%{socket.if_indextoname(self.interface)}"
        return host

    def answer(self, data: bytes) -> None:
        """On the interface on which it came; lost is lost."""
        with contextlib.suppress(OSError):
            if self.socket.family == socket.AF_INET and self.interface:
                info = struct.pack("@I4s4s", self.interface, bytes(4), bytes(4))
                self.socket.sendmsg([data], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, self.address)
            else:
                self.socket.sendto(data, self.address)


def interfaces() -> Iterator[Interface]:
    """Those that are up and reach others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for index, name in socket.if_nameindex():
            if name.startswith(_OWN_LINKS):
                continue
            request = struct.pack("256s", name.encode()[:15])
            try:
                (flags,) = struct.unpack_from("H", fcntl.ioctl(probe, _SIOCGIFFLAGS, request), 16)
            except OSError:
                continue  # it has just gone
            if not flags & _UP or flags & (_LOOPBACK | _POINT_TO_POINT) or not flags & (_BROADCAST | _MULTICAST):
                continue
            v4 = True
            try:
                fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:
                v4 = False
            yield Interface(name, index, v4, bool(flags & _BROADCAST))


class Shout:
    """Sends to everybody; with `heard`, answers to it are received until `close`."""

    def __init__(self, port: int, heard: Heard | None = None) -> None:
        self._port, self._heard = port, heard
        self._sockets: list[socket.socket] = []

    def send(self, data: bytes) -> int:
        """On every interface there is now; to how many it went."""
        self.close()
        return sum(self._send(each, data) for each in interfaces())

    def close(self) -> None:
        for each in self._sockets:
            _close(each)
        self._sockets.clear()

    def _send(self, interface: Interface, data: bytes) -> bool:
        sent = False
        for family, targets in (
            (socket.AF_INET, ((GROUP4, self._port), *([("255.255.255.255", self._port)] if interface.broadcast else []))),
            (socket.AF_INET6, ((GROUP6, self._port, 0, interface.number),)),
        ):
            if family == socket.AF_INET and not interface.v4:
                continue
            try:
                channel = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            except OSError:
                continue  # no IPv6 on this machine
            self._sockets.append(channel)
            for target in targets:
                try:
                    channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.name.encode())
                    channel.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                    channel.sendto(data, target)
                    sent = True
                except OSError as error:
                    log.debug("local network not reached", extra={"link": interface.name, "to": target[0], "error": str(error)})
            if self._heard is not None:
                _listen(channel, self._heard)
        return sent


class Ear:
    """Hears what is sent to everybody, and to this machine, at `port`."""

    def __init__(self, port: int, heard: Heard) -> None:
        self._sockets: list[socket.socket] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                channel = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            except OSError:
                continue
            self._sockets.append(channel)
            try:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET:
                    channel.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
                else:
                    channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                channel.bind(("", port))
            except OSError as error:
                log.warning("no discovery on the local network", extra={"port": port, "error": str(error)})
                self._sockets.remove(channel)
                channel.close()
                continue
            _listen(channel, heard)
        self.join()

    def join(self) -> None:
        """The group, on every interface there is now. Again when interfaces have changed."""
        for channel in self._sockets:
            if channel.family == socket.AF_INET:
                for each in interfaces():
                    membership = struct.pack("@4s4si", socket.inet_aton(GROUP4), bytes(4), each.number)
                    with contextlib.suppress(OSError):  # a member already
                        channel.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)

    def close(self) -> None:
        for each in self._sockets:
            _close(each)
        self._sockets.clear()


def _listen(channel: socket.socket, heard: Heard) -> None:
    asyncio.get_running_loop().add_reader(channel, _read, channel, heard)


def _close(channel: socket.socket) -> None:
    with contextlib.suppress(RuntimeError):  # no loop runs any more
        asyncio.get_running_loop().remove_reader(channel)
    channel.close()


def _read(channel: socket.socket, heard: Heard) -> None:
    for _ in range(_BATCH):
        try:
            data, ancillary, _, address = channel.recvmsg(SIZE + 1, 64)
        except OSError:
            return
        index = int(address[3]) if channel.family == socket.AF_INET6 else 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                (index,) = struct.unpack_from("@I", value)
        heard(data, Source(address, index, channel))
        if channel.fileno() < 0:
            return
