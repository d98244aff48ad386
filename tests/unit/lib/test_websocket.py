"""WebSocket frames as clients send them: sizes, fragments, control frames in between, and broken ones."""

import os
import struct

import pytest

from edgekube.lib import websocket as ws


def masked(kind: int, data: bytes, *, fin: bool = True) -> bytes:
    mask, size = os.urandom(4), len(data)
    if size < 126:
        head = struct.pack(">BB", (0x80 if fin else 0) | kind, 0x80 | size)
    elif size < 65536:
        head = struct.pack(">BBH", (0x80 if fin else 0) | kind, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", (0x80 if fin else 0) | kind, 0x80 | 127, size)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


def test_accept_key_of_the_rfc() -> None:
    assert ws.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_001])
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_sizes(size: int, step: int) -> None:
    data = os.urandom(size)
    parser, sent = ws.Parser(), masked(ws.BINARY, data)
    found = [message for at in range(0, len(sent), step) for message in parser.receive(sent[at : at + step])]
    assert found == [ws.Message(ws.BINARY, data)]


def test_fragments_with_a_ping_between() -> None:
    sent = masked(ws.TEXT, b"he", fin=False) + masked(ws.PING, b"p") + masked(ws.CONTINUATION, b"llo")
    assert list(ws.Parser().receive(sent)) == [ws.Message(ws.PING, b"p"), ws.Message(ws.TEXT, b"hello")]


@pytest.mark.parametrize(
    "data",
    [
        ws.frame(ws.BINARY, b"unmasked"),
        masked(3, b"reserved opcode"),
        masked(ws.CONTINUATION, b"of nothing"),
        masked(ws.TEXT, b"a", fin=False) + masked(ws.TEXT, b"b"),
        masked(ws.PING, b"x", fin=False),
        struct.pack(">BBQ", 0x82, 0xFF, ws.MAX_MESSAGE + 1),
    ],
)
def test_broken_frames(data: bytes) -> None:
    with pytest.raises(ws.WebSocketError):
        list(ws.Parser().receive(data))


@pytest.mark.parametrize("size", [5, 300, 70_000])
def test_server_frames(size: int) -> None:
    sent = ws.frame(ws.BINARY, b"x" * size)
    assert sent.endswith(b"x" * size)
    assert sent[0] == 0x82
    assert not sent[1] & 0x80


def test_choose_protocol() -> None:
    assert ws.choose_protocol("a, v4.x , b", ("b", "v4.x")) == "v4.x"
    assert ws.choose_protocol("a", ("b",)) is None
