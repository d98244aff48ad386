"""SPDY/3.1 framing: both directions, in pieces, and what a broken or hostile peer sends."""

import struct
import zlib

import pytest

from edgekube.lib import spdy


def frames(session: spdy.Session, data: bytes, step: int) -> list[spdy.Frame]:
    return [frame for at in range(0, len(data), step) for frame in session.receive(data[at : at + step])]


def test_dictionary_is_the_protocols() -> None:
    """Its checksum is what zlib puts into every header block, so a wrong byte would make every peer refuse us."""
    assert (len(spdy.dictionary()), zlib.adler32(spdy.dictionary())) == (1423, 0xE3C6A7C2)


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_round_trip(step: int) -> None:
    out, into = spdy.Session(), spdy.Session()
    sent = b"".join((
        out.syn_stream(1, {"StreamType": "error", "port": "80"}),
        out.syn_stream(3, {"streamtype": "data", "port": "80", "requestid": "0"}, fin=True),
        out.syn_reply(1, {"a": "ä"}),
        out.data(1, b"x" * 1000),
        out.data(1, b"", fin=True),
        out.ping(7),
        out.rst_stream(3, spdy.CANCEL),
        out.goaway(3),
    ))  # fmt: skip
    found = frames(into, sent, step)
    assert [(frame.kind, frame.stream, frame.fin, frame.status) for frame in found] == [
        (spdy.SYN_STREAM, 1, False, 0), (spdy.SYN_STREAM, 3, True, 0), (spdy.SYN_REPLY, 1, False, 0), (0, 1, False, 0), (0, 1, True, 0),
        (spdy.PING, 0, False, 7), (spdy.RST_STREAM, 3, False, spdy.CANCEL), (spdy.GOAWAY, 3, False, 0),
    ]  # fmt: skip
    assert found[0].headers == {"streamtype": "error", "port": "80"}
    assert found[1].headers["requestid"] == "0"
    assert found[2].headers == {"a": "ä"}
    assert found[3].data == b"x" * 1000


def test_settings_and_windows_are_passed_over() -> None:
    session = spdy.Session()
    settings = struct.pack(">HHI", 0x8003, spdy.SETTINGS, 4) + struct.pack(">I", 0)
    window = struct.pack(">HHI", 0x8003, spdy.WINDOW_UPDATE, 8) + struct.pack(">II", 1, 65536)
    assert [frame.kind for frame in session.receive(settings + window + session.ping(1))] == [spdy.PING]


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">HHI", 0x8002, 1, 10) + bytes(10),  # version 2
        struct.pack(">HHI", 0x8003, spdy.SYN_STREAM, 12) + bytes(10) + b"no",  # no zlib
        struct.pack(">HHI", 0x8003, spdy.PING, 0),  # too short
        struct.pack(">II", 1, spdy.MAX_FRAME + 1),  # too long
    ],
)
def test_nonsense_is_an_error(data: bytes) -> None:
    with pytest.raises(spdy.SpdyError):
        list(spdy.Session().receive(data))


def test_a_header_bomb_is_an_error() -> None:
    """A small block that unpacks to much more than any header needs."""
    packer = zlib.compressobj(zdict=spdy.dictionary())
    block = packer.compress(struct.pack(">I", 1) + bytes(8 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    frame = struct.pack(">HHI", 0x8003, spdy.SYN_STREAM, 10 + len(block)) + struct.pack(">IIBB", 1, 0, 0, 0) + block
    with pytest.raises(spdy.SpdyError):
        list(spdy.Session().receive(frame))
