"""Read the rows of a database that SQLite will not open or trust, page by page from its file format (sqlite.org/fileformat2.html).

Nothing of the tree is believed: not the header, not the schema, not interior pages. Every page that looks like a leaf is read cell by
cell, and a cell counts only if it has the shape of our rows and its value inflates (zlib carries a checksum). Pages in the WAL replace
those of the file, frame by frame up to the last whole commit, as SQLite's own recovery does. Old copies of rows do no harm: the highest
revision of a key wins.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekube.store.slotlog import PAGE_SIZE, Row

_MAGIC = b"SQLite format 3\0"
_TABLE_LEAF, _INDEX_LEAF = 0x0D, 0x0A
_WAL_HEADER, _FRAME_HEADER = 32, 24
_FIXED = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8, 8: 0, 9: 0}
_BROKEN = (IndexError, ValueError, KeyError, struct.error, zlib.error)  # UnicodeDecodeError is a ValueError


@dataclass(slots=True)
class Found:
    """What could be read."""

    rows: dict[int, Row] = field(default_factory=dict)  # revision -> row
    meta: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> Found:
    """Everything readable of the database at `path` and its WAL. Empty if it is none of ours. Raises OSError."""
    pages = _Pages(path)
    found = Found()
    for number in pages.numbers():
        page = pages.get(number)
        start = 100 if number == 1 else 0
        kind = page[start] if len(page) > start else 0
        if kind not in (_TABLE_LEAF, _INDEX_LEAF):
            continue
        for columns in _cells(pages, page, start, table=kind == _TABLE_LEAF):
            if kind == _TABLE_LEAF:
                row = _row(columns)
                if row is not None:
                    found.rows[row.revision] = row
            elif len(columns) == 2 and all(isinstance(column, str) for column in columns):
                found.meta[columns[0]] = columns[1]
    return found


class _Pages:
    """The newest committed image of every page."""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        size = struct.unpack(">H", self._data[16:18])[0] if self._data.startswith(_MAGIC) else PAGE_SIZE
        self.size = size if size in (512, 1024, 2048, 4096, 8192, 16384, 32768) else PAGE_SIZE
        try:
            self._newer = _wal(Path(f"{path}-wal").read_bytes(), self.size)
        except (FileNotFoundError, struct.error):
            self._newer = {}

    def numbers(self) -> range:
        return range(1, max(len(self._data) // self.size, max(self._newer, default=0)) + 1)

    def get(self, number: int) -> bytes:
        newer = self._newer.get(number)
        return newer if newer is not None else self._data[(number - 1) * self.size : number * self.size]


def _wal(data: bytes, size: int) -> Mapping[int, bytes]:
    """Page images of the whole commits in a WAL."""
    magic, _, page_size, _, salt1, salt2, sum1, sum2 = struct.unpack(">8I", data[:_WAL_HEADER])
    if magic not in (0x377F0682, 0x377F0683) or page_size != size:
        return {}
    words = ">" if magic & 1 else "<"
    sums = _checksum(data[:24], (0, 0), words)
    if sums != (sum1, sum2):
        return {}
    committed: dict[int, bytes] = {}
    pending: dict[int, bytes] = {}
    for at in range(_WAL_HEADER, len(data) - _FRAME_HEADER - size + 1, _FRAME_HEADER + size):
        number, commit, one, two, sum1, sum2 = struct.unpack(">6I", data[at : at + _FRAME_HEADER])
        page = data[at + _FRAME_HEADER : at + _FRAME_HEADER + size]
        sums = _checksum(page, _checksum(data[at : at + 8], sums, words), words)
        if (one, two) != (salt1, salt2) or sums != (sum1, sum2):
            break
        pending[number] = page
        if commit:
            committed |= pending
            pending = {}
    return committed


def _checksum(data: bytes, sums: tuple[int, int], words: str) -> tuple[int, int]:
    first, second = sums
    numbers = struct.unpack(f"{words}{len(data) // 4}I", data)
    for index in range(0, len(numbers), 2):
        first = (first + numbers[index] + second) & 0xFFFFFFFF
        second = (second + numbers[index + 1] + first) & 0xFFFFFFFF
    return first, second


def _cells(pages: _Pages, page: bytes, start: int, *, table: bool) -> Iterator[Sequence[Any]]:
    """The columns of every readable cell of a leaf."""
    count = struct.unpack(">H", page[start + 3 : start + 5])[0]
    for index in range(min(count, pages.size // 4)):
        try:
            (at,) = struct.unpack(">H", page[start + 8 + 2 * index : start + 10 + 2 * index])
            yield _columns(_payload(pages, page, at, table=table))
        except _BROKEN:
            continue


def _payload(pages: _Pages, page: bytes, at: int, *, table: bool) -> bytes:
    """A cell's record, with what overflowed to other pages."""
    total, at = _varint(page, at)
    if table:
        _, at = _varint(page, at)  # rowid
    if total > 16 * 1024 * 1024:
        raise ValueError("no record of ours is that long")
    size = pages.size
    most = size - 35 if table else (size - 12) * 64 // 255 - 23
    if total <= most:
        return page[at : at + total]
    least = (size - 12) * 32 // 255 - 23
    local = least + (total - least) % (size - 4)
    if local > most:
        local = least
    parts, left = [page[at : at + local]], total - local
    (following,) = struct.unpack(">I", page[at + local : at + local + 4])
    while left > 0:
        more = pages.get(following)
        (following,) = struct.unpack(">I", more[:4])
        part = more[4 : 4 + min(left, size - 4)]
        if not part:
            raise ValueError("overflow page missing")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _columns(record: bytes) -> Sequence[Any]:
    size, at = _varint(record, 0)
    types = []
    while at < size:
        kind, at = _varint(record, at)
        types.append(kind)
    found: list[Any] = []
    at = size
    for kind in types:
        length = _FIXED[kind] if kind < 12 else (kind - 12) // 2
        raw = record[at : at + length]
        if len(raw) != length:
            raise ValueError("record cut short")
        at += length
        if kind == 0:
            found.append(None)
        elif kind in (8, 9):
            found.append(kind - 8)
        elif kind < 7:
            found.append(int.from_bytes(raw, "big", signed=True))
        elif kind >= 12:
            found.append(raw.decode() if kind % 2 else raw)
        else:
            raise ValueError("no column of ours has this type")
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9


def _row(columns: Sequence[Any]) -> Row | None:
    """A row of ours, or None: (NULL for the rowid, revision, key, creation, state, value)."""
    if len(columns) != 6 or columns[0] is not None:
        return None
    _, revision, key, create, state, value = columns
    shaped = isinstance(revision, int) and isinstance(key, str) and isinstance(create, int) and isinstance(value, bytes)
    if not shaped or not 0 < create <= revision or state not in (1, 2, 3, 4) or "/" not in key:
        return None
    try:
        return Row(revision, key, create, state > 2, zlib.decompress(value) if state in (2, 4) else value)
    except zlib.error:
        return None
