"""What leaves, and in which order.

What is to be sent waits in the streams; the connection's own buffer is filled only while it is short, so that nothing urgent stands behind
a pile. Each turn takes control frames first, then streams that had nothing to send before (a request, an event of a watch), then one slice
of those that always have more (exec, cp, long lists), one after the other.
"""

import asyncio
from collections import deque

from edgekube.lib.mux import frames
from edgekube.lib.mux.stream import Chunk, Stream

SLICE = 16 * 1024  # of one stream, while others wait
TURN = 32 * 1024  # written at once
QUEUE = 32 * 1024  # waiting in the connection before we hold back
BURST = 16  # turns before other parts of the process get theirs
PILE = 4096  # control frames that a peer may make us owe it without reading them


class Writer:
    """Writes to one connection, once it has one."""

    def __init__(self, first: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._control: list[bytes] = [first]
        self._fresh: deque[Stream] = deque()
        self._others: deque[Stream] = deque()
        self._held_back = self._scheduled = False

    def start(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=QUEUE, low=QUEUE // 4)
        self._transport = transport
        self._schedule()

    def stop(self, last: bytes = b"") -> None:
        """Forget what waits; `last` goes out before the end."""
        transport, self._transport = self._transport, None
        if transport is not None and last:
            transport.write(b"".join((*self._control, last)))
        for queue in (self._control, self._fresh, self._others):
            queue.clear()

    def control(self, frame: bytes) -> bool:
        """Send it before all data. False if the peer has let too many of them pile up."""
        self._control.append(frame)
        self._schedule()
        return len(self._control) <= PILE

    def ready(self, stream: Stream) -> None:
        """It has something to send, and had nothing before."""
        self._fresh.append(stream)
        self._schedule()

    def hold(self) -> None:
        self._held_back = True

    def resume(self) -> None:
        self._held_back = False
        self._flush()

    def _schedule(self) -> None:
        if not self._scheduled and not self._held_back and self._transport is not None:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        for _ in range(BURST):
            transport = self._transport
            if transport is None or self._held_back or not (self._control or self._fresh or self._others):
                return
            batch: list[Chunk] = list(self._control)
            self._control.clear()
            sent = self._fill(batch)
            if batch:
                transport.write(b"".join(batch))
            for stream in sent:
                if stream.taken():
                    self._others.append(stream)
        self._schedule()

    def _fill(self, batch: list[Chunk]) -> list[Stream]:
        """Add data of the streams whose turn it is, and in any case of one that always has more."""
        room, sent = TURN, []
        while room > 0 and (self._fresh or self._others):
            stream = self._fresh.popleft() if self._fresh and (room > SLICE or not self._others) else self._others.popleft()
            count, pieces = stream.take(SLICE if self._fresh or self._others else room)
            if count:
                batch.append(frames.header(frames.DATA, stream.number, count))
                batch += pieces
                room -= count
            sent.append(stream)
        return sent
