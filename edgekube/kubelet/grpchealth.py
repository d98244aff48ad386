"""grpc.health.v1.Health/Check over cleartext HTTP/2, by hand: one unary call needs a preface, SETTINGS, HEADERS and DATA, and no more.

Requests use HPACK literals without indexing, so nothing is compressed on the way out. Of the answer only DATA and the grpc-status trailer
matter; its headers are decoded by the library `hpack`.
"""

import asyncio
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpack import Decoder

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_END_STREAM, _END_HEADERS, _ACK, _PADDED, _PRIORITY = 0x1, 0x4, 0x1, 0x8, 0x20
_MAX_FRAME = 1 << 20
SERVING = 1


class GrpcFailed(Exception):
    """No usable answer."""


@dataclass(slots=True)
class _Reply:
    body: bytearray = field(default_factory=bytearray)
    block: bytearray = field(default_factory=bytearray)
    headers: dict[str, str] = field(default_factory=dict)
    ended: bool = False


async def check(host: str, port: int, service: str, *, timeout: float) -> int:
    """The ServingStatus (SERVING is 1). Raises GrpcFailed, OSError, TimeoutError."""
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _call(host, port, service))
            await writer.drain()
            return _status(await _reply(reader, writer))
        except asyncio.IncompleteReadError as error:
            raise GrpcFailed("the connection was closed before an answer") from error
        finally:
            writer.transport.abort()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(name: str, value: str) -> bytes:
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    out, rest = bytearray((127,)), len(data) - 127
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return bytes(out) + data


def _call(host: str, port: int, service: str) -> bytes:
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    pairs = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("user-agent", "kube-probe/1.36"),
        ("te", "trailers"),
    )
    head = b"".join(_literal(name, value) for name, value in pairs)
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    body = b"\x00" + struct.pack(">I", len(message)) + message
    return _frame(_HEADERS, _END_HEADERS, 1, head) + _frame(_DATA, _END_STREAM, 1, body)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


async def _reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Reply:
    from hpack import Decoder, HPACKError  # imported when the first gRPC probe runs

    decoder, reply = Decoder(), _Reply()
    while not reply.ended:
        head = await reader.readexactly(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        if length > _MAX_FRAME:
            raise GrpcFailed("the answer is not HTTP/2")
        payload = await reader.readexactly(length)
        stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RST, _GOAWAY):
            raise GrpcFailed("the server ended the call")
        elif stream == 1:
            try:
                _take(reply, decoder, kind, flags, payload)
            except HPACKError as error:
                raise GrpcFailed(f"the answer's headers cannot be read: {error}") from error
    return reply


def _take(reply: _Reply, decoder: "Decoder", kind: int, flags: int, payload: bytes) -> None:
    if kind == _DATA:
        reply.body += _unpadded(payload, flags)
    elif kind == _HEADERS:
        data = _unpadded(payload, flags)
        reply.block = bytearray(data[5:] if flags & _PRIORITY else data)
    elif kind == _CONTINUATION:
        reply.block += payload
    if kind in (_HEADERS, _CONTINUATION) and flags & _END_HEADERS:
        reply.headers.update({str(name): str(value) for name, value in decoder.decode(bytes(reply.block))})
    if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
        reply.ended = True


def _unpadded(payload: bytes, flags: int) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED and payload else payload


def _status(reply: _Reply) -> int:
    code = reply.headers.get("grpc-status", "0")
    if code == "12":
        raise GrpcFailed("this server does not implement the grpc health protocol (grpc.health.v1.Health)")
    if code != "0":
        raise GrpcFailed(f"rpc error: code = {code} desc = {reply.headers.get('grpc-message', '')}")
    message = bytes(reply.body[5:])
    number, shift = 0, 0
    if len(message) < 2 or message[0] != 0x08:
        return 0
    for byte in message[1:]:
        number |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            break
    return number
