"""Datagrams relayed through this process: one session for each client and address it asked, each with a socket of its own to its endpoint.

A session ends after 60 s of silence, when its endpoint is no longer right, or when the endpoint refuses; when there is no room, the session
of this front that was silent longest makes it. Answers leave from the address that was asked.
"""

import asyncio
import contextlib
import socket
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgekube.proxy.balance import Balance
from edgekube.proxy.model import Endpoint
from edgekube.proxy.quota import Quota

IDLE_SECONDS, SWEEP_SECONDS = 60.0, 10.0
_BATCH = 64  # datagrams before others have their turn
_LARGEST = 65535
_PKTINFO = 8  # IP_PKTINFO
_ORIGINAL = {socket.AF_INET: (socket.IPPROTO_IP, _PKTINFO), socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)}


class Asked(NamedTuple):
    """Who asked, and the raw packet information that makes an answer leave from where it arrived."""

    client: tuple[Any, ...]
    arrival: bytes


@dataclass(slots=True)
class _Session:
    upstream: socket.socket
    endpoint: Endpoint
    peer: tuple[Any, ...]
    arrival: bytes
    last: float


class UdpFront:
    """The socket of one front, and its sessions."""

    def __init__(self, server: socket.socket, balance: Balance, quota: Quota) -> None:
        self.balance, self._server, self._quota = balance, server, quota
        self._level, self._kind = _ORIGINAL[server.family]
        option = socket.IPV6_RECVPKTINFO if server.family == socket.AF_INET6 else _PKTINFO
        server.setsockopt(self._level, option, 1)
        self._sessions: OrderedDict[Asked, _Session] = OrderedDict()
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._server.fileno(), self._readable)

    def changed(self) -> None:
        """Sessions with an endpoint that is no longer right end: the next datagram goes where it belongs."""
        right = {endpoint[:2] for endpoint in self.balance.target.all_endpoints()}
        for asked in [asked for asked, session in self._sessions.items() if session.endpoint[:2] not in right]:
            self._end(asked)

    def close(self) -> None:
        for asked in list(self._sessions):
            self._end(asked)
        if self._sweep is not None:
            self._sweep.cancel()
        asyncio.get_running_loop().remove_reader(self._server.fileno())
        self._server.close()

    def _readable(self) -> None:
        for _ in range(_BATCH):
            try:
                data, ancillary, _, peer = self._server.recvmsg(_LARGEST, 128)
            except OSError:  # nothing more, or the refusal of an answer
                return
            arrival = next((value for level, kind, value in ancillary if (level, kind) == (self._level, self._kind)), b"")
            self._pass_on(Asked(peer, arrival), data)

    def _pass_on(self, asked: Asked, data: bytes) -> None:
        session = self._sessions.get(asked) or self._open(asked)
        if session is not None:
            session.last = asyncio.get_running_loop().time()
            self._sessions.move_to_end(asked)
            try:
                session.upstream.send(data)
            except BlockingIOError:
                pass  # as a full queue anywhere else on the way
            except OSError:
                self._end(asked)

    def _open(self, asked: Asked) -> _Session | None:
        if not self._quota.take(1):
            if not self._sessions:
                return None
            self._end(next(iter(self._sessions)))
            self._quota.take(1)
        for endpoint in self.balance.order(asked.client[0])[:4]:
            family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
            upstream = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                upstream.connect(endpoint[:2])
            except OSError:
                upstream.close()
                continue
            self.balance.took(asked.client[0], endpoint)
            loop = asyncio.get_running_loop()
            found = self._sessions[asked] = _Session(upstream, endpoint, asked.client, asked.arrival, loop.time())
            loop.add_reader(upstream.fileno(), self._answer, asked)
            if self._sweep is None:
                self._sweep = loop.call_later(SWEEP_SECONDS, self._end_silent)
            return found
        self._quota.give(1)
        return None

    def _answer(self, asked: Asked) -> None:
        session = self._sessions[asked]
        for _ in range(_BATCH):
            try:
                data = session.upstream.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:
                self._end(asked)
                return
            session.last = asyncio.get_running_loop().time()
            with contextlib.suppress(OSError):
                self._server.sendmsg([data], [(self._level, self._kind, _leaving(session.arrival))], 0, session.peer)

    def _end(self, asked: Asked) -> None:
        session = self._sessions.pop(asked)
        asyncio.get_running_loop().remove_reader(session.upstream.fileno())
        session.upstream.close()
        self._quota.give(1)

    def _end_silent(self) -> None:
        loop = asyncio.get_running_loop()
        for asked in [asked for asked, session in self._sessions.items() if loop.time() - session.last > IDLE_SECONDS]:
            self._end(asked)
        self._sweep = loop.call_later(SWEEP_SECONDS, self._end_silent) if self._sessions else None


def _leaving(arrival: bytes) -> bytes:
    """struct in_pktinfo: index, local address, destination; what was the destination is the source now, on whatever interface."""
    if len(arrival) == 12:
        return bytes(4) + arrival[8:12] + bytes(4)
    return arrival[:16] + bytes(4)
