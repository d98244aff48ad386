"""One file that is whole or refused: a plain header, then deflated blocks, encrypted with a passphrase if one is given, then a checksum.

    file  = MAGIC(8) length(4) header(JSON) frame* 0(4) sha256(32) of everything before        frame = length(4) block
    block = up to BLOCK bytes of one zlib stream; sealed: AES-256-GCM of them, under the nonce prefix(7) number(4) last(1), authenticated
            with the header, so that blocks can not be swapped, left out or brought in from another file
    key   = scrypt(passphrase, salt); its parameters are in the header (`sealed`), so that they may grow

The checksum is for accidents and is looked at first: a wrong passphrase and a damaged file are told apart. Forgery is for the seal.
Writing is paced: synced block by block, so that nobody else's sync waits for all of it. Everything here blocks.
"""

import hashlib
import json
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgekube.lib.failpoint import hit
from edgekube.lib.files import sync_folder

MAGIC = b"EKSNAP\r\n"  # a transfer that changes line ends shows
BLOCK = 256 << 10
_SYNC_EVERY = 4  # blocks
_LARGEST_HEADER = 1 << 20
_SUM = 32
_SCRYPT = {"kdf": "scrypt", "n": 1 << 15, "r": 8, "p": 1}  # 32 MiB, a tenth of a second
_MOST_MEMORY = 256 << 20  # a header may ask for no more


class Damaged(Exception):
    """The file is not what was written. The message is the middle of a line: what is wrong."""


class WrongPassphrase(Exception):
    """The passphrase is missing, not needed or another one."""


@dataclass(frozen=True, slots=True)
class Seal:
    """A key and how it was made from a passphrase; `how` goes into the header."""

    key: bytes
    how: Mapping[str, Any]


def make_seal(passphrase: bytes) -> Seal:
    """For a new file. Slow on purpose."""
    how = {**_SCRYPT, "salt": secrets.token_hex(16), "prefix": secrets.token_hex(7)}
    return Seal(_derive(passphrase, how), how)


def _derive(passphrase: bytes, how: Mapping[str, Any]) -> bytes:
    try:
        n, r, p = int(how["n"]), int(how["r"]), int(how["p"])
        if how["kdf"] != "scrypt" or 128 * n * r > _MOST_MEMORY:
            raise ValueError("not a key derivation that this version knows")
        return hashlib.scrypt(passphrase, salt=bytes.fromhex(how["salt"]), n=n, r=r, p=p, maxmem=2 * _MOST_MEMORY, dklen=32)
    except (KeyError, ValueError, TypeError) as error:
        raise Damaged(f"its encryption can not be read: {error}") from None


def write(path: Path, header: Mapping[str, Any], parts: Iterable[bytes], seal: Seal | None = None) -> int:
    """Make `path`, which appears whole or not at all; its size. Raises OSError, FileExistsError if it is there."""
    if path.exists():
        raise FileExistsError(17, "it exists already", str(path))
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            _Writer(file, header, seal).all(parts)
            size = file.tell()
            hit("archive.before-sync")
            os.fsync(file.fileno())
        hit("archive.before-rename")
        aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)
    return size


class _Writer:
    def __init__(self, file: IO[bytes], header: Mapping[str, Any], seal: Seal | None) -> None:
        self._file, self._sum, self._number, self._seal = file, hashlib.sha256(), 0, seal
        full = dict(header) | ({"sealed": dict(seal.how)} if seal else {})
        text = json.dumps(full, sort_keys=True).encode()
        self._head = MAGIC + struct.pack("!I", len(text)) + text
        self._put(self._head)

    def all(self, parts: Iterable[bytes]) -> None:
        deflate = zlib.compressobj(3)
        waiting = bytearray()
        for part in parts:
            waiting += deflate.compress(part)
            while len(waiting) > BLOCK:  # never empty afterwards: the last block is sealed as such
                self._block(bytes(waiting[:BLOCK]), last=False)
                del waiting[:BLOCK]
        waiting += deflate.flush()
        while len(waiting) > BLOCK:
            self._block(bytes(waiting[:BLOCK]), last=False)
            del waiting[:BLOCK]
        self._block(bytes(waiting), last=True)
        self._put(struct.pack("!I", 0))
        self._file.write(self._sum.digest())
        self._file.flush()

    def _block(self, plain: bytes, *, last: bool) -> None:
        hit("archive.block")
        block = plain
        if self._seal is not None:
            block = _cipher(self._seal.key).encrypt(_nonce(self._seal.how, self._number, last), plain, self._head)
        self._put(struct.pack("!I", len(block)))
        self._put(block)
        self._number += 1
        if self._number % _SYNC_EVERY == 0:
            self._file.flush()
            os.fdatasync(self._file.fileno())

    def _put(self, data: bytes) -> None:
        self._sum.update(data)
        self._file.write(data)


