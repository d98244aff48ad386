"""The connection that streams share: opening and accepting them, what the peer may do, and the end.

A peer that breaks the protocol ends the session with one reason, which both sides get to know. All streams end with the session.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any, cast

from edgekube.lib.mux import frames
from edgekube.lib.mux.frames import ProtocolError
from edgekube.lib.mux.keepalive import KeepAlive, Patience
from edgekube.lib.mux.stream import Stream
from edgekube.lib.mux.writer import Writer

WINDOW = 256 * 1024
MAX_STREAMS = 256
UNSENT = 16 * 1024  # bytes that wait in the kernel
_TCP_NOTSENT_LOWAT = 25
_CLOSE_SECONDS = 1.0

Accept = Callable[[Stream], asyncio.Protocol]


class Refused(Exception):
    """Raised by `accept`: the stream is not wanted, and why."""


class SessionClosed(ConnectionError):
    """The connection is gone, or takes no new streams."""


class Session(asyncio.Protocol):
    """The protocol of the shared connection. `dialer`: whether this side dialed. `accept` gets each stream that the peer opens and returns
    the protocol for it. `extra` is what the streams say of the connection (`get_extra_info`)."""

    def __init__(
        self,
        *,
        dialer: bool,
        accept: Accept,
        patience: Patience | None = None,
        window: int = WINDOW,
        max_streams: int = MAX_STREAMS,
        on_drain: Callable[[], None] = lambda: None,
        on_greeted: Callable[[], None] = lambda: None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[str] = loop.create_future()  # why
        self.window = window
        self.streams: dict[int, Stream] = {}
        self.draining = False  # no new streams, from either side
        self._loop, self._accept, self._on_drain, self._on_greeted = loop, accept, on_drain, on_greeted
        self._extra, self._max = extra or {}, max_streams
        self._parity = 1 if dialer else 0
        self._next, self._newest = 2 - self._parity, 0
        self._mine = self._theirs = 0
        self._peer: frames.Hello | None = None
        self._decoder = frames.Decoder()
        self._writer = Writer(frames.hello(window, max_streams))
        self._transport: asyncio.Transport | None = None
        self._reason = ""
        self.keepalive = KeepAlive(patience=patience or Patience(), ping=self._ping, dead=self._dead)

    # the connection

    def attach(self, transport: asyncio.Transport, rest: bytes = b"") -> None:
        """Take over a connection that is open; `rest` is what was read from it already."""
        transport.set_protocol(self)
        self.connection_made(transport)
        if not transport.is_reading():
            transport.resume_reading()
        if rest:
            self.data_received(rest)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        _keep_queue_short(transport.get_extra_info("socket"))
        self._writer.start(self._transport)
        self.keepalive.start()

    def data_received(self, data: bytes) -> None:
        self.keepalive.note()
        try:
            for each in self._decoder.feed(data):
                if self._reason:
                    return
                self._dispatch(each)
        except ProtocolError as error:
            self.close(f"the peer broke the protocol: {error}")

    def pause_writing(self) -> None:
        self._writer.hold()

    def resume_writing(self) -> None:
        self._writer.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._finish(str(exc) if exc is not None and str(exc) else "the peer closed the connection")

    # for the owner

    @property
    def heard(self) -> float:
        """When something was last received (the loop's time)."""
        return self.keepalive.heard

    @property
    def alive(self) -> bool:
        """Whether streams can be opened."""
        return self._transport is not None and not self._reason and not self.draining

    def open(self, kind: str, label: str, protocol: asyncio.Protocol) -> Stream:
        """A new stream; it may be written to at once. A refusal comes as `connection_lost` with the peer's words. Raises SessionClosed."""
        if not self.alive:
            raise SessionClosed(self._reason or "the connection takes no new streams")
        if self._mine >= (self._peer.streams if self._peer is not None else MAX_STREAMS):
            raise SessionClosed(f"{self._mine} streams are open already")
        number, self._next = self._next, self._next + 2
        opening = frames.opening(number, kind, label)
        stream = self._stream(number, kind, label)
        self._mine += 1
        self.control(opening)
        stream.set_protocol(protocol)
        protocol.connection_made(stream)
        return stream

    def drain(self, why: str) -> None:
        """No new streams from now on; the connection closes with the last one that is open."""
        if not self.draining and not self._reason:
            self.draining = True
            self.control(frames.goodbye(frames.DRAIN, why))
            self._close_if_idle()

    def probe(self, answer: float) -> None:
        """The peer must give a sign of life within `answer` seconds."""
        self.keepalive.probe(answer)

    async def answers(self, seconds: float) -> bool:
        """Whether the peer gives a sign of life within that time; if not, this connection ends."""
        sign = self.keepalive.sign
        sign.clear()
        self.probe(seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await sign.wait()
        return sign.is_set() and self.alive

    def close(self, why: str) -> None:
        """End everything now; the peer is told why. Idempotent."""
        transport = self._transport
        if transport is None or self._reason:
            self._finish(why)
            return
        self._finish(why, frames.goodbye(frames.END_NOW, why))
        transport.close()
        self._loop.call_later(_CLOSE_SECONDS, transport.abort)

    # for the streams

    def control(self, frame: bytes) -> None:
        if not self._writer.control(frame):
            self.close("the peer does not read what it asked for")

    def ready(self, stream: Stream) -> None:
        self._writer.ready(stream)

    def retire(self, stream: Stream) -> None:
        if self.streams.pop(stream.number, None) is None:
            return
        if stream.number & 1 == self._parity:
            self._mine -= 1
        else:
            self._theirs -= 1
        self._close_if_idle()

    # receiving

    def _dispatch(self, frame: frames.Frame) -> None:
        kind, number, payload = frame
        if self._peer is None:
            if kind != frames.HELLO:
                raise ProtocolError(f"it began with {frames.NAMES[kind]}")
            self._greeted(frames.parse_hello(payload))
        elif kind in _OF_STREAMS:
            stream = self._find(number, kind)
            if stream is not None:
                _to_stream(stream, kind, payload)
        elif kind == frames.OPEN:
            self._opened(number, payload)
        elif kind == frames.PING:
            self.control(frames.frame(frames.PONG, 0, payload))
        elif kind == frames.GOODBYE:
            self._told_goodbye(payload[0], frames.text_of(payload[1:], "GOODBYE"))
        elif kind == frames.HELLO:
            raise ProtocolError("it sent HELLO twice")

    def _greeted(self, hello: frames.Hello) -> None:
        self._peer = hello
        for stream in list(self.streams.values()):
            stream.allow(hello.window)
        self._on_greeted()

    def _find(self, number: int, kind: int) -> Stream | None:
        """The stream; None if it has ended here, and the peer could not know yet. Raises ProtocolError."""
        stream = self.streams.get(number)
        if stream is None and number > (self._next - 2 if number & 1 == self._parity else self._newest):
            raise ProtocolError(f"it sent {frames.NAMES[kind]} for stream {number}, which was never opened")
        return stream

    def _opened(self, number: int, payload: bytes) -> None:
        if number & 1 == self._parity or number <= self._newest:
            raise ProtocolError(f"it opened stream {number} after {self._newest}")
        self._newest = number
        kind, label = frames.parse_opening(payload)
        if self._theirs >= self._max:
            self.control(frames.reset(number, f"{self._theirs} streams are open already"))
            return
        stream = self._stream(number, kind, label)
        self._theirs += 1
        try:
            protocol = self._accept(stream)
        except Refused as error:
            self.control(frames.reset(number, str(error)))
            stream.lost(None)
            return
        stream.set_protocol(protocol)
        protocol.connection_made(stream)

    def _stream(self, number: int, kind: str, label: str) -> Stream:
        stream = self.streams[number] = Stream(self, number, kind, label, self._extra, self.window)
        if self._peer is not None:
            stream.allow(self._peer.window)
        return stream

    def _told_goodbye(self, code: int, why: str) -> None:
        if code == frames.END_NOW:
            transport = self._transport
            self._finish(why or "the peer closed the connection")
            if transport is not None:
                transport.close()
                self._loop.call_later(_CLOSE_SECONDS, transport.abort)
        elif not self.draining:
            self.draining = True
            self._on_drain()
            self._close_if_idle()

    def _ping(self) -> None:
        self.control(frames.frame(frames.PING, 0, bytes(8)))

    # the end

    def _dead(self, silent: float) -> None:
        transport = self._transport
        self._finish(f"nothing was heard from the peer for {silent:.0f} s")
        if transport is not None:
            transport.abort()

    def _close_if_idle(self) -> None:
        if self.draining and not self.streams and not self._reason:
            self._loop.call_soon(self._close_drained)

    def _close_drained(self) -> None:
        if not self.streams:
            self.close("the last stream has ended")

    def _finish(self, why: str, last: bytes = b"") -> None:
        if self._reason:
            return
        self._reason = why
        self.keepalive.stop()
        self.keepalive.sign.set()
        self._writer.stop(last)
        for stream in list(self.streams.values()):
            stream.cut(why)
        if not self.closed.done():
            self.closed.set_result(why)


def _keep_queue_short(sock: Any) -> None:
    """What the kernel has accepted can be overtaken no more: let it accept only what it can send soon."""
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT)


_OF_STREAMS = frozenset((frames.DATA, frames.WINDOW, frames.END, frames.CLOSE, frames.RESET))


def _to_stream(stream: Stream, kind: int, payload: bytes) -> None:
    match kind:
        case frames.DATA:
            stream.received(payload)
        case frames.WINDOW:
            stream.allow(frames.parse_window(payload))
        case frames.RESET:
            stream.lost(ConnectionResetError(frames.text_of(payload, "RESET")))
        case _:
            stream.ended(closed=kind == frames.CLOSE)
