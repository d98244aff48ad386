"""SPDY/3.1 framing, sans I/O: what older kubectl speaks for exec and attach, and every kubectl for port-forward (inside a WebSocket).

    0                   1                   2                   3          control: 1|version(15)|type(16)   data: 0|stream id(31)
    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1        then    flags(8)|length(24), then the payload

Header blocks of one direction are one zlib stream with a fixed dictionary, so frames must be fed in order. Flow control is lenient, as in
the Go library on the other end: WINDOW_UPDATE is neither sent nor heeded; the transport's own backpressure does the work.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN, UNIDIRECTIONAL = 1, 2
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 1, 2, 3, 5, 6
MAX_FRAME = 1 << 20
PIECE = 32 << 10

_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization "
    "cache-control connection content-base content-encoding content-language content-length content-location content-md5 content-range "
    "content-type date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified "
    "location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding "
    "upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information"
    "204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error"
    "501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, "
    "Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,public"
    "privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


class SpdyError(Exception):
    """The other side does not speak SPDY/3."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. `kind` 0 is data; `headers` for SYN_STREAM, SYN_REPLY and HEADERS; `status` for RST_STREAM, PING (its id) and GOAWAY."""

    kind: int
    stream: int = 0
    fin: bool = False
    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 0


def dictionary() -> bytes:
    """The protocol's compression dictionary: common names, each with its length, then common values."""
    names = (name.replace("_", " ").encode() for name in _NAMES.split())
    return b"".join(struct.pack(">I", len(name)) + name for name in names) + _TAIL.encode()


class Session:
    """Both directions of one connection."""

    def __init__(self) -> None:
        words = dictionary()
        self._inflate = zlib.decompressobj(zdict=words)
        self._deflate = zlib.compressobj(zdict=words)
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Iterator[Frame]:
        """Frames completed by `data`. Raises SpdyError."""
        self._buffer += data
        while len(self._buffer) >= 8:
            word, rest = struct.unpack_from(">II", self._buffer)
            length = rest & 0xFFFFFF
            if length > MAX_FRAME:
                raise SpdyError(f"a frame of {length} bytes")
            if len(self._buffer) < 8 + length:
                return
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            frame = self._parse(word, rest >> 24, payload)
            if frame is not None:
                yield frame

    def syn_stream(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        return _control(SYN_STREAM, FIN if fin else 0, struct.pack(">IIBB", stream, 0, 0, 0) + self._pack(headers))

    def syn_reply(self, stream: int, headers: Mapping[str, str] | None = None) -> bytes:
        return _control(SYN_REPLY, 0, struct.pack(">I", stream) + self._pack(headers or {}))

    def rst_stream(self, stream: int, status: int) -> bytes:
        return _control(RST_STREAM, 0, struct.pack(">II", stream, status))

    def ping(self, number: int) -> bytes:
        return _control(PING, 0, struct.pack(">I", number))

    def goaway(self, last_stream: int, status: int = 0) -> bytes:
        return _control(GOAWAY, 0, struct.pack(">II", last_stream, status))

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> bytes:
        return struct.pack(">II", stream, (int(fin) << 24) | len(data)) + data

    def _parse(self, word: int, flags: int, payload: bytes) -> Frame | None:
        fin = bool(flags & FIN)
        if not word & 0x80000000:
            return Frame(0, stream=word, fin=fin, data=payload)
        if word >> 16 & 0x7FFF != VERSION:
            raise SpdyError(f"SPDY version {word >> 16 & 0x7FFF}")
        kind = word & 0xFFFF
        try:
            if kind == SYN_STREAM:
                return Frame(kind, stream=_id(payload), fin=fin, headers=self._unpack(payload[10:]))
            if kind in (SYN_REPLY, HEADERS):
                return Frame(kind, stream=_id(payload), fin=fin, headers=self._unpack(payload[4:]))
            if kind in (RST_STREAM, GOAWAY):
                return Frame(kind, stream=_id(payload), status=struct.unpack_from(">I", payload, 4)[0])
            if kind == PING:
                return Frame(kind, status=struct.unpack_from(">I", payload)[0])
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise SpdyError(f"a broken frame of type {kind}: {error}") from error
        return None  # SETTINGS, WINDOW_UPDATE and what a later minor version may add

    def _unpack(self, block: bytes) -> dict[str, str]:
        text = self._inflate.decompress(block, MAX_FRAME)
        if self._inflate.unconsumed_tail:
            raise zlib.error("header block too large")
        count = struct.unpack_from(">I", text)[0]
        at, headers = 4, {}
        for _ in range(count):
            parts = []
            for _ in range(2):
                length = struct.unpack_from(">I", text, at)[0]
                parts.append(text[at + 4 : at + 4 + length].decode())
                at += 4 + length
            headers[parts[0].lower()] = parts[1].partition("\0")[0]
        return headers

    def _pack(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts += [struct.pack(">I", len(text)), text]
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack(">HHI", 0x8000 | VERSION, kind, flags << 24 | len(payload)) + payload


def _id(payload: bytes) -> int:
    return int(struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF)
