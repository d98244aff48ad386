"""Passing requests on: real sockets on loopback, a scripted server behind them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from edgekube.apiserver.relay import (
    Outgoing,
    body_of,
    connect,
    exchange,
    forwarded_headers,
    is_upgrade,
    query_string,
    read_all,
    relay,
    tunnel,
)
from edgekube.apiserver.request import Request, StreamResponse
from edgekube.errors import ApiError

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def answering(*pieces: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return serve


GET = Outgoing("GET", "/x", "node", [("Connection", "close")])


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", b"abc", b"def", b"more"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", b"c\r\n3;x=y\r\ndef\r\n0\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"abc", b"def"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nabcdef"),
    ],
)
async def test_bodies_of_every_framing(pieces: tuple[bytes, ...]) -> None:
    async with serving(answering(*pieces)) as port:
        streams = await connect("127.0.0.1", port)
        head = await exchange(streams, GET)
        assert head.status == 200
        assert await read_all(streams, head, 100) == b"abcdef"


async def test_an_endless_body_is_streamed_and_ends_with_the_reader() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"line\n" * 1000)
                await writer.drain()
                await asyncio.sleep(0)
        gone.set()

    async with serving(serve) as port:
        streams = await connect("127.0.0.1", port)
        pieces = body_of(streams, await exchange(streams, GET))
        assert (await anext(pieces)).startswith(b"line\n")
        await pieces.aclose()
        async with asyncio.timeout(5):
            await gone.wait()


async def test_a_backend_that_is_not_there() -> None:
    async with serving(answering()) as port:
        pass
    with pytest.raises(ApiError, match=f"error dialing backend: dial tcp 127.0.0.1:{port}: connect: connection refused"):
        await connect("127.0.0.1", port)


async def test_a_backend_that_hangs_up() -> None:
    async with serving(answering(b"HTT")) as port:
        with pytest.raises(ApiError, match="error trying to reach service: EOF"):
            await exchange(await connect("127.0.0.1", port), GET)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX-A: b\n\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\rX-C: d\r\n\r\n",
        b"HTTP/1.1 200 OK\nX-A: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX A: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
async def test_an_answer_that_could_be_read_in_two_ways_is_none(answer: bytes) -> None:
    """A stolen node must not answer the next request of whoever asked it something."""
    async with serving(answering(answer)) as port:
        with pytest.raises(ApiError, match="error trying to reach service"):
            await relay(await connect("127.0.0.1", port), GET)


async def test_plain_answers_keep_status_type_and_headers_but_not_the_hop() -> None:
    answer = b"HTTP/1.1 418 Teapot\r\nContent-Type: text/tea\r\nX-Kind: green\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\ncup"
    async with serving(answering(answer)) as port:
        relayed = await relay(await connect("127.0.0.1", port), GET)
        assert isinstance(relayed, StreamResponse)
        assert (relayed.status, relayed.content_type, relayed.headers) == (418, "text/tea", {"x-kind": "green"})
        assert b"".join([piece async for piece in relayed.chunks]) == b"cup"


def test_credentials_never_go_on() -> None:
    headers = {
        "authorization": "Bearer secret", "cookie": "a=b", "impersonate-user": "root", "host": "api", "content-length": "3",
        "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "k", "x-own": "1",
        "sec-websocket-protocol": "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0",
        "x-twice": "1\n2", "x-stream-protocol-version": "v4, v3",
    }  # fmt: skip
    assert forwarded_headers(headers, upgrade=True) == [
        ("sec-websocket-key", "k"),
        ("x-own", "1"),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("x-stream-protocol-version", "v4"),
        ("x-stream-protocol-version", "v3"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
    ]


def test_query_and_upgrade() -> None:
    assert query_string([("command", "a b"), ("command", "c&d")]) == "?command=a%20b&command=c%26d"
    assert query_string([]) == ""

    async def nothing() -> bytes:
        return b""

    headers = {"connection": "keep-alive, Upgrade", "upgrade": "SPDY/3.1"}
    assert is_upgrade(Request("GET", "/", {}, headers, nothing))
    assert not is_upgrade(Request("GET", "/", {}, {"connection": "close"}, nothing))


async def through(backend: Serve, talk: Serve) -> None:
    """A client that talks through a tunnel with a backend."""
    async with serving(backend) as port:
        streams = await connect("127.0.0.1", port)
        run = tunnel(streams, Outgoing("GET", "/exec", "node", [("Connection", "Upgrade"), ("Upgrade", "x")])).run
        async with serving(run) as front:
            reader, writer = await connect("127.0.0.1", front)
            async with asyncio.timeout(10):
                await talk(reader, writer)
            writer.close()


async def test_tunnel_carries_both_directions_and_half_close() -> None:
    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        assert b"Upgrade: x" in request
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nhello ")
        data = await reader.read()  # until the client has said that it is done
        writer.write(b"got %d" % len(data))
        await writer.drain()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"101" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x" * 1_000_000)
        writer.write_eof()
        assert await reader.read() == b"hello got 1000000"

    await through(backend, client)


async def test_refused_upgrade_is_relayed_and_nothing_more_gets_through() -> None:
    seen = []

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\nnope")
        await writer.drain()
        seen.append(await reader.read())

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert b"Connection: close" in answer
        assert answer.endswith(b"\r\n\r\nnope")

    await through(backend, client)
    assert seen == [b""]


async def test_a_client_that_leaves_ends_the_backends_side() -> None:
    left = asyncio.Event()

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        await reader.read()
        left.set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await left.wait()

    await through(backend, client)
