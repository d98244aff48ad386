"""Reaching a server: what an address is, which attempt wins, what is remembered, and why it failed."""

import asyncio
import contextlib
import ssl

import pytest

from edgekube.agent.dial import Address, Dialed, DialFailed, _Upgrade, dial, is_gone, parse_address, parse_addresses
from edgekube.agent.race import Resolver, race
from edgekube.agent.servers import Servers
from edgekube.lib import pki
from edgekube.lib.clock import SystemClock
from edgekube.lib.mux import words
from edgekube.lib.tlsclock import client_context

A, B, C = Address("10.0.0.1", 6443), Address("edge.example", 6443), Address("10.0.0.2", 7443)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://10.0.0.1:6443", ("10.0.0.1", 6443)),
        ("https://edge.example/", ("edge.example", 6443)),
        ("edge.example:7443", ("edge.example", 7443)),
        ("[fd00::1]:7443", ("fd00::1", 7443)),
        ("https://[fd00::1]", ("fd00::1", 6443)),
        ("fd00::1", ("fd00::1", 6443)),
    ],
)
def test_addresses(text, found):
    assert parse_address(text) == found
    assert parse_address(str(parse_address(text))) == found


@pytest.mark.parametrize("text", ["", "https://", "http://x", "a:b", "x:0", "x:70000", "user@x", "x/path"])
def test_what_is_no_address(text):
    with pytest.raises(ValueError):
        parse_address(text)


def test_unreadable_addresses_that_a_server_tells_are_left_out():
    assert parse_addresses("10.0.0.1:6443,,no:port,[fd00::1]:1") == [("10.0.0.1", 6443), ("fd00::1", 1)]


class Transport:
    def __init__(self):
        self.aborted = False

    def abort(self):
        self.aborted = True


def attempt(delay, outcome, started=None):
    async def run():
        if started is not None:
            started.append(outcome)
        await asyncio.sleep(delay)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return run


def dialed(address):
    return Dialed(address, Transport(), lambda: b"", ())


async def test_a_way_that_hangs_costs_only_the_stagger():
    good = dialed(B)
    async with asyncio.timeout(2):
        assert await race([attempt(60, dialed(A)), attempt(0, good)], stagger=0.05) is good


async def test_a_way_that_fails_lets_the_next_one_start_at_once():
    good = dialed(B)
    async with asyncio.timeout(2):
        assert await race([attempt(0, DialFailed("no")), attempt(0, good)], stagger=60) is good


async def test_the_first_gets_its_chance_alone_and_the_loser_is_closed():
    started, good, late = [], dialed(A), dialed(B)
    assert await race([attempt(0.01, good, started), attempt(0, late, started)], stagger=1) is good
    assert started == [good]
    assert await race([attempt(0.1, good), attempt(0.1, late)], stagger=0) in (good, late)
    await asyncio.sleep(0.15)
    assert not (good.transport.aborted and late.transport.aborted)


async def test_all_that_failed_is_told_once():
    with pytest.raises(DialFailed, match="^one; two$") as caught:
        await race([attempt(0, DialFailed("one")), attempt(0, DialFailed("two", 403)), attempt(0, DialFailed("one"))], stagger=0)
    assert caught.value.refused == 403
    with pytest.raises(DialFailed, match="no address of a server is known"):
        await race([])


def test_servers_are_tried_in_the_order_of_their_promise(tmp_path):
    path = tmp_path / "servers.json"
    servers = Servers([B, A], path)
    assert servers.candidates() == [A, B]  # a name needs a name server
    servers.told([C, A])
    assert servers.candidates() == [A, C, B]
    servers.worked(C)
    assert servers.candidates()[0] == C
    before = path.stat()
    servers.worked(C)
    servers.told([C, A])
    assert path.stat() == before
    again = Servers([B], path)
    assert again.candidates() == [C, A, B]
    assert again.heard([Address("10.9.9.9", 6443)])
    assert not again.heard([Address("10.9.9.9", 6443)])
    assert Address("10.9.9.9", 6443) in again.candidates()
    for number in range(100):
        again.heard([Address(f"10.1.1.{number}", 1)])
    assert len(again.candidates()) < 40
    assert {B, C, A} <= set(again.candidates())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"told": 3, "last": ""}', b'{"told": ["x:y:z:9"], "last": "a/b"}'])
def test_a_damaged_memory_counts_as_none(tmp_path, content):
    path = tmp_path / "servers.json"
    path.write_bytes(content)
    assert Servers([A], path).candidates() == [A]


