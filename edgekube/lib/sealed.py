"""A small set of named records in one encrypted file: what must survive a reboot on a machine that somebody may carry away.

Context: a node keeps Secrets of its pods to start without a server. SD cards wear out, power fails in the middle of a write.
Decision: an append-only log of batches. A batch is compressed, then sealed with AES-256-GCM under a random nonce; what is authenticated
with it names the file (random per file), the batch's number and the seal of the batch before: batches can not be swapped, left out,
repeated or brought in from an older file. A file that is mostly history is written anew, whole, and renamed over the old one.

    file  = MAGIC(8) file-id(16) batch*            batch  = length(4) nonce(12) sealed
    plain = zlib(record*)                          record = name-length(2) name value-length(4) value   (GONE as length: deleted)

Promises: after a power cut the file holds every batch whose `append` returned, and perhaps the one under way, never half of one; a file
that was damaged or tampered with in any place but its end opens as Damaged, never as something else; a torn end is told (`torn`).
It does not notice that the *whole* file, or its end, was put back to an earlier state: that needs a counter outside of the disk, which,
like a key that is not on it, is what a TPM would add (see KeySource).
"""

import contextlib
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from edgekube.lib.failpoint import hit
from edgekube.lib.files import sync_folder, write_atomic

MAGIC = b"EKSTATE1"
KEY_BYTES = 32
SLACK = 256 << 10  # superseded bytes that are never worth a rewrite
_GONE = 0xFFFFFFFF
_HEADER = len(MAGIC) + 16
_NONCE, _TAG = 12, 16

Changes = Mapping[str, bytes | None]
"""Record name -> its bytes, or None: it is gone."""


class Damaged(Exception):
    """The file can not be read as what this key wrote."""


class KeySource(Protocol):
    """Where the key of this node comes from. A TPM or a remote unlocker is another implementation of this one method."""

    def key(self) -> bytes:
        """32 bytes, the same at each call; made at the first. Raises OSError or ValueError."""


