"""One stream of a session: an `asyncio.Transport`.

Out: what was written waits here until the session's turn comes and the peer's window allows it; the protocol is told to pause above the
high-water mark. In: data goes to the protocol at once, or waits here, within our window, while reading is paused; the window is opened
again only for what the protocol has taken. Close, end and reset mean what they mean for a TCP connection, and `connection_lost` is called
once, later, never from within a call of the protocol's.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgekube.lib.mux import frames

if TYPE_CHECKING:
    from edgekube.lib.mux.session import Session

log = logging.getLogger(__name__)

HIGH_WATER, LOW_WATER = 64 * 1024, 16 * 1024
_LINGER = 30.0  # seconds a closed stream may take until the peer has let us send the rest

Chunk = bytes | memoryview


class Stream(asyncio.Transport):
    """Made by the session only. `kind` and `label` are what it was opened with."""

    __slots__ = (
        "_credit",
        "_eof_in",
        "_eof_told",
        "_gone",
        "_held",
        "_high",
        "_linger",
        "_loop",
        "_low",
        "_owed",
        "_peer_closed",
        "_protocol",
        "_queued",
        "_reading",
        "_session",
        "_size",
        "_state",
        "_unread",
        "_waiting",
        "_write_paused",
        "kind",
        "label",
        "number",
        "out",
    )

    # What becomes of our direction once all that was written is sent.
    _OPEN, _ENDING, _ENDED, _CLOSING = range(4)

    def __init__(self, session: "Session", number: int, kind: str, label: str, extra: Mapping[str, Any], window: int) -> None:
        super().__init__(extra)
        self._session, self.number, self.kind, self.label = session, number, kind, label
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol | None = None
        self.out: deque[Chunk] = deque()
        self._size, self._credit = 0, 0
        self._high, self._low = HIGH_WATER, LOW_WATER
        self._state = self._OPEN
        self._queued = self._write_paused = False
        self._held: deque[bytes] | None = None  # made when there is something to hold
        self._reading, self._waiting = True, False
        self._eof_in = self._eof_told = self._peer_closed = self._gone = False
        self._unread, self._owed = window, 0  # what the peer may still send; what was taken and is not yet told
        self._linger: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Stream {self.number} {self.kind} {self.label}>"

    # asyncio.BaseTransport

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if not isinstance(protocol, asyncio.Protocol):
            raise TypeError("a stream needs a streaming protocol")
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        if self._protocol is None:
            raise RuntimeError("the stream has ended")
        return self._protocol

    def is_closing(self) -> bool:
        return self._gone or self._state == self._CLOSING

    def close(self) -> None:
        """Send what was written, then end both directions."""
        if self.is_closing():
            return
        self._state = self._CLOSING
        self._held = None
        if self._size:
            self._linger = self._loop.call_later(_LINGER, self.abort)
            return
        self._closed()

    def abort(self) -> None:
        """End at once; what was not sent is lost."""
        self.reset("aborted")

    def reset(self, why: str) -> None:
        """As `abort`, and the peer's protocol gets to know why."""
        if not self._gone:
            if not self._peer_closed:
                self._session.control(frames.reset(self.number, why))
            self.lost(None)

    # asyncio.WriteTransport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not data or self._gone or self._peer_closed:
            return
        if self._state in (self._ENDING, self._ENDED):
            raise RuntimeError("cannot write after write_eof()")
        if self._state == self._CLOSING:
            return
        self.out.append(data if isinstance(data, bytes) else bytes(data))
        self._size += len(data)
        if not self._queued and self._credit:
            self._queued = True
            self._session.ready(self)
        if self._size > self._high and not self._write_paused and self._protocol is not None:
            self._write_paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._state == self._OPEN and not self._gone:
            self._state = self._ENDING
            if not self._size:
                self._end()

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low

    # asyncio.ReadTransport

    def is_reading(self) -> bool:
        return self._reading and not self.is_closing()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._later()

    # the session's side: sending

    def take(self, limit: int) -> tuple[int, list[Chunk]]:
        """Up to `limit` bytes to send now, as far as the window allows."""
        left = count = min(limit, self._credit, self._size)
        pieces: list[Chunk] = []
        while left:
            head = self.out[0]
            if len(head) <= left:
                pieces.append(self.out.popleft())
                left -= len(head)
            else:
                view = memoryview(head)
                pieces.append(view[:left])
                self.out[0] = view[left:]
                left = 0
        self._size -= count
        self._credit -= count
        return count, pieces

    def taken(self) -> bool:
        """After `take` was put on the wire: whether there is more to send now. Ends what waited for this."""
        if self._gone:
            return False
        more = bool(self._size and self._credit)
        self._queued = more
        if self._write_paused and self._size <= self._low:
            self._write_paused = False
            if self._protocol is not None:
                self._protocol.resume_writing()
        if not self._size:
            if self._state == self._ENDING:
                self._end()
            elif self._state == self._CLOSING:
                self._closed()
        return more

    def allow(self, more: int) -> None:
        """The peer has room for `more` bytes. Raises ProtocolError."""
        self._credit += more
        if self._credit > frames.MAX_WINDOW:
            raise frames.ProtocolError(f"it opened the window of stream {self.number} beyond {frames.MAX_WINDOW} bytes")
        if self._size and not self._queued and not self._gone:
            self._queued = True
            self._session.ready(self)

    def _end(self) -> None:
        self._state = self._ENDED
        if not self._peer_closed:
            self._session.control(frames.frame(frames.END, self.number))

    def _closed(self) -> None:
        if not self._gone:
            if not self._peer_closed:
                self._session.control(frames.frame(frames.CLOSE, self.number))
            self.lost(None)

    # the session's side: receiving

    def received(self, data: bytes) -> None:
        """Raises ProtocolError."""
        if self._eof_in:
            raise frames.ProtocolError(f"it sent data on stream {self.number} after its end")
        self._unread -= len(data)
        if self._unread < 0:
            raise frames.ProtocolError(f"it sent more on stream {self.number} than the window allows")
        if self._state == self._CLOSING:
            return
        if self._reading and not self._held:
            self._deliver(data)
        else:
            if self._held is None:
                self._held = deque()
            self._held.append(data)
            self._later()

    def ended(self, *, closed: bool) -> None:
        """The peer will send no more, and reads no more either if `closed`."""
        self._eof_in, self._peer_closed = True, closed
        if closed:
            self.out.clear()
            self._size = 0
            if self._state == self._CLOSING:
                self.lost(None)
                return
            if self._write_paused and self._protocol is not None:
                self._write_paused = False
                self._protocol.resume_writing()
        self._later()

    def cut(self, why: str) -> None:
        """The session is gone. What the peer has sent to its end is still delivered."""
        if not self._peer_closed:
            self.lost(ConnectionResetError(why))

    def lost(self, error: Exception | None) -> None:
        """The end, for whatever reason."""
        if self._gone:
            return
        self._gone = True
        self.out.clear()
        self._held = None
        self._size = 0
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._session.retire(self)
        self._loop.call_soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)

    def _deliver(self, data: bytes) -> None:
        if self._protocol is None:
            return
        try:
            self._protocol.data_received(data)
        except Exception:
            log.exception("the protocol of a stream failed", extra={"stream": repr(self)})
            self.abort()
            return
        self._owed += len(data)
        if self._owed * 2 >= self._session.window and not self._eof_in and not self._gone:
            self._unread += self._owed
            self._session.control(frames.window(self.number, self._owed))
            self._owed = 0

    def _later(self) -> None:
        if not self._waiting and self._reading and (self._held or self._eof_in):
            self._waiting = True
            self._loop.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        self._waiting = False
        while self._held and self._reading and not self._gone:
            self._deliver(self._held.popleft())
        if self._held or not self._eof_in or self._gone or not self._reading:
            return
        if not self._eof_told and self._protocol is not None and self._state != self._CLOSING:
            self._eof_told = True
            if not self._protocol.eof_received() and not self._peer_closed:
                self.close()
        if self._peer_closed:
            self.lost(None)