async def test_nothing_is_lost_between_the_answer_and_who_takes_over():
    upgrade = _Upgrade()
    upgrade.data_received(b"HTTP/1.1 101 Switching Protocols\r\nX: y\r\n\r\nfirst ")
    await upgrade.answered()
    upgrade.data_received(b"second")  # has arrived before the session was there
    assert upgrade.rest() == b"first second"


class Server:
    """A TLS server that answers with fixed bytes."""

    def __init__(self, folder, *, names=(words.SERVER_NAME,), ours=True):
        now = SystemClock().now()
        self.authority = pki.create_authority("ca", now)
        other = self.authority if ours else pki.create_authority("ca", now)
        (folder / "ca.crt").write_bytes(pki.certificate_pem(self.authority))
        (folder / "server.pem").write_bytes(pki.issue(other, pki.Subject("server", (), names, server=True), now))
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(folder / "server.pem")
        self.client = client_context(clock=SystemClock(), ca=folder / "ca.crt")

    @contextlib.asynccontextmanager
    async def answering(self, answer):
        async def serve(reader, writer):
            with contextlib.suppress(OSError, EOFError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
                if answer.endswith(b"!"):
                    await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=self.tls)
        async with server:
            yield Address("127.0.0.1", server.sockets[0].getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "why", "refused"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\n\r\n" + b'{"message": "no"}', "^no$", 403),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\n<x>", "the server answered 401", 401),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "it does not speak HTTP", 0),
        (b"", "the connection was closed", 0),
        (b"HTTP/1.1 101!", "no answer in time", 0),
    ],
)
async def test_answers_that_are_no_tunnel(tmp_path, answer, why, refused):
    server = Server(tmp_path)
    async with server.answering(answer) as address:
        with pytest.raises(DialFailed, match=why) as caught:
            await dial(address, server.client, timeout=0.5 if answer.endswith(b"!") else 5)
        assert caught.value.refused == refused


async def test_who_the_server_is_its_certificate_says_and_not_its_address(tmp_path):
    for number, options in enumerate(({"ours": False}, {"names": ("node-7",)}, {"names": ("localhost", "127.0.0.1")})):
        folder = tmp_path / str(number)
        folder.mkdir()
        server = Server(folder, **options)
        async with server.answering(b"HTTP/1.1 101 Switching Protocols\r\n\r\n") as address:
            with pytest.raises(DialFailed, match="its certificate is not of our cluster"):
                await dial(address, server.client, timeout=5)


async def test_a_tunnel_tells_where_else_servers_are(tmp_path):
    server = Server(tmp_path)
    answer = b"HTTP/1.1 101 Switching Protocols\r\nEdgekube-Servers: 10.0.0.1:6443,[fd00::1]:6443\r\n\r\nrest!"
    async with server.answering(answer) as address:
        found = await dial(address, server.client, timeout=5)
        assert found.servers == [("10.0.0.1", 6443), ("fd00::1", 6443)]
        async with asyncio.timeout(5):
            while found.rest() != b"rest!":
                await asyncio.sleep(0.01)
        found.transport.abort()


async def test_names_are_looked_up_anew_and_one_that_hangs_holds_up_itself_alone(monkeypatch):
    asked, resolve = [], Resolver()
    hanging = asyncio.Event()

    async def getaddrinfo(host, _port, **_):
        asked.append(host)
        if host == "hangs":
            await hanging.wait()
        if host == "unknown":
            raise OSError("no such host")
        return [(0, 0, 0, "", (f"10.0.0.{len(asked)}", 0)), (0, 0, 0, "", ("fd00::1", 0, 0, 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    assert await resolve("fd00::1%eth0", timeout=1) == ("fd00::1%eth0",)
    assert await resolve("edge", timeout=1) == ["10.0.0.1", "fd00::1"]
    assert await resolve("edge", timeout=1) == ["10.0.0.2", "fd00::1"]
    with pytest.raises(DialFailed, match="unknown: no such host"):
        await resolve("unknown", timeout=1)
    for _ in range(3):
        with pytest.raises(DialFailed, match="hangs: the name servers do not answer"):
            await resolve("hangs", timeout=0.05)
    assert asked == ["edge", "edge", "unknown", "hangs"]
    hanging.set()
    assert await resolve("hangs", timeout=1) == ["10.0.0.4", "fd00::1"]
    await resolve.close()


def test_an_address_that_is_gone_is_told_from_one_that_is_there():
    assert not is_gone(("127.0.0.1", 4711))
    assert is_gone(("192.0.2.77", 4711))
    assert is_gone(("2001:db8::77", 4711, 0, 0))
    assert not is_gone(None)
