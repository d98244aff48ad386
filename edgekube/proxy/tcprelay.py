"""Connections relayed through this process: accept, connect to an endpoint, pass bytes both ways.

Promises: what one side does not take, the other is not asked for (64 KiB between them); a half close goes through as one, a reset as a
reset; an endpoint that does not answer is passed over (0.5 to 4 s each, four at most), and only then the client is reset. Keep-alive finds
dead peers, so nothing stays for ever.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from typing import cast

from edgekube.lib.tasks import TaskScope
from edgekube.proxy.balance import Balance
from edgekube.proxy.model import Endpoint
from edgekube.proxy.quota import Quota

log = logging.getLogger(__name__)

PATIENCE = (0.5, 1.0, 2.0, 4.0)
_BUFFER = 64 << 10
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 300), (socket.TCP_KEEPINTVL, 30), (socket.TCP_KEEPCNT, 4))
_RESET = struct.pack("ii", 1, 0)


class Side(asyncio.Protocol):
    """One end of a relayed connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: Side | None = None
        self._said_all = False
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_BUFFER)
        _tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        self._said_all = True
        peer = self.peer
        if peer is None or peer.transport is None:
            return True  # said before there was anybody to tell
        if peer._said_all:
            peer.transport.close()
            return False
        if not peer.transport.is_closing():
            peer.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        peer = self.peer
        if peer is not None and peer.transport is not None and not peer.gone:
            if exc is None:
                peer.transport.close()
            else:
                peer.reset()

    def reset(self) -> None:
        if self.transport is not None and not self.gone:
            with contextlib.suppress(OSError, AttributeError):
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()


def _tune(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Client(Side):
    """The accepted end: it is not read before there is an endpoint to read for."""

    def __init__(self, balance: Balance, quota: Quota, scope: TaskScope) -> None:
        super().__init__()
        self._balance, self._quota, self._scope = balance, quota, scope
        self._connecting: asyncio.Task[None] | None = None
        self._counted = False
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._counted = self._quota.take(2)
        if not self._counted:
            self.reset()
            return
        asyncio.get_running_loop().call_soon(self._transport().pause_reading)  # Python 3.11 starts to read after this, paused or not
        self._connecting = self._scope.spawn(self._connect(), name="connect")

    def data_received(self, data: bytes) -> None:
        if self.peer is None or self.peer.transport is None:
            self._early.append(data)  # one read at most: reading is paused
        else:
            super().data_received(data)

    def _transport(self) -> asyncio.Transport:
        if self.transport is None:
            raise RuntimeError("not connected")
        return self.transport

    async def _connect(self) -> None:
        client = str(self._transport().get_extra_info("peername")[0])
        for patience, endpoint in zip(PATIENCE, self._balance.order(client), strict=False):
            try:
                connection = await _reach(endpoint, patience)
            except (OSError, TimeoutError):
                continue
            self._balance.took(client, endpoint)
            await self._join(connection)
            return
        self.reset()

    async def _join(self, connection: socket.socket) -> None:
        other = Side()
        other.peer = self
        self.peer = other
        await asyncio.get_running_loop().create_connection(lambda: other, sock=connection)
        if self.gone or self.transport is None or other.transport is None:
            other.reset()
            return
        other.transport.writelines(self._early)
        self._early.clear()
        if self._said_all:
            other.transport.write_eof()
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._counted:
            self._counted = False
            self._quota.give(2)
        if self._connecting is not None and self.peer is None:
            self._connecting.cancel()


async def _reach(endpoint: Endpoint, patience: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        async with asyncio.timeout(patience):
            await asyncio.get_running_loop().sock_connect(connection, (endpoint.address, endpoint.port))
    except BaseException:
        connection.close()
        raise
    return connection


class TcpFront:
    """The listening socket of one front."""

    def __init__(self, listener: socket.socket, balance: Balance, quota: Quota, scope: TaskScope) -> None:
        self.balance, self._listener, self._quota, self._scope = balance, listener, quota, scope
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._client, sock=self._listener, backlog=512)

    def _client(self) -> Client:
        return Client(self.balance, self._quota, self._scope)

    def changed(self) -> None:
        """Connections that are there go on."""

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        else:
            self._listener.close()
