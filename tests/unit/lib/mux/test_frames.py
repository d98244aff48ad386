"""Framing of a multiplexed connection: any pieces in, the same frames out; and every way in which a peer can be wrong."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekube.lib.mux import frames
from edgekube.lib.mux.frames import Decoder, Frame, ProtocolError

STREAMS = st.integers(1, 2**32 - 1)
TEXT = st.text(max_size=200)
ANY = st.one_of(
    st.builds(lambda s, d: (Frame(frames.DATA, s, d), frames.header(frames.DATA, s, len(d)) + d), STREAMS, st.binary(min_size=1, max_size=300)),
    st.builds(lambda s, n: (Frame(frames.WINDOW, s, struct.pack(">I", n)), frames.window(s, n)), STREAMS, st.integers(0, 2**32 - 1)),
    st.builds(lambda s, t: (Frame(frames.RESET, s, t.encode()), frames.reset(s, t)), STREAMS, TEXT),
    st.builds(lambda s, t: (Frame(frames.OPEN, s, f"kind {t}".encode()), frames.opening(s, "kind", t)), STREAMS, TEXT),
    st.builds(lambda s: (Frame(frames.END, s, b""), frames.frame(frames.END, s)), STREAMS),
    st.builds(lambda s: (Frame(frames.CLOSE, s, b""), frames.frame(frames.CLOSE, s)), STREAMS),
    st.builds(lambda d: (Frame(frames.PING, 0, d), frames.frame(frames.PING, 0, d)), st.binary(min_size=8, max_size=8)),
    st.builds(lambda t: (Frame(frames.GOODBYE, 0, b"\0" + t.encode()), frames.goodbye(0, t)), TEXT),
)


@given(st.lists(ANY, max_size=20), st.lists(st.integers(0, 4000), max_size=20))
def test_any_pieces_give_the_same_frames(pairs, cuts):
    wire = b"".join(encoded for _, encoded in pairs)
    decoder, found = Decoder(), []
    places = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    for start, end in itertools.pairwise(places):
        found += decoder.feed(wire[start:end])
    assert found == [frame for frame, _ in pairs]


@given(st.lists(st.binary(max_size=100), max_size=30))
def test_garbage_is_an_error_or_waited_for_and_never_piles_up(pieces):
    decoder = Decoder()
    try:
        for piece in pieces:
            decoder.feed(piece)
    except ProtocolError:
        return
    assert len(decoder._rest) <= frames.MAX_DATA + 8


def raw(kind, stream, payload=b"", *, length=None):
    return struct.pack(">II", kind << 24 | (len(payload) if length is None else length), stream) + payload


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (raw(0, 0), "it sent a frame of the unknown kind 0"),
        (raw(11, 1), "it sent a frame of the unknown kind 11"),
        (raw(frames.DATA, 1, length=frames.MAX_DATA + 1), f"it sent DATA with {frames.MAX_DATA + 1} bytes"),
        (raw(frames.DATA, 1), "it sent DATA with 0 bytes"),
        (raw(frames.DATA, 0, b"x"), "it sent DATA on stream 0"),
        (raw(frames.PING, 3, bytes(8)), "it sent PING on stream 3"),
        (raw(frames.PING, 0, bytes(7)), "it sent PING with 7 bytes"),
        (raw(frames.WINDOW, 1, bytes(3)), "it sent WINDOW with 3 bytes"),
        (raw(frames.END, 1, b"x"), "it sent END with 1 bytes"),
        (raw(frames.OPEN, 1), "it sent OPEN with 0 bytes"),
        (raw(frames.OPEN, 1, length=0xFFFFFF), "it sent OPEN with 16777215 bytes"),
        (raw(frames.GOODBYE, 0), "it sent GOODBYE with 0 bytes"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it sent a frame of the unknown kind 72"),
    ],
)
def test_what_is_no_frame_is_refused_from_its_header_on(data, why):
    with pytest.raises(ProtocolError) as caught:
        Decoder().feed(data)
    assert str(caught.value) == why


def test_hello_of_a_later_version_may_be_longer_and_others_are_refused():
    assert frames.parse_hello(struct.pack(">III", 1, 65536, 10) + b"more") == (65536, 10)
    with pytest.raises(ProtocolError, match="it speaks version 2 of the protocol, and only 1 is spoken here"):
        frames.parse_hello(struct.pack(">III", 2, 65536, 10))
    for window in (0, 100, 2**32 - 1):
        with pytest.raises(ProtocolError, match=f"a window of {window} bytes"):
            frames.parse_hello(struct.pack(">III", 1, window, 10))


def test_texts_are_clipped_and_openings_checked():
    assert Decoder().feed(frames.reset(1, "ä" * 2000))[0].payload.decode() == "ä" * 511
    assert frames.parse_opening(b"http") == ("http", "")
    assert frames.parse_opening(b"pod a b") == ("pod", "a b")
    for payload in (b" x", b"\xff"):
        with pytest.raises(ProtocolError):
            frames.parse_opening(payload)
    for kind, label in (("", "x"), ("a b", ""), ("a", "x" * 2000)):
        with pytest.raises(ValueError, match="too long"):
            frames.opening(1, kind, label)
