"""inotify on one folder, as a wake-up for a coroutine: what changed must be looked at anyway."""

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path

MODIFY, WRITTEN, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
FILES = WRITTEN | MOVED_FROM | MOVED_TO | CREATE | DELETE
"""Files that come, go, or have been written to their end."""
ITSELF = 0x400 | 0x800
"""The folder is deleted or moved away."""
_NONBLOCK, _CLOEXEC = 0o4000, 0o2000000


class FolderWatch:
    """A context manager. Where the kernel has no more watches to give, `works` is False and every wait takes its whole time."""

    def __init__(self, folder: Path, events: int = FILES) -> None:
        self._changed = asyncio.Event()
        self._descriptor, self._events = -1, events
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.inotify_init1(_NONBLOCK | _CLOEXEC)
        if descriptor < 0:
            return
        if libc.inotify_add_watch(descriptor, os.fsencode(folder), events) < 0:
            os.close(descriptor)
            return
        self._descriptor = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def also(self, folder: Path) -> None:
        """Watch one more folder, if it is there and is not watched yet."""
        if self._descriptor >= 0:
            ctypes.CDLL(None, use_errno=True).inotify_add_watch(self._descriptor, os.fsencode(folder), self._events)

    @property
    def works(self) -> bool:
        return self._descriptor >= 0

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 4096)
            self._changed.set()

    async def wait(self, timeout: float | None) -> None:
        """Until something changed since the last wait, or `timeout` has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        self._changed.clear()

    async def quiet(self, seconds: float, *, at_most: float) -> None:
        """Until nothing has changed for `seconds`: an editor makes several changes of one, a person several of one thought."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                while True:
                    self._changed.clear()
                    try:
                        async with asyncio.timeout(seconds):
                            await self._changed.wait()
                    except TimeoutError:
                        return

    def __enter__(self) -> "FolderWatch":
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