def sync(file: IO[bytes], folder: Path) -> None:
    """What was written to it is on the disk, and so is its name in `folder`."""
    os.fsync(file.fileno())
    sync_folder(folder)


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _nonce(how: Mapping[str, Any], number: int, last: bool) -> bytes:
    return bytes.fromhex(how["prefix"]) + struct.pack("!IB", number, last)


def read_header(path: Path) -> dict[str, Any]:
    """The header alone, nothing checked. Raises Damaged, OSError."""
    with path.open("rb") as file:
        return _header(file)[0]


def _header(file: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    start = file.read(len(MAGIC) + 4)
    if not start.startswith(MAGIC):
        raise Damaged("it is empty" if not start else "it is no snapshot of edgekube")
    (length,) = struct.unpack_from("!I", start.ljust(len(MAGIC) + 4, b"\xff"), len(MAGIC))
    text = file.read(length) if length <= _LARGEST_HEADER else b""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Damaged("its header is damaged")
    return found, start + text


def verify(path: Path) -> dict[str, Any]:
    """Read all of it and compare the checksum; the header. Raises Damaged, OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header, head = _header(file)
        left, found = size - len(head) - _SUM, hashlib.sha256(head)
        while left > 0 and (data := file.read(min(left, BLOCK))):
            found.update(data)
            left -= len(data)
        if left != 0 or file.read() != found.digest():
            raise Damaged("it is damaged or cut short: its checksum does not fit")
    return header


def read(path: Path, passphrase: bytes | None = None) -> Iterator[bytes]:
    """What `write` was given, in other pieces, as it is read. `verify` first. Raises Damaged, WrongPassphrase, OSError."""
    with path.open("rb") as file:
        header, head = _header(file)
        how = header.get("sealed")
        if how is not None and passphrase is None:
            raise WrongPassphrase("it is encrypted: give its passphrase with --passphrase-file")
        if how is None and passphrase is not None:
            raise WrongPassphrase("it is not encrypted: leave --passphrase-file out")
        blocks = _frames(file)
        if how is not None and passphrase is not None:
            blocks = _opened(blocks, _derive(passphrase, how), how, head)
        inflate = zlib.decompressobj()
        try:
            for block in blocks:
                yield inflate.decompress(block)
            yield inflate.flush()
        except zlib.error as error:
            raise Damaged(f"it is damaged: {error}") from None
        if not inflate.eof:
            raise Damaged("it is cut short")


def _frames(file: IO[bytes]) -> Iterator[bytes]:
    while True:
        head = file.read(4)
        length = int.from_bytes(head, "big") if len(head) == 4 else -1
        if length == 0:
            return
        block = file.read(length) if 0 < length <= 2 * BLOCK else b""
        if len(block) != length:
            raise Damaged("it is cut short")
        yield block


def _opened(blocks: Iterator[bytes], key: bytes, how: Mapping[str, Any], head: bytes) -> Iterator[bytes]:
    from cryptography.exceptions import InvalidTag

    cipher, number, block = _cipher(key), 0, next(blocks, b"")
    while block:
        following = next(blocks, b"")
        try:
            yield cipher.decrypt(_nonce(how, number, not following), block, head)
        except (InvalidTag, ValueError):
            if number == 0:
                raise WrongPassphrase("the passphrase is not the one it was made with") from None
            raise Damaged("it was changed: a block is not what was sealed") from None
        number, block = number + 1, following
