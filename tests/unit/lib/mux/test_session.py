"""Streams over one connection: what they carry, what they hold back, how they end, and what a peer that misbehaves gets."""

import asyncio
import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekube.lib.mux import Refused, SessionClosed, frames
from edgekube.lib.mux.keepalive import Patience
from tests.kit.muxpair import against_raw, pair, talk
from tests.kit.until import until

HELLO = frames.hello(65536, 8)


class Recorder(asyncio.Protocol):
    """What a transport told its protocol."""

    def __init__(self, *, keep=True):
        self.data, self.calls, self.keep = b"", [], keep

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.calls.append("eof")
        return self.keep

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.calls.append(f"lost {exc}" if exc else "lost")


@pytest.fixture(autouse=True)
async def in_time():
    async with asyncio.timeout(20):
        yield


async def test_both_sides_open_streams_that_carry_anything():
    async with pair() as (dialer, acceptor):
        for session in (dialer, acceptor):
            reader, writer = talk(session)
            writer.write(b"x" * 1_000_000)
            writer.write_eof()
            assert await reader.read() == b"X" * 1_000_000
            writer.close()
            await writer.wait_closed()
        await until(lambda: not dialer.streams and not acceptor.streams)


async def test_many_streams_at_once_do_not_mix():
    async with pair() as (dialer, _):

        async def one(number):
            text = f"stream {number} ".encode() * 5000
            reader, writer = talk(dialer)
            writer.write(text)
            writer.write_eof()
            assert await reader.read() == text.upper()
            writer.close()

        await asyncio.gather(*(one(number) for number in range(100)))


async def test_kind_and_label_reach_the_accepting_side_and_a_refusal_reaches_the_opener():
    seen = []

    def accept(stream):
        seen.append((stream.kind, stream.label))
        raise Refused("not here: ä")

    async with pair(accept) as (dialer, _):
        reader, _writer = talk(dialer, "pod", "default/web/80/http")
        with pytest.raises(ConnectionResetError, match="not here: ä"):
            await reader.read()
        assert seen == [("pod", "default/web/80/http")]
        assert not dialer.streams


async def test_half_closed_streams_still_answer():
    async with pair() as (dialer, _):
        recorder = Recorder()
        stream = dialer.open("echo", "", recorder)
        assert stream.can_write_eof()
        stream.write(b"abc")
        stream.write_eof()
        with pytest.raises(RuntimeError):
            stream.write(b"more")
        await until(lambda: recorder.calls == ["made", "eof", "lost"])
        assert recorder.data == b"ABC"


async def test_close_delivers_what_was_written_first_and_then_ends_both_ways():
    recorders = []

    def accept(stream):
        recorders.append(Recorder())
        return recorders[-1]

    async with pair(accept) as (dialer, acceptor):
        here = Recorder()
        stream = dialer.open("x", "", here)
        stream.write(b"z" * 600_000)  # more than the window
        stream.close()
        assert stream.is_closing()
        stream.write(b"ignored")
        await until(lambda: recorders and "lost" in recorders[0].calls)
        assert recorders[0].data == b"z" * 600_000
        assert recorders[0].calls == ["made", "eof", "lost"]
        assert [call for call in here.calls if call not in ("pause", "resume")] == ["made", "lost"]
        assert not dialer.streams
        assert not acceptor.streams


async def test_abort_resets():
    recorders = []

    def accept(stream):
        recorders.append(Recorder())
        return recorders[-1]

    async with pair(accept) as (dialer, _):
        here = Recorder()
        stream = dialer.open("x", "", here)
        stream.abort()
        await until(lambda: recorders and recorders[0].calls == ["made", "lost aborted"])
        assert here.calls == ["made", "lost"]


