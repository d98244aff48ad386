"""What only relays have to promise: bytes pass with back-pressure and half closes, dead endpoints are passed over, everything is bounded."""

import asyncio
import contextlib
import socket

import pytest

from edgekube.lib.tasks import TaskScope
from edgekube.proxy.backend import Node
from edgekube.proxy.balance import Balance
from edgekube.proxy.localroutes import remove_local_routes
from edgekube.proxy.model import ANY4, Endpoint, Front, Target
from edgekube.proxy.quota import Quota
from edgekube.proxy.sockfilter import admission
from edgekube.proxy.tcprelay import TcpFront
from edgekube.proxy.userspace import UserspaceBackend
from tests.kit import netns as ns
from tests.kit.requires import needs

NODE = Node(instance="test", pods=("10.42.0.0/16",), services=("10.43.0.0/16",))


def to(*ports, **options):
    return Target(tuple(Endpoint("127.0.0.1", port) for port in ports), **options)


@contextlib.asynccontextmanager
async def relay(target, quota=None):
    """A relayed front on 127.0.0.1; yields its port and the quota."""
    quota = quota or Quota(limit=100)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    async with TaskScope("test") as scope:
        balance = Balance(target, is_inside=lambda _client: False, now=asyncio.get_running_loop().time)
        front = TcpFront(listener, balance, quota, scope)
        await front.start()
        yield listener.getsockname()[1], quota
        front.close()


@contextlib.asynccontextmanager
async def server(handle):
    running = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def count_bytes(reader, writer):
    """Answers how much came, after the client has said all."""
    total = 0
    while data := await reader.read(1 << 16):
        total += len(data)
    writer.write(str(total).encode())
    writer.close()


async def test_a_half_close_goes_through_and_all_bytes_arrive():
    async with server(count_bytes) as port, relay(to(port)) as (front, quota):
        reader, writer = await asyncio.open_connection("127.0.0.1", front)
        writer.write(bytes(3 << 20))
        writer.write_eof()
        assert await reader.read() == str(3 << 20).encode()
        writer.close()
        await until(lambda: quota.used == 0)


async def test_an_endpoint_that_reads_nothing_stops_the_client():
    hold = asyncio.Event()

    async def deaf(_reader, writer):
        writer.transport.pause_reading()
        await hold.wait()
        writer.transport.abort()

    async with server(deaf) as port, relay(to(port)) as (front, quota):
        client = socket.create_connection(("127.0.0.1", front))
        client.setblocking(False)
        sent = 0
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                while sent < 64 << 20:
                    await loop.sock_sendall(client, bytes(1 << 18))
                    sent += 1 << 18
        assert sent < 64 << 20
        hold.set()
        await until(lambda: quota.used == 0)
        client.close()


async def test_a_dead_endpoint_is_passed_over_and_without_any_the_client_is_reset():
    spare = socket.create_server(("127.0.0.1", 0))
    dead = spare.getsockname()[1]
    spare.close()
    async with server(count_bytes) as port, relay(to(dead, port)) as (front, _):
        for _ in range(8):
            reader, writer = await asyncio.open_connection("127.0.0.1", front)
            writer.write_eof()
            assert await reader.read() == b"0"
            writer.close()
    async with relay(to(dead)) as (front, quota):
        reader, writer = await asyncio.open_connection("127.0.0.1", front)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await until(lambda: quota.used == 0)


async def test_a_reset_goes_through():
    async def cut(reader, writer):
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with server(cut) as port, relay(to(port)) as (front, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", front)
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_relays_are_bounded():
    async with server(count_bytes) as port, relay(to(port), Quota(limit=4)) as (front, quota):
        held = [await asyncio.open_connection("127.0.0.1", front) for _ in range(2)]
        await until(lambda: quota.used == 4)
        reader, writer = await asyncio.open_connection("127.0.0.1", front)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert quota.refused == 1
        for _, each in (*held, (reader, writer)):
            each.close()
        await until(lambda: quota.used == 0)


def test_affinity_follows_time_and_what_is_there():
    now = [0.0]
    one, two = Endpoint("10.42.0.1", 80), Endpoint("10.42.0.2", 80)
    balance = Balance(Target((one, two), affinity_seconds=10), is_inside=lambda _client: False, now=lambda: now[0])
    balance.took("192.0.2.1", two)
    assert {balance.order("192.0.2.1")[0] for _ in range(20)} == {two}
    balance.replace(Target((one,), affinity_seconds=10))
    assert balance.order("192.0.2.1") == [one]
    balance.replace(Target((one, two), affinity_seconds=10))
    now[0] = 11.0
    assert {balance.order("192.0.2.1")[0] for _ in range(40)} == {one, two}


def test_a_filter_is_there_only_where_somebody_may_not_come():
    front = Front(ANY4, "tcp", 80)
    assert admission(front, to(80), "10.42.0.0/16") == b""
    assert len(admission(front, Target(drop=True), "10.42.0.0/16")) == 16
    assert len(admission(front, to(80, sources=("10.0.0.0/8", "192.0.2.0/24")), "10.42.0.0/16")) == 8 * (4 + 4 + 1 + 1)


@needs("root", "netns")
def test_a_taken_port_is_told_and_taken_over_later_and_nothing_stays(caplog, monkeypatch):
    monkeypatch.setattr("edgekube.proxy.userspace.RETRY_SECONDS", 0.05)

    async def scenario(path):
        backend = UserspaceBackend(NODE)
        taken = socket.create_server(("0.0.0.0", 8080))
        front = Front("10.43.0.5", "tcp", 8080)
        backend.watch(lambda: None)
        await backend.replace({front: to(9), Front("198.51.100.7", "tcp", 8081): to(9)})
        assert "a service can not be served here" in caplog.text
        assert "local 10.43.0.0/16" in ns.inside(path, "ip route show table local proto 231")
        assert "local 198.51.100.7" in ns.inside(path, "ip route show table local proto 231")
        taken.close()
        await until(lambda: front in backend._open)
        await backend.apply({front: to(9), Front("198.51.100.7", "tcp", 8081): to(9)}, {})
        assert "198.51.100.7" not in ns.inside(path, "ip route show table local proto 231")
        noticed = asyncio.Event()
        backend._watch._notify = noticed.set
        ns.inside(path, "ip route flush table local proto 231")
        async with asyncio.timeout(2):
            await noticed.wait()
        await backend.replace({})
        backend.close()
        await remove_local_routes()
        assert ns.inside(path, "ip route show table local proto 231") == ""

    with ns.namespace() as path:
        ns.call_inside(path, lambda: asyncio.run(scenario(path)))
