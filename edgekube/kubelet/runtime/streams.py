"""Talking to a process in a container over a hijacked connection: exec and attach.

Without a tty podman multiplexes: frames of an 8-byte head (1 stdout, 2 stderr, three zeros, length big-endian) and the data; with a tty it
is the raw bytes. That a command could not be started comes as text on stderr, too: it is held
back and becomes a RuntimeFailure. Backpressure: output is read from the socket only while little of it waits to be fetched.
"""

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable

from edgekube.kubelet.runtime.info import start_message
from edgekube.kubelet.runtime.protocol import RuntimeFailure
from edgekube.kubelet.runtime.rest import RestError, Stream
from edgekube.lib.bounded import BoundedReader
from edgekube.lib.tasks import TaskScope

_PIECE = 32 << 10
_PODMANS_WORDS = (b"Error: crun: ", b"Error: runc: ", b"Error: OCI runtime")
_NOT_STARTED = (126, 127)


class HijackedProcess:
    """A Process (see the protocol) over one connection. `exit_code` is asked once the stream has ended."""

    def __init__(
        self,
        stream: Stream,
        *,
        tty: bool,
        resize: Callable[[int, int], Awaitable[None]],
        exit_code: Callable[[], Awaitable[int]],
        program: str = "",
    ) -> None:
        self._reader, self._writer = stream
        self.out, self.err = BoundedReader(), BoundedReader()
        self.stdout: asyncio.StreamReader = self.out
        self.stderr: asyncio.StreamReader = self.err
        self._resize, self._exit_code = resize, exit_code
        self._program, self._begun = program, False
        self._held = b""  # what looks like podman's own words
        self._scope = TaskScope("process")
        self._pump = self._scope.spawn(self._raw() if tty else self._frames(), name="pump")
        if tty:
            self.err.end()
        self._tty = tty

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            if self._writer.can_write_eof() and not self._writer.is_closing():
                self._writer.write_eof()

    async def resize(self, width: int, height: int) -> None:
        await self._resize(width, height)

    async def wait(self) -> int:
        await asyncio.wait({self._pump})
        code = await self._exit_code()
        if self._held and code in _NOT_STARTED:
            why = start_message(self._held.decode(errors="replace").partition("\n")[0].strip().removeprefix("Error: "), self._program)
            raise RuntimeFailure("ExecError", f"failed to exec in container: failed to start exec: {why}")
        return code

    async def close(self) -> None:
        self.out.release()
        self.err.release()
        self._writer.close()
        await self._scope.close()

    async def _take(self, target: BoundedReader, data: bytes) -> None:
        if self._held or (not self._begun and data.startswith(_PODMANS_WORDS)):
            self._held += data
        else:
            await target.put(data)
        self._begun = True

    async def _end(self, target: BoundedReader) -> None:
        """Nothing was held back wrongly: only a command that never ran has both podman's words and its codes."""
        if self._held and await self._exit_code() not in _NOT_STARTED:
            await target.put(self._held)
            self._held = b""

    async def _raw(self) -> None:
        try:
            while data := await self._reader.read(_PIECE):
                await self._take(self.out, data)
            await self._end(self.out)
        except (ConnectionError, RestError, RuntimeFailure):
            pass
        finally:
            self.out.end()

    async def _frames(self) -> None:
        try:
            while True:
                kind, length = struct.unpack(">BxxxL", await self._reader.readexactly(8))
                target = self.err if kind == 2 else self.out
                while length:
                    data = await self._reader.read(min(length, _PIECE))
                    if not data:
                        return
                    length -= len(data)
                    if target is self.err:
                        await self._take(target, data)
                    else:
                        await target.put(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            with contextlib.suppress(RestError, RuntimeFailure):
                await self._end(self.err)
        finally:
            self.out.end()
            self.err.end()