async def test_who_does_not_read_holds_no_more_than_its_window_and_nobody_else_up():
    slow = []

    def accept(stream):
        slow.append(Recorder())
        stream.pause_reading()
        return slow[-1]

    async with pair(accept, window=65536) as (dialer, acceptor):
        here = Recorder()
        stream = dialer.open("x", "", here)
        stream.write(b"1" * 200_000)
        assert here.calls == ["made", "pause"]
        await until(lambda: stream.get_write_buffer_size() == 200_000 - 65536)
        held = next(iter(acceptor.streams.values()))
        assert sum(map(len, held._held or ())) == 65536
        assert slow[0].data == b""
        reader, writer = talk(acceptor)  # the other way, over the same connection
        dialer._accept = accept
        assert writer.get_extra_info("socket") is None
        held.resume_reading()
        await until(lambda: len(slow[0].data) == 200_000)
        assert here.calls == ["made", "pause", "resume"]
        writer.close()
        assert reader is not None


async def test_pausing_within_a_callback_is_kept():
    class Picky(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    picky = []

    def accept(stream):
        picky.append(Picky())
        return picky[-1]

    async with pair(accept) as (dialer, _):
        stream = dialer.open("x", "", Recorder())
        stream.write(b"a" * 100_000)
        stream.close()
        await until(lambda: picky and picky[0].data)
        for _ in range(20):
            await asyncio.sleep(0)
        first = len(picky[0].data)
        assert first < 100_000
        assert "eof" not in picky[0].calls
        while "lost" not in picky[0].calls:
            picky[0].transport.resume_reading()
            await asyncio.sleep(0)
        assert len(picky[0].data) == 100_000


async def test_a_small_message_does_not_wait_behind_a_long_one():
    """Bytes that leave between its writing and itself: never more than what is buffered on purpose."""
    async with against_raw() as (session, raw):
        raw.send(frames.hello(8 * 1024 * 1024, 8))
        await until(lambda: session._peer is not None)
        raw.transport.pause_reading()
        bulk, small = session.open("bulk", "", Recorder()), session.open("small", "", Recorder())
        bulk.write(b"b" * 6_000_000)
        await until(lambda: session._writer._held_back)
        small.write(b"event")
        before = 6_000_000 - bulk.get_write_buffer_size()
        raw.transport.resume_reading()
        await until(lambda: any(frame.stream == small.number and frame.payload == b"event" for frame in raw.frames))
        place = next(i for i, frame in enumerate(raw.frames) if frame.payload == b"event")
        ahead = sum(len(frame.payload) for frame in raw.frames[:place])
        assert ahead <= before + 65536


async def test_a_session_that_drains_finishes_what_it_has():
    drained = []
    async with pair(on_drain=lambda: drained.append(1)) as (dialer, acceptor):
        reader, writer = talk(dialer)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"ONE"
        acceptor.drain("a newer one")
        await until(lambda: drained)
        for session in (dialer, acceptor):
            with pytest.raises(SessionClosed):
                talk(session)
        writer.write(b"two")
        writer.write_eof()
        assert await reader.read() == b"TWO"
        writer.close()
        assert "the last stream has ended" in await dialer.closed
        await acceptor.closed


async def test_a_peer_that_is_gone_without_a_word_is_noticed_and_a_living_one_is_left_alone():
    patience = Patience(idle=0.15, answer=0.1)
    async with pair(patience=patience) as (dialer, acceptor):
        await asyncio.sleep(0.6)
        assert not dialer.closed.done()
        assert dialer.streams == acceptor.streams == {}
    async with against_raw(patience=patience) as (session, raw):
        raw.send(HELLO)
        began = asyncio.get_running_loop().time()
        assert await session.closed == "nothing was heard from the peer for 0 s"
        assert 0.2 <= asyncio.get_running_loop().time() - began < 1.5
        assert len(raw.got(frames.PING)) == 1


async def test_a_process_that_was_busy_does_not_blame_its_peer():
    """The answer waits in the socket when the time for it is over."""
    async with against_raw(patience=Patience(idle=0.1, answer=0.2)) as (session, raw):

        def answer_and_be_busy():
            if raw.got(frames.PING):
                raw.send(frames.frame(frames.PONG, 0, bytes(8)))
                time.sleep(0.4)
                raw.frames.clear()

        raw.on_data = answer_and_be_busy
        raw.send(HELLO)
        await asyncio.sleep(1.0)
        assert not session.closed.done()


async def test_traffic_saves_the_ping_and_a_probe_asks_at_once():
    async with against_raw(patience=Patience(idle=0.3, answer=0.2)) as (session, raw):
        raw.send(HELLO)
        for _ in range(8):
            raw.send(frames.frame(frames.PONG, 0, bytes(8)))
            await asyncio.sleep(0.1)
        assert raw.got(frames.PING) == []
        session.probe(0.05)
        assert "nothing was heard" in await session.closed
        assert len(raw.got(frames.PING)) == 1


OPEN1 = frames.opening(1, "echo", "")
MISDEEDS = {
    "no greeting": ([OPEN1], "it began with OPEN"),
    "http": ([b"GET / HTTP/1.1\r\n\r\n"], "it sent a frame of the unknown kind 71"),
    "two greetings": ([HELLO, HELLO], "it sent HELLO twice"),
    "another version": ([frames.frame(frames.HELLO, 0, struct.pack(">III", 9, 65536, 1))], "it speaks version 9 of the protocol"),
    "our numbers": ([HELLO, frames.opening(2, "echo", "")], "it opened stream 2 after 0"),
    "a number twice": ([HELLO, OPEN1, OPEN1], "it opened stream 1 after 1"),
    "numbers downwards": ([HELLO, frames.opening(5, "echo", ""), frames.opening(3, "echo", "")], "it opened stream 3 after 5"),
    "data for nothing": ([HELLO, frames.header(frames.DATA, 7, 1) + b"x"], "it sent DATA for stream 7, which was never opened"),
    "our stream that is not": ([HELLO, frames.frame(frames.END, 2)], "it sent END for stream 2, which was never opened"),
    "more than the window": (
        [HELLO, OPEN1, (frames.header(frames.DATA, 1, 65536) + b"x" * 65536) * 5],
        "it sent more on stream 1 than the window allows",
    ),
    "data after the end": ([HELLO, OPEN1, frames.frame(frames.END, 1), frames.header(frames.DATA, 1, 1) + b"x"], "on stream 1 after its end"),
    "a window without bounds": ([HELLO, OPEN1, frames.window(1, 2**32 - 1)], "it opened the window of stream 1 beyond"),
    "a kind of nothing": ([HELLO, frames.frame(frames.OPEN, 1, b" x")], "it opened a stream of no kind"),
    "no text": ([HELLO, frames.frame(frames.GOODBYE, 0, b"\1\xff")], "it sent GOODBYE with text that is no UTF-8"),
}


@pytest.mark.parametrize("name", MISDEEDS)
async def test_a_peer_that_breaks_the_protocol_is_told_how(name):
    def accept(stream):
        stream.pause_reading()
        return Recorder()

    pieces, why = MISDEEDS[name]
    async with against_raw(accept) as (session, raw):
        raw.send(*pieces)
        reason = await session.closed
        assert reason.startswith("the peer broke the protocol: ")
        assert why in reason
        await raw.lost
        assert raw.got(frames.GOODBYE)[0].payload == b"\1" + reason.encode()


async def test_too_many_streams_are_refused_and_the_rest_go_on():
    async with against_raw(max_streams=2) as (session, raw):
        raw.send(HELLO, *(frames.opening(number, "echo", "") for number in (1, 3, 5)))
        await until(lambda: raw.got(frames.RESET))
        assert [(frame.stream, frame.payload) for frame in raw.got(frames.RESET)] == [(5, b"2 streams are open already")]
        raw.send(frames.header(frames.DATA, 1, 2) + b"hi")
        await until(lambda: raw.got(frames.DATA))
        raw.send(frames.frame(frames.CLOSE, 3))
        await until(lambda: 3 not in session.streams)
        raw.send(frames.opening(7, "echo", ""))
        await until(lambda: 7 in session.streams)
        for number in range(8):
            session.open("x", str(number), Recorder())
        with pytest.raises(SessionClosed, match="8 streams are open already"):
            session.open("x", "", Recorder())


async def test_what_a_peer_makes_us_owe_it_is_bounded():
    async with against_raw() as (session, raw):
        raw.transport.pause_reading()
        ping = frames.frame(frames.PING, 0, bytes(8))
        raw.send(HELLO)
        while not session.closed.done():
            raw.send(ping * 10_000)
            await asyncio.sleep(0)
        assert await session.closed == "the peer does not read what it asked for"


async def test_frames_for_a_stream_that_has_just_ended_are_passed_over():
    async with against_raw() as (session, raw):
        raw.send(HELLO)
        await until(lambda: session._peer is not None)
        session.open("x", "", Recorder()).abort()
        await until(lambda: raw.got(frames.RESET))
        raw.send(frames.header(frames.DATA, 2, 3) + b"abc", frames.window(2, 10), frames.frame(frames.END, 2), frames.reset(2, "me too"))
        raw.send(frames.frame(frames.PING, 0, b"12345678"))
        await until(lambda: raw.got(frames.PONG))
        assert raw.got(frames.PONG)[0].payload == b"12345678"


async def test_a_protocol_that_fails_loses_its_stream_and_no_other():
    class Bad(Recorder):
        def data_received(self, data):
            raise ValueError("a bug")

    async with pair(lambda stream: Bad()) as (dialer, acceptor):
        here = Recorder()
        dialer.open("x", "", here).write(b"x")
        await until(lambda: here.calls == ["made", "lost aborted"])
        assert dialer.alive
        assert acceptor.alive


async def test_the_end_of_the_connection_is_the_end_of_all_streams():
    async with pair() as (dialer, acceptor):
        reader, writer = talk(dialer)
        acceptor.close("the server stops")
        with pytest.raises(ConnectionResetError, match="the server stops"):
            await reader.read()
        assert await dialer.closed == "the server stops"
        writer.write(b"into nothing")
        with pytest.raises(SessionClosed, match="the server stops"):
            talk(dialer)


KINDS = st.integers(0, 11)
PIECES = st.one_of(
    st.just(HELLO),
    st.builds(lambda kind, stream, data: frames.header(kind, stream, len(data)) + data, KINDS, st.integers(0, 9), st.binary(max_size=20)),
    st.builds(lambda stream, label: frames.opening(stream, "x", label), st.integers(1, 9), st.text(max_size=5)),
    st.builds(lambda stream, data: frames.header(frames.DATA, stream, len(data)) + data, st.integers(1, 9), st.binary(min_size=1, max_size=99)),
    st.builds(frames.window, st.integers(1, 9), st.integers(0, 2**20)),
    st.builds(lambda stream, kind: frames.frame(kind, stream), st.integers(1, 9), st.sampled_from((frames.END, frames.CLOSE, frames.RESET))),
    st.binary(max_size=40),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=25))
def test_whatever_a_peer_sends_the_session_works_or_ends_for_one_reason(pieces):
    async def run():
        errors = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
        async with asyncio.timeout(5), against_raw(lambda stream: Recorder(keep=False)) as (session, raw):
            recorders = [Recorder() for _ in range(2)]
            for recorder in recorders:
                session.open("x", "", recorder).write(b"hello")
            raw.send(HELLO, *pieces)
            for _ in range(10):
                await asyncio.sleep(0)
            raw.transport.close()
            await session.closed
            await until(lambda: all(recorder.calls[-1].startswith("lost") for recorder in recorders))
            assert [sum(call.startswith("lost") for call in recorder.calls) for recorder in recorders] == [1, 1]
        assert errors == []

    asyncio.run(run())
