"""A connection that moves leaves pools behind, which the next requests close: several of them at the same time."""

import asyncio
import socket
import struct

import pytest

from edgekube.client.http import HttpClient, HttpConfig
from edgekube.errors import ServiceUnavailable


class Via:
    """The way to the server: another generation is another pool."""

    generation = 0

    def connector(self):
        import aiohttp

        return aiohttp.TCPConnector()


async def test_many_requests_close_what_is_left_of_many_moves():
    via = Via()
    client = HttpClient(HttpConfig(server="http://edgekube", via=via))
    for _ in range(5):
        with client._session():
            via.generation += 1
    pools = list(client._retired)
    with client._session():
        await asyncio.gather(*(client._close_retired() for _ in range(4)))
    assert len(pools) == 4
    assert all(pool.session.closed for pool in pools)
    await client.close()


@pytest.mark.parametrize(("reset", "why"), [(False, ""), (True, " (Connection reset by peer)")])
async def test_an_answer_that_breaks_off_is_told_in_plain_words(reset, why):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with HttpClient(HttpConfig(server=f"http://127.0.0.1:{port}")) as client:
            with pytest.raises(ServiceUnavailable) as found:
                await client.raw("GET", "/")
    assert found.value.message == f"the server could not be reached: the answer broke off{why}"
