"""Nothing of a machine goes to a server before that has shown the token's authority; what it is told meanwhile is one line."""

import asyncio
import contextlib
import ssl

import pytest

from edgekube.agent.authority import Unreachable, ask, fetch
from edgekube.agent.join import JoinConfig, ensure_joined
from edgekube.agent.refusal import JoinRefused
from edgekube.api import bootstraptokens
from edgekube.lib import pki
from edgekube.lib.clock import FakeClock, SystemClock
from edgekube.lib.timefloor import FlooredClock
from edgekube.lib.tlsclock import client_context

NOW = SystemClock().now()


@contextlib.asynccontextmanager
async def somebody(folder, answer, *, name="kubernetes.default.svc"):
    """A TLS server that answers every request with `answer(authority)`; yields (its address, its authority, what it was sent)."""
    authority = pki.create_authority("somebody", NOW)
    credential = folder / "server.pem"
    credential.write_bytes(pki.issue(authority, pki.Subject("x", (), (name,), server=True), NOW))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(credential)
    heard = []

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(answer(pki.certificate_pem(authority)))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", pki.certificate_pem(authority), heard
    finally:
        server.close()


def ok(body, *, date=""):
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (date.encode(), len(body), body)


def config(folder, server, token, **more):
    known = {
        "folder": folder / "agent", "servers": (server,), "token": token, "node_name": "pi", "named": False, "machine_id": "a" * 32,
        "addresses": ("192.0.2.1",), "timeout": 0.0,
    }  # fmt: skip
    return JoinConfig(**(known | more))


async def test_somebody_in_between_hears_nothing_but_a_question(tmp_path):
    theirs = f"EK1{'1' * 64}::abcdef.0123456789abcdef"
    async with somebody(tmp_path, ok) as (server, _, heard):
        with pytest.raises(JoinRefused, match=r"is not of the token's cluster.*somebody is in between\. Nothing was sent"):
            await ensure_joined(config(tmp_path, server, theirs), FlooredClock(tmp_path / "floor"))
    (request,) = heard
    assert request.startswith("GET /cacerts HTTP/1.1\r\n")
    assert "uthorization" not in request
    assert "abcdef" not in request
    assert not (tmp_path / "agent" / "ca.crt").exists()


async def test_a_relay_that_shows_the_true_authority_gets_no_further(tmp_path):
    """Its certificate is public: who only passes it on has no certificate of it."""
    true = pki.certificate_pem(pki.create_authority("true", NOW))
    token = bootstraptokens.join_token(true, "abcdef.0123456789abcdef")
    async with somebody(tmp_path, lambda _own: ok(true)) as (server, _, heard):
        with pytest.raises(JoinRefused, match=r"no server can be reached: .*its certificate is not good"):
            await ensure_joined(config(tmp_path, server, token), FlooredClock(tmp_path / "floor"))
    assert [request.split("\r\n")[0] for request in heard] == ["GET /cacerts HTTP/1.1"]


async def test_another_node_of_the_cluster_is_no_server(tmp_path):
    """It holds a certificate of the authority, but not in the API's name."""
    async with somebody(tmp_path, ok, name="node-1") as (server, authority, heard):
        token = bootstraptokens.join_token(authority, "abcdef.0123456789abcdef")
        with pytest.raises(JoinRefused, match="Hostname mismatch"):
            await ensure_joined(config(tmp_path, server, token), FlooredClock(tmp_path / "floor"))
    assert len(heard) == 1


async def test_the_date_of_an_unverified_server_is_not_believed(tmp_path):
    floor = FlooredClock(tmp_path / "floor", system=FakeClock(NOW))
    true = pki.certificate_pem(pki.create_authority("true", NOW))
    token = bootstraptokens.join_token(true, "abcdef.0123456789abcdef")
    async with somebody(tmp_path, lambda _own: ok(true, date="Date: Fri, 01 Jan 2100 00:00:00 GMT\r\n")) as (server, _, _):
        with pytest.raises(JoinRefused):
            await ensure_joined(config(tmp_path, server, token), floor)
    assert floor.now().year < 2100


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "it is no edgekube server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "it is no edgekube server"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "it does not speak http"),
        (b"", "the connection was closed|0 bytes read"),
    ],
)
async def test_who_is_no_server(tmp_path, answer, why):
    async with somebody(tmp_path, lambda _own: answer) as (server, _, _):
        with pytest.raises(Unreachable, match=why):
            await ask(server, timeout=5)


async def test_a_verified_question(tmp_path):
    async with somebody(tmp_path, ok) as (server, authority, _):
        context = client_context(clock=FlooredClock(tmp_path / "floor"), ca=authority)
        status, _, body = await fetch(server, "/x", context=context, timeout=5)
        assert (status, body) == (200, authority)


async def test_what_was_remembered_of_another_cluster_is_forgotten(tmp_path):
    """Else a machine that changes hands would start its old pods when it is next alone."""
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(b"another authority")
    (folder / "state").write_bytes(b"pods of another cluster")
    async with somebody(tmp_path, ok) as (server, authority, _):
        token = f"EK1{bootstraptokens.authority_digest(authority)}::abcdef.0123456789abcdef"
        clock = FlooredClock(tmp_path / "floor")
        with pytest.raises(ValueError):  # that server can no more than show its authority
            await ensure_joined(config(tmp_path, server, token), clock)
        assert not (folder / "state").exists()
        (folder / "state").write_bytes(b"of this cluster")
        with pytest.raises(ValueError):  # that server can no more than show its authority
            await ensure_joined(config(tmp_path, server, token), clock)
        assert (folder / "state").exists()
