"""The frames of a multiplexed connection, pure: bytes to frames and back.

    u32 kind << 24 | length    u32 stream    payload

    HELLO    version u32, window u32, streams u32     the first frame of each side: what it takes per stream, and how many from the other
    OPEN     "kind label"                             a new stream; the dialing side counts odd numbers, the other even ones, upwards
    DATA     bytes                                    never more than the window of the stream still allows
    END                                               no more data will come from here; the other direction stays open
    CLOSE                                             END, and what still comes from there will not be read
    RESET    why                                      the stream is broken, or was refused
    WINDOW   u32                                      so many bytes more may be sent on the stream
    PING     8 bytes                                  answered by PONG with the same bytes
    GOODBYE  code u8, why                             0: open no more streams here; 1: the connection ends now

Integers are big-endian. HELLO and OPEN may be longer in later versions of the same number; anything else that is odd is a ProtocolError.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

VERSION = 1
HELLO, OPEN, DATA, END, CLOSE, RESET, WINDOW, PING, PONG, GOODBYE = range(1, 11)
NAMES = ("", "HELLO", "OPEN", "DATA", "END", "CLOSE", "RESET", "WINDOW", "PING", "PONG", "GOODBYE")
MAX_DATA = 64 * 1024
MAX_TEXT = 1024
MAX_WINDOW = 16 * 1024 * 1024
MIN_WINDOW = 4096
DRAIN, END_NOW = 0, 1

_HEADER = struct.Struct(">II")
_THREE = struct.Struct(">III")
_U32 = struct.Struct(">I")
# Shortest and longest payload, and whether the frame belongs to a stream.
_RULES = {
    HELLO: (12, MAX_TEXT, False),
    OPEN: (1, MAX_TEXT, True),
    DATA: (1, MAX_DATA, True),
    END: (0, 0, True),
    CLOSE: (0, 0, True),
    RESET: (0, MAX_TEXT, True),
    WINDOW: (4, 4, True),
    PING: (8, 8, False),
    PONG: (8, 8, False),
    GOODBYE: (1, MAX_TEXT, False),
}


class ProtocolError(Exception):
    """The peer does not keep to the protocol; the message says how."""


class Frame(NamedTuple):
    kind: int
    stream: int
    payload: bytes


class Hello(NamedTuple):
    """What a side takes: bytes per stream before it has to be asked again, and streams that the other opens."""

    window: int
    streams: int


class Decoder:
    """Bytes as they arrive, in any pieces, to frames. Holds at most one frame that is not complete yet."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Sequence[Frame]:
        """The frames that are complete now. Raises ProtocolError as soon as a header is not acceptable."""
        if self._rest:
            data = self._rest + data
        found: list[Frame] = []
        at, size = 0, len(data)
        while size - at >= 8:
            word, stream = _HEADER.unpack_from(data, at)
            kind, length = word >> 24, word & 0xFFFFFF
            rule = _RULES.get(kind)
            if rule is None:
                raise ProtocolError(f"it sent a frame of the unknown kind {kind}")
            if not rule[0] <= length <= rule[1]:
                raise ProtocolError(f"it sent {NAMES[kind]} with {length} bytes")
            if (stream != 0) is not rule[2]:
                raise ProtocolError(f"it sent {NAMES[kind]} on stream {stream}")
            end = at + 8 + length
            if end > size:
                break
            found.append(Frame(kind, stream, data[at + 8 : end]))
            at = end
        self._rest = data[at:] if at else data
        return found


def header(kind: int, stream: int, length: int) -> bytes:
    return _HEADER.pack(kind << 24 | length, stream)


def frame(kind: int, stream: int = 0, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind << 24 | len(payload), stream) + payload


def hello(window: int, streams: int) -> bytes:
    return frame(HELLO, 0, _THREE.pack(VERSION, window, streams))


def parse_hello(payload: bytes) -> Hello:
    """Raises ProtocolError."""
    version, window, streams = _THREE.unpack_from(payload)
    if version != VERSION:
        raise ProtocolError(f"it speaks version {version} of the protocol, and only {VERSION} is spoken here")
    if not MIN_WINDOW <= window <= MAX_WINDOW:
        raise ProtocolError(f"it asked for a window of {window} bytes")
    return Hello(window, streams)


def opening(stream: int, kind: str, label: str) -> bytes:
    """Raises ValueError if that is too long to be sent."""
    payload = f"{kind} {label}".encode()
    if len(payload) > MAX_TEXT or " " in kind or not kind:
        raise ValueError("kind and label of a stream are too long, or the kind is no word")
    return frame(OPEN, stream, payload)


def parse_opening(payload: bytes) -> tuple[str, str]:
    """Kind and label. Raises ProtocolError."""
    kind, _, label = text_of(payload, "OPEN").partition(" ")
    if not kind:
        raise ProtocolError("it opened a stream of no kind")
    return kind, label


def window(stream: int, more: int) -> bytes:
    return frame(WINDOW, stream, _U32.pack(more))


def parse_window(payload: bytes) -> int:
    more: int = _U32.unpack(payload)[0]
    return more


def reset(stream: int, why: str) -> bytes:
    return frame(RESET, stream, _clipped(why))


def goodbye(code: int, why: str) -> bytes:
    return frame(GOODBYE, 0, bytes((code,)) + _clipped(why))


def text_of(payload: bytes, name: str) -> str:
    """Raises ProtocolError."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"it sent {name} with text that is no UTF-8") from error


def _clipped(text: str) -> bytes:
    return text.encode()[: MAX_TEXT - 1].decode(errors="ignore").encode()
