"""A StreamReader whose producer waits while its consumer is behind: memory stays bounded from one end of a relay to the other."""

import asyncio

HIGH = 256 << 10


class BoundedReader(asyncio.StreamReader):
    """`put` waits for room; `read` makes it; `release` says that nobody reads any more."""

    def __init__(self) -> None:
        super().__init__(limit=HIGH)
        self._room = asyncio.Event()
        self._room.set()
        self._size = 0
        self._ended = False

    async def put(self, data: bytes) -> None:
        """Add `data`; what comes after the end is dropped."""
        await self._room.wait()
        if self._ended or not data:
            return
        self._size += len(data)
        if self._size > HIGH:
            self._room.clear()
        self.feed_data(data)

    async def read(self, n: int = -1) -> bytes:
        data = await super().read(n)
        self._size -= len(data)
        if self._size <= HIGH // 2:
            self._room.set()
        return data

    def end(self) -> None:
        """No more data; safe to call twice."""
        if not self._ended:
            self._ended = True
            self.feed_eof()

    def release(self) -> None:
        """Drop what comes and never make the producer wait again."""
        self.end()
        self._room.set()
