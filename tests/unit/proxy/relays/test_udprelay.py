"""Datagrams: sessions that end, make room, follow their endpoints, and answers that leave from the address that was asked."""

import asyncio
import contextlib
import socket

import pytest

from edgekube.proxy import udprelay
from edgekube.proxy.balance import Balance
from edgekube.proxy.model import Endpoint, Target
from edgekube.proxy.quota import Quota
from edgekube.proxy.udprelay import UdpFront


class Echo(asyncio.DatagramProtocol):
    """Answers its name."""

    def __init__(self, name):
        self._name = name

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, addr):
        self._transport.sendto(self._name, addr)


@contextlib.asynccontextmanager
async def echo(name):
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Echo(name), local_addr=("127.0.0.1", 0))
    try:
        yield Endpoint("127.0.0.1", transport.get_extra_info("sockname")[1])
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def relay(*endpoints, limit=100):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    server.bind(("0.0.0.0", 0))
    quota = Quota(limit=limit)
    loop = asyncio.get_running_loop()
    front = UdpFront(server, Balance(Target(endpoints), is_inside=lambda _client: False, now=loop.time), quota)
    await front.start()
    try:
        yield front, server.getsockname()[1], quota
    finally:
        front.close()
        assert quota.used == 0


def client(port, address="127.0.0.1"):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.connect((address, port))
    return made


async def ask(made):
    made.send(b"?")
    async with asyncio.timeout(3):
        return await asyncio.get_running_loop().sock_recv(made, 100)


async def test_answers_leave_from_the_address_that_was_asked():
    async with echo(b"one") as one, relay(one) as (_, port, _quota):
        for address in ("127.0.0.1", "127.0.0.2", "127.1.2.3"):
            with client(port, address) as made:
                assert await ask(made) == b"one"  # a connected socket takes answers from nowhere else


async def test_a_session_stays_with_its_endpoint_and_follows_when_that_goes():
    async with echo(b"one") as one, echo(b"two") as two, relay(one, two) as (front, port, quota):
        with client(port) as made:
            first = await ask(made)
            assert {await ask(made) for _ in range(10)} == {first}
            assert quota.used == 1
            left = two if first == b"one" else one
            front.balance.replace(Target((left,)))
            front.changed()
            assert await ask(made) == (b"two" if first == b"one" else b"one")


async def test_silent_sessions_end(monkeypatch):
    monkeypatch.setattr(udprelay, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(udprelay, "SWEEP_SECONDS", 0.02)
    async with echo(b"one") as one, relay(one) as (_, port, quota):
        with client(port) as made:
            assert await ask(made) == b"one"
            assert quota.used == 1
            async with asyncio.timeout(3):
                while quota.used:
                    await asyncio.sleep(0.01)
            assert await ask(made) == b"one"


async def test_the_session_silent_longest_makes_room():
    async with echo(b"one") as one, relay(one, limit=2) as (front, port, quota):
        with client(port) as first, client(port) as second, client(port) as third:
            for made in (first, second, third):
                assert await ask(made) == b"one"
            assert quota.used == 2
            assert [asked.client for asked in front._sessions] == [second.getsockname(), third.getsockname()]
            assert await ask(first) == b"one"


async def test_an_endpoint_that_refuses_ends_the_session():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        dead = Endpoint("127.0.0.1", taken.getsockname()[1])
    async with relay(dead) as (_, port, quota):
        with client(port) as made:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    made.send(b"?")
                    await asyncio.get_running_loop().sock_recv(made, 100)
            async with asyncio.timeout(3):
                while quota.used:
                    await asyncio.sleep(0.01)
