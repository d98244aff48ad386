"""What a snapshot holds, as a stream of entries: rows of the store, its revision, and files of the data directory.

    entry = kind(1) name-length(2) value-length(4) a(8) b(8) name value
    F  a file: its path below the data directory, its bytes; a: mode
    R  a row: key, value; a: revision, b: create revision; in order of revisions
    E  the end; a: number of files, b: number of rows

Files: all of pki/ (the authority, the key that signs service account tokens, the administrator's certificate), manifests/, the newest time
known. Tokens, the nodes' pinned keys and the cluster's settings are objects of the store. Containers, images and volumes are not in it.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from edgekube.lib.archive import Damaged
from edgekube.lib.timefloor import FILE as TIME_FLOOR
from edgekube.store.protocol import Record

FOLDERS = ("pki", "manifests")
FILES = (TIME_FLOOR,)
_HEAD = struct.Struct("!cHIQQ")
_GATHER = 64 << 10
_LARGEST_FILE = 16 << 20


class File(NamedTuple):
    """A file of the data directory."""

    name: str
    mode: int
    data: bytes


class SnapshotRow(NamedTuple):
    """A record of the store."""

    key: str
    revision: int
    create_revision: int
    value: bytes


def gather_files(data: Path) -> Sequence[File]:
    """The files that belong to a snapshot, in order. Links and what is no file stay out; so do large ones (not ours). Raises OSError."""
    found = [data / name for name in FILES]
    for folder in FOLDERS:
        found += sorted((data / folder).rglob("*"))
    return [File(str(path.relative_to(data)), path.stat().st_mode & 0o777, path.read_bytes()) for path in found if _belongs(path)]


def _belongs(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size <= _LARGEST_FILE and not path.name.endswith(".tmp")


def digest(files: Iterable[File]) -> str:
    """Changes exactly if a file that matters does."""
    found = hashlib.sha256()
    for file in files:
        if file.name not in FILES:
            found.update(f"{file.name}\0{file.mode}\0{len(file.data)}\0".encode() + file.data)
    return found.hexdigest()[:32]


def pack(files: Sequence[File], records: Iterable[Record]) -> Iterator[bytes]:
    """The stream, in pieces large enough that compressing them lets other threads run."""
    waiting = bytearray()
    for file in files:
        waiting += _entry(b"F", file.name, file.data, file.mode, 0)
    rows = 0
    for record in sorted(records, key=lambda each: each.revision):
        waiting += _entry(b"R", record.key, record.value, record.revision, record.create_revision)
        rows += 1
        if len(waiting) > _GATHER:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting) + _entry(b"E", "", b"", len(files), rows)


def _entry(kind: bytes, name: str, value: bytes, a: int, b: int) -> bytes:
    encoded = name.encode()
    return _HEAD.pack(kind, len(encoded), len(value), a, b) + encoded + value


def unpack(stream: Iterable[bytes]) -> Iterator[File | SnapshotRow]:
    """The entries again. Raises Damaged, also for a name that leads out of the data directory."""
    files = rows = 0
    reader = _Reader(stream)
    while True:
        kind, name_length, length, a, b = _HEAD.unpack(reader.take(_HEAD.size))
        name, value = reader.take(name_length).decode(errors="replace"), reader.take(length)
        if kind == b"R":
            rows += 1
            yield SnapshotRow(name, a, b, value)
        elif kind == b"F":
            files += 1
            yield File(_checked(name), a & 0o777, value)
        elif kind == b"E":
            if (a, b) != (files, rows):
                raise Damaged("it is not complete")
            return
        else:
            raise Damaged("it holds what this version does not know")


def _checked(name: str) -> str:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] not in {(each,) for each in (*FOLDERS, *FILES)}:
        raise Damaged(f"it holds a file that belongs to no snapshot: {name[:80]!r}")
    return name


class _Reader:
    """Exact numbers of bytes from a stream of pieces."""

    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream, self._left, self._at = iter(stream), b"", 0

    def take(self, count: int) -> bytes:
        while len(self._left) - self._at < count:
            piece = next(self._stream, None)
            if piece is None:
                raise Damaged("it is cut short")
            self._left, self._at = self._left[self._at :] + piece, 0
        self._at += count
        return self._left[self._at - count : self._at]
