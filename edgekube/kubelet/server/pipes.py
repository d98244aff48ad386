"""One connection, several conversations: WebSocket messages and SPDY streams, each with backpressure and one writer at a time.

Pipe          bytes both ways: a raw connection, or a WebSocket whose binary messages carry them (SPDY inside WebSocket)
WebSocket     messages on an upgraded connection; pings are answered on the way
Spdy          streams over a Pipe: `accept` yields those the client opens
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from edgekube.kubelet.server.http import Request
from edgekube.lib import spdy, websocket
from edgekube.lib.bounded import BoundedReader

_PIECE = 32 << 10
_GONE = (OSError, ssl.SSLError, EOFError)


class Pipe(Protocol):
    async def receive(self) -> bytes:
        """b"" at the end."""

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError when the other side is gone."""


class RawPipe:
    """The connection of a request, as it is."""

    def __init__(self, request: Request) -> None:
        self._reader, self._writer = request.reader, request.writer
        self._lock = asyncio.Lock()

    async def receive(self) -> bytes:
        try:
            return await self._reader.read(_PIECE)
        except _GONE:
            return b""

    async def send(self, data: bytes) -> None:
        async with self._lock:
            self._writer.write(data)
            await self._writer.drain()


class WebSocket:
    """Messages; also a Pipe (of binary messages)."""

    def __init__(self, request: Request) -> None:
        self._pipe = RawPipe(request)
        self._messages = self._read()
        self.closed = False

    async def receive(self) -> bytes:
        async for message in self._messages:
            if message.data:
                return message.data
        return b""

    async def send(self, data: bytes) -> None:
        await self.say(websocket.BINARY, data)

    async def say(self, kind: int, data: bytes) -> None:
        if not self.closed:
            await self._pipe.send(websocket.frame(kind, data))

    def messages(self) -> AsyncIterator[websocket.Message]:
        """Text and binary messages until the client closes."""
        return self._messages

    async def close(self, code: int = websocket.NORMAL, reason: str = "") -> None:
        """Say good-bye, once."""
        if not self.closed:
            with contextlib.suppress(*_GONE):
                await self._pipe.send(websocket.close_frame(code, reason))
            self.closed = True

    async def _read(self) -> AsyncIterator[websocket.Message]:
        parser = websocket.Parser()
        while data := await self._pipe.receive():
            try:
                for message in parser.receive(data):
                    if message.kind == websocket.PING:
                        await self.say(websocket.PONG, message.data)
                    elif message.kind == websocket.CLOSE:
                        await self.close()
                        return
                    elif message.kind != websocket.PONG:
                        yield message
            except websocket.WebSocketError as error:
                await self.close(error.code, str(error))
                return
            except _GONE:
                return


class SpdyStream:
    """One stream that the client opened."""

    def __init__(self, owner: "Spdy", number: int, headers: Mapping[str, str]) -> None:
        self._owner, self.number, self.headers = owner, number, headers
        self.input = BoundedReader()
        self._ended = False

    async def read(self) -> bytes:
        """b"" at the end."""
        return await self.input.read(_PIECE)

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), spdy.PIECE):
            if not self._ended:
                await self._owner.send(self._owner.session.data(self.number, data[at : at + spdy.PIECE]))

    async def close(self) -> None:
        """No more from our side; the client may go on."""
        if not self._ended:
            self._ended = True
            with contextlib.suppress(*_GONE):
                await self._owner.send(self._owner.session.data(self.number, b"", fin=True))

    async def reset(self) -> None:
        """Refuse or break off."""
        self.drop()
        with contextlib.suppress(*_GONE):
            await self._owner.send(self._owner.session.rst_stream(self.number, spdy.CANCEL))

    def drop(self) -> None:
        """The client has reset it, or is gone."""
        self._ended = True
        self.input.release()


class Spdy:
    """All streams of one connection. `accept` must be iterated: it is what reads."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.session = spdy.Session()
        self._streams: dict[int, SpdyStream] = {}
        self._lock = asyncio.Lock()

    async def send(self, data: bytes) -> None:
        await self._pipe.send(data)

    async def accept(self) -> AsyncIterator[SpdyStream]:
        """New streams, until the client goes."""
        try:
            while data := await self._pipe.receive():
                for frame in self.session.receive(data):
                    if frame.kind == spdy.GOAWAY:
                        return
                    stream = await self._handle(frame)
                    if stream is not None:
                        yield stream
        except (*_GONE, spdy.SpdyError):
            return
        finally:
            for stream in self._streams.values():
                stream.drop()

    def forget(self, stream: SpdyStream) -> None:
        self._streams.pop(stream.number, None)
        stream.input.release()

    async def _handle(self, frame: spdy.Frame) -> SpdyStream | None:
        known = self._streams.get(frame.stream)
        if frame.kind == spdy.SYN_STREAM:
            stream = self._streams[frame.stream] = SpdyStream(self, frame.stream, frame.headers)
            async with self._lock:  # header blocks share one compressor: packing and sending must not be torn apart
                await self.send(self.session.syn_reply(frame.stream))
            if frame.fin:
                stream.input.end()
            return stream
        if frame.kind == spdy.PING:
            await self.send(self.session.ping(frame.status))
        elif known is not None and frame.kind == spdy.RST_STREAM:
            known.drop()
        elif known is not None and frame.kind == 0:
            await known.input.put(frame.data)
            if frame.fin:
                known.input.end()
        return None
