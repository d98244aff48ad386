"""What somebody can do to the API's port who has no credentials, or too many hands: bounded, and never at the cost of the nodes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgekube.apiserver import connection
from edgekube.apiserver.bodies import Bodies
from edgekube.apiserver.front import Front, server_context
from edgekube.lib.tasks import TaskScope
from tests.api.secured import Api, secured

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@contextlib.asynccontextmanager
async def fronted(folder: Path) -> AsyncIterator[tuple[Api, Front, int]]:
    """One more listener, whose limits a test may change."""
    async with secured(folder) as api:
        front = Front(api.server)
        port = await front.listen("127.0.0.1", 0, server_context(api.pki.apiserver, api.pki.ca))
        try:
            yield api, front, port
        finally:
            await front.close(0.1)


async def dial(api: Api, port: int, credential: Path | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, ssl=api.tls(credential), server_hostname="localhost")


async def answer(reader: asyncio.StreamReader) -> int:
    """The status; 0 if there was none."""
    line = await reader.readline()
    return int(line.split()[1]) if line else 0


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(5):
            return await reader.read(1) == b""
    except ConnectionError:
        return True


async def test_who_asks_for_nothing_is_put_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_REQUEST", 0.3)
    async with fronted(tmp_path) as (api, front, port):
        silent, slow, lively = [await dial(api, port) for _ in range(3)]
        slow[1].write(b"GET /version HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        lively[1].write(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await answer(lively[0]) == 200
        assert await ended(silent[0])
        assert await ended(slow[0])
        lively[1].write(b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"HTTP/1.1 200" in await lively[0].read()  # who has asked once may be quiet for longer
        for _, writer in (silent, slow, lively):
            writer.close()
        async with asyncio.timeout(5):
            while front._web.open:
                await asyncio.sleep(0.01)


async def test_strangers_leave_room_for_nodes(tmp_path: Path) -> None:
    async with fronted(tmp_path) as (api, front, port):
        front._web.strangers = 5
        held = [await dial(api, port) for _ in range(5)]
        refused = await dial(api, port)
        assert await ended(refused[0])
        known = await dial(api, port, api.pki.admin)
        known[1].write(f"GET {CONFIG_MAPS} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert await answer(known[0]) == 200
        for _, writer in (*held, refused, known):
            writer.close()


async def test_a_node_has_only_so_many_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OF_NODE", 3)
    async with fronted(tmp_path) as (api, front, port):
        node = api.pki.kubelet_client
        held = [await dial(api, port, node) for _ in range(3)]
        refused = await dial(api, port, node)
        assert await ended(refused[0])
        for _, writer in (*held, refused):
            writer.close()
        async with asyncio.timeout(5):
            while front._web.of_nodes["system:node:pi"]:
                await asyncio.sleep(0.01)
        again = await dial(api, port, node)
        again[1].write(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await answer(again[0]) == 200
        again[1].close()


async def test_bodies_that_never_end_cost_bounded_memory(tmp_path: Path) -> None:
    async with fronted(tmp_path) as (api, front, port):
        front._bodies = Bodies(each=256 << 10)
        stolen, other = api.certificate("system:masters-1", "system:masters"), api.certificate("other", "system:masters")
        head = f"POST {CONFIG_MAPS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n".encode()
        opened = []
        for _ in range(4):
            reader, writer = await dial(api, port, stolen)
            writer.write(head + b" " * (100 << 10))
            opened.append((reader, writer))
        async with TaskScope("answers") as scope, asyncio.timeout(10):
            waiting = [scope.spawn(answer(reader), name="answer") for reader, _ in opened]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert {each.result() for each in done} == {429}
        fine = await dial(api, port, other)
        body = b'{"metadata":{"name":"fine"},"data":{"a":"' + b"a" * (200 << 10) + b'"}}'
        fine[1].write(head.replace(b"1000000", str(len(body)).encode()) + body)
        assert await answer(fine[0]) == 201
        for _, writer in (*opened, fine):
            writer.close()
        async with asyncio.timeout(5):
            while front._bodies._total:
                await asyncio.sleep(0.01)