class FileKey:
    """The key in a file of its own, mode 0600, beside what it protects.

    What that is worth: copies of the state file alone (backups, a folder of logs, a pod that mounts the wrong path) tell nothing, and to
    destroy the key file is to destroy the secrets. Who has the whole disk, or is root, has the key too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def key(self) -> bytes:
        """Made anew where there is none, or one that opens nothing any more (a disk has cut it)."""
        try:
            found = self._path.read_bytes()
        except FileNotFoundError:
            found = b""
        if len(found) != KEY_BYTES:
            found = secrets.token_bytes(KEY_BYTES)
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self._path, found, mode=0o600)
        if self._path.stat().st_mode & 0o077:
            self._path.chmod(0o600)
        return found


class SealedLog:
    """See the module. Blocks: call it from one thread at a time, not the loop's. `load` comes first."""

    def __init__(self, path: Path, keys: KeySource) -> None:
        self._path, self._keys = path, keys
        self._file_id = b""
        self._count = 0
        self._seal = b""  # of the newest batch
        self._end = 0  # where the next one goes; 0: there is no file
        self._base = 0  # where the first one, which is all there was then, ends
        self._key = b""
        self.written = 0  # bytes since the start
        self.torn = False  # the end of the file was left out when it was loaded

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._end

    def load(self) -> dict[str, bytes]:
        """All records; a torn end is left out and overwritten. No file: none. Raises Damaged, OSError."""
        self._file_id, self._count, self._seal, self._end = b"", 0, b"", 0
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        if self._path.stat().st_mode & 0o077:
            self._path.chmod(0o600)
        if len(data) < _HEADER or not data.startswith(MAGIC):
            raise Damaged("it is none of our files")
        self._file_id, self._end = data[len(MAGIC) : _HEADER], _HEADER
        records: dict[str, bytes] = {}
        for start, end in _frames(data):
            opened = self._open(data[start + 4 : end])
            if opened is None:
                if end < len(data) or self._count == 0:  # the first is never torn: it came with the file
                    raise Damaged(f"batch {self._count} was changed, or the key is another one")
                self.torn = True
                break
            _apply(records, opened)
            self._took(data[end - _TAG : end], end)
        return records

    def append(self, changes: Changes) -> None:
        """Add a batch durably. Raises OSError; then nothing was added."""
        if not self._end:
            self.rewrite({name: value for name, value in changes.items() if value is not None})
            return
        frame = self._close(changes.items())
        with open(self._path, "r+b") as file:
            try:
                file.truncate(self._end)  # what a torn write left
                file.seek(self._end)
                hit("sealed.append.before")
                file.write(frame)
                file.flush()
                hit("sealed.append.unsynced")
                os.fdatasync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(self._end)
                raise
        self._took(frame[-_TAG:], self._end + len(frame))
        self.written += len(frame)

    @property
    def mostly_history(self) -> bool:
        """Whether `rewrite` is worth its bytes."""
        return self._end > 2 * self._base + SLACK

    def rewrite(self, records: Mapping[str, bytes]) -> None:
        """Replace the whole file, atomically. Raises OSError; then the old one is as it was."""
        before = self._file_id, self._count, self._seal, self._end
        self._file_id, self._count, self._seal = secrets.token_bytes(16), 0, b""
        try:
            data = MAGIC + self._file_id + self._close(records.items())
            hit("sealed.rewrite.before")
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self._path, data, mode=0o600)
            hit("sealed.rewrite.after")
        except BaseException:
            self._file_id, self._count, self._seal, self._end = before
            raise
        self._took(data[-_TAG:], len(data))
        self.written += len(data)

    def discard(self) -> None:
        """Start empty: the file goes."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            sync_folder(self._path.parent)
        self._file_id, self._count, self._seal, self._end = b"", 0, b"", 0

    def _took(self, seal: bytes, end: int) -> None:
        self._base = self._base if self._count else end
        self._seal, self._end, self._count = seal, end, self._count + 1

    def _bound(self) -> bytes:
        """What a batch is authenticated with: this file, this place, this past."""
        return MAGIC + self._file_id + struct.pack("!Q", self._count) + self._seal

    def _close(self, changes: Iterable[tuple[str, bytes | None]]) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(_NONCE)
        sealed = AESGCM(self._secret()).encrypt(nonce, zlib.compress(_pack(changes), 6), self._bound())
        return struct.pack("!I", _NONCE + len(sealed)) + nonce + sealed

    def _open(self, frame: bytes) -> bytes | None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        secret = self._secret()
        try:
            return zlib.decompress(AESGCM(secret).decrypt(frame[:_NONCE], frame[_NONCE:], self._bound()))
        except (InvalidTag, ValueError, zlib.error):
            return None

    def _secret(self) -> bytes:
        if not self._key:
            self._key = self._keys.key()
        return self._key


def _frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each batch; one that is cut off, or has an impossible length, reaches the end of the file."""
    at = _HEADER
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 4 + length
        if at + 4 > len(data) or length < _NONCE + _TAG or end > len(data):
            end = len(data)
        yield at, end
        at = end


def _pack(changes: Iterable[tuple[str, bytes | None]]) -> bytes:
    parts: list[bytes] = []
    for name, value in changes:
        encoded = name.encode()
        parts += (struct.pack("!H", len(encoded)), encoded, struct.pack("!I", _GONE if value is None else len(value)), value or b"")
    return b"".join(parts)


def _apply(records: dict[str, bytes], plain: bytes) -> None:
    at = 0
    while at < len(plain):
        (length,) = struct.unpack_from("!H", plain, at)
        name = plain[at + 2 : at + 2 + length].decode()
        at += 2 + length
        (size,) = struct.unpack_from("!I", plain, at)
        at += 4
        if size == _GONE:
            records.pop(name, None)
        else:
            records[name] = plain[at : at + size]
            at += size
