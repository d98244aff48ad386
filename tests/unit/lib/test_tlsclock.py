"""TLS that judges dates by our clock, not by the machine's: over real connections, on both event loops."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgekube.lib import pki, tlsclock
from edgekube.lib.clock import FakeClock
from edgekube.lib.pki import Subject

ISSUED = datetime(2033, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Certificates of 2033, and some that ended decades ago by every real clock."""
    ca = pki.create_authority("ca", ISSUED)
    (tmp_path / "ca.crt").write_bytes(pki.certificate_pem(ca))
    (tmp_path / "server.pem").write_bytes(pki.issue(ca, Subject("server", (), ("localhost",), ("127.0.0.1",), server=True), ISSUED))
    (tmp_path / "client.pem").write_bytes(pki.issue(ca, Subject("client", client=True), ISSUED))
    other = pki.create_authority("other", ISSUED)
    (tmp_path / "other.crt").write_bytes(pki.certificate_pem(other))
    return tmp_path


@asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def say(port: int, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"hello\n")
        return await reader.readline()
    finally:
        writer.close()


def server_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize(
    ("now", "refusal"),
    [
        (ISSUED + 364 * DAY, None),
        (ISSUED + 365 * DAY, None),  # the other machine's clock may be a little behind
        (ISSUED + 366 * DAY, "the certificate of server expired at 2034-01-01T00:00:00Z; it is 2034-01-02T00:00:00Z here"),
        (datetime(1980, 1, 1, tzinfo=UTC), "the certificate of server holds from"),
    ],
)
async def test_a_client_judges_the_server_by_its_own_clock(folder: Path, now: datetime, refusal: str | None) -> None:
    client = tlsclock.client_context(clock=FakeClock(now), ca=folder / "ca.crt", credential=folder / "client.pem")
    async with listening(tlsclock.ignore_time(server_context(folder))) as port:
        if refusal is None:
            assert await say(port, client) == b"hello\n"
        else:
            with pytest.raises(tlsclock.OutOfDate, match=refusal) as caught:
                await say(port, client)
            assert caught.value.reason.startswith(refusal)


async def test_a_server_can_judge_its_clients(folder: Path) -> None:
    clock = FakeClock(ISSUED)
    client = tlsclock.client_context(clock=FakeClock(ISSUED), ca=(folder / "ca.crt").read_bytes(), credential=folder / "client.pem")
    async with listening(tlsclock.judge(server_context(folder), clock)) as port:
        assert await say(port, client) == b"hello\n"
        clock.jump(400 * 86400)
        answer = b""
        with contextlib.suppress(OSError):  # with TLS 1.3 the client learns of the refusal only when it reads
            answer = await say(port, client)
        assert answer == b""


async def test_all_else_is_still_verified(folder: Path) -> None:
    async with listening(tlsclock.ignore_time(server_context(folder))) as port:
        stranger = tlsclock.client_context(clock=FakeClock(ISSUED), ca=folder / "other.crt", credential=folder / "client.pem")
        with pytest.raises(ssl.SSLCertVerificationError, match="self-signed|unable to get local issuer"):
            await say(port, stranger)
        named = tlsclock.client_context(clock=FakeClock(ISSUED), ca=folder / "ca.crt", credential=folder / "client.pem")
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            await asyncio.open_connection("127.0.0.1", port, ssl=named, server_hostname="elsewhere")
