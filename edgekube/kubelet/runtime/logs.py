"""Reading container logs: CRI files (`<time> <stream> <P|F> <text>`), by tail, time and size, and following them.

    /var/log/pods/<ns>_<pod>_<uid>/<container>/<attempt>.log        written by conmon
    /var/log/containers/<pod>_<ns>_<container>-<id>.log             link to it

Following waits for inotify on the folder, so a line arrives in a fraction of a millisecond and nothing polls; a rotation (the name belongs
to another file now) is followed once the old file is read to its end. Files are read in a thread: an SD card may take its time. Like
upstream, `tail` counts stored lines (a long line that was split counts for each part) and only the newest file is read.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from edgekube.lib.inotify import CREATE, MODIFY, MOVED_TO, FolderWatch

_PIECE = 64 << 10
_RECHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LogOptions:
    """As PodLogOptions; `tail` and `limit` None: everything."""

    follow: bool = False
    tail: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    limit: int | None = None
    stream: str = ""  # stdout, stderr; "" both


def log_folder(log_dir: Path, namespace: str, pod: str, uid: str) -> Path:
    return log_dir / f"{namespace}_{pod}_{uid}"


def log_file(log_dir: Path, namespace: str, pod: str, uid: str, container: str, attempt: int) -> Path:
    """Where an attempt of a container writes."""
    return log_folder(log_dir, namespace, pod, uid) / container / f"{attempt}.log"


class Formatter:
    """Stored lines to what a client sees; keeps its place between pieces."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit
        self._rest = b""
        self._fresh = True  # at the start of a line

    @property
    def full(self) -> bool:
        """The size asked for is reached."""
        return self._left is not None and self._left <= 0

    def feed(self, data: bytes) -> bytes:
        *lines, self._rest = (self._rest + data).split(b"\n")
        out = b"".join(map(self._line, lines))
        if self._left is not None:
            out = out[: max(0, self._left)]
            self._left -= len(out)
        return out

    def _line(self, line: bytes) -> bytes:
        stamp, _, tail = line.partition(b" ")
        stream, _, tail = tail.partition(b" ")
        tag, separator, text = tail.partition(b" ")
        if not separator or stream not in (b"stdout", b"stderr"):
            return b""  # torn by a power cut
        options = self._options
        if options.stream and stream.decode() != options.stream:
            return b""
        if options.since is not None and (moment := _moment(stamp)) is not None and moment < options.since:
            return b""
        prefix = stamp.replace(b"+00:00", b"Z") + b" " if options.timestamps and self._fresh else b""
        self._fresh = not tag.startswith(b"P")
        return prefix + text + (b"\n" if self._fresh else b"")


def _moment(stamp: bytes) -> datetime | None:
    text = stamp.decode("ascii", "replace")
    whole, dot, rest = text.partition(".")
    digits = rest.rstrip("Z").partition("+")[0].partition("-")[0]
    zone = rest[len(digits) :] if dot else ""
    try:
        return datetime.fromisoformat(f"{whole}{dot}{digits[:6]}{zone}").astimezone(UTC)
    except ValueError:
        return None


async def read_log(path: Path, options: LogOptions, *, is_over: Callable[[], Awaitable[bool]]) -> AsyncGenerator[bytes, None]:
    """The log in pieces. `is_over` tells whether the container has ended: following then stops at the end of the file.

    Raises FileNotFoundError if there is no file (and, when following, none appears before the container ends).
    """
    formatter = Formatter(options)
    with FolderWatch(path.parent, MODIFY | CREATE | MOVED_TO) if options.follow else _NoWatch() as watch:
        file = await asyncio.to_thread(_open_at, path, options.tail)
        try:
            while not formatter.full:
                over = await is_over() if options.follow else True  # asked before reading: what came before the end is in the file
                data = await asyncio.to_thread(file.read, _PIECE)
                if data:
                    if out := formatter.feed(data):
                        yield out
                elif (newer := await asyncio.to_thread(_reopened, path, file)) is not None and options.follow:
                    file.close()
                    file = newer
                elif over:
                    return
                else:
                    await watch.wait(_RECHECK_SECONDS)
        finally:
            file.close()


def _open_at(path: Path, tail: int | None) -> BinaryIO:
    file = path.open("rb", buffering=0)
    if tail is not None:
        file.seek(tail_offset(file, tail))
    return file


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines begin."""
    end = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return end
    position, needed = end, lines + 1
    while position > 0:
        start = max(0, position - _PIECE)
        file.seek(start)
        block = file.read(position - start)
        if position == end and not block.endswith(b"\n"):
            needed -= 1
        count = block.count(b"\n")
        if count >= needed:
            at = len(block)
            for _ in range(needed):
                at = block.rfind(b"\n", 0, at)
            return start + at + 1
        needed -= count
        position = start
    return 0


def _reopened(path: Path, file: BinaryIO) -> BinaryIO | None:
    """The new file if `path` is another one by now; the old one must have been read to its end."""
    try:
        if os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:
            return None
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None


class _NoWatch:
    def __enter__(self) -> "_NoWatch":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def wait(self, timeout: float) -> None:
        """Never called: nothing is followed."""
