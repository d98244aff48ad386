"""When certificates are renewed, by what proof, and what is never written."""

import asyncio
import contextlib
import os
from datetime import timedelta

import pytest

from edgekube.agent import renewal as renewals
from edgekube.agent.identity import Identity, load, save
from edgekube.agent.renewal import NodeCertificates, RenewalConfig, validity
from edgekube.agent.signing import Refused
from edgekube.errors import ServiceUnavailable
from edgekube.lib import csr, pki
from edgekube.lib.clock import FakeClock
from edgekube.lib.pki import Subject
from tests.kit.until import until

LIFE = timedelta(days=30)


class Place:
    """A joined node whose certificates a hand-made authority signs; `asked` tells what was asked for, `trouble` is raised instead."""

    def __init__(self, folder, clock):
        self.clock, self.authority = clock, pki.create_authority("ca", clock.now())
        self.key, self.behind = pki.create_key(), timedelta(0)
        self.identity = Identity(folder, "pi", ("https://192.0.2.9:6443",), ("192.0.2.1",))
        pki.write_secret(self.identity.key, self.key)
        self.identity.ca.write_bytes(pki.certificate_pem(self.authority))
        for path, server in ((self.identity.client, False), (self.identity.serving, True)):
            path.write_bytes(self.made(self.subject(server)))
        save(self.identity)
        self.asked, self.renewed, self.reloaded, self.trouble = [], [], [], None
        self.addresses = ("192.0.2.1",)
        config = RenewalConfig(
            identity=self.identity, servers=lambda: self.identity.servers, addresses=lambda: self.addresses,
            renewed=lambda: self.renewed.append(1), reload=lambda: self.reloaded.append(1),
        )  # fmt: skip
        self.certificates = NodeCertificates(config=config, client=None, clock=clock)

    def subject(self, server):
        return Subject("system:node:pi", ("system:nodes",), ("pi",) if server else (), server=server, client=not server)

    def made(self, subject, key=None):
        request = csr.parse(csr.make(key or self.key, subject))
        return csr.issue(
            self.authority,
            request,
            ("digital signature", "server auth" if subject.server else "client auth"),
            now=self.clock.now() - self.behind,
            life=LIFE,
        )

    async def obtain(self, _client, wish, *, again):
        assert again
        self.asked.append((wish.subject.server, tuple(wish.subject.addresses)))
        if self.trouble is not None:
            raise self.trouble
        return self.made(wish.subject)

    async def fetch(self, server, path, *, context, timeout, body):
        self.asked.append((path, csr.parse(body).common_name))
        if self.trouble is not None:
            raise self.trouble
        return 200, {}, self.made(self.subject(False))


@pytest.fixture
async def place(tmp_path, monkeypatch):
    found = Place(tmp_path, FakeClock())
    monkeypatch.setattr(renewals, "obtain", found.obtain)
    monkeypatch.setattr(renewals, "fetch", found.fetch)
    return found


@contextlib.asynccontextmanager
async def running(place):
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(place.certificates.run(asyncio.Event()))
        await asyncio.sleep(0)
        yield
        task.cancel()


async def test_nothing_before_two_thirds_both_after(place):
    async with running(place):
        place.clock.advance(LIFE.total_seconds() * 0.66)
        place.certificates.kick()
        await asyncio.sleep(0.1)
        assert place.asked == []
        place.clock.advance(LIFE.total_seconds() * 0.01)
        place.certificates.kick()
        await until(lambda: len(place.reloaded) == 1)
    assert place.asked == [(False, ()), (True, ("192.0.2.1",))]
    assert place.renewed == [1]
    assert validity(place.identity.client).issued == place.clock.now()


async def test_one_that_has_ended_by_the_key(place):
    async with running(place):
        place.clock.jump(3 * 365 * 86400)
        place.certificates.kick()
        await until(lambda: len(place.reloaded) == 1)
    assert place.asked == [("/v1-edgekube/renew", "system:node:pi"), (True, ("192.0.2.1",))]


@pytest.mark.parametrize("content", [b"", b"\xa9garbage", None, "another key"])
async def test_what_the_disk_damaged_is_made_again(place, content):
    for path in (place.identity.client, place.identity.serving):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content if isinstance(content, bytes) else place.made(place.subject(False), pki.create_key()))
    async with running(place):
        await until(lambda: place.reloaded)
    assert place.asked == [("/v1-edgekube/renew", "system:node:pi"), (True, ("192.0.2.1",))]
    assert place.renewed == [1]


async def test_a_clock_years_ahead_of_the_servers_is_no_reason_to_ask_for_ever(place, caplog):
    async with running(place):
        place.behind = timedelta(days=730)
        place.clock.jump(place.behind.total_seconds())
        place.certificates.kick()
        await until(lambda: any("clock is far ahead" in record.message for record in caplog.records))
        place.asked.clear()
        await asyncio.sleep(1.5)  # longer than the shortest sleep
    assert place.asked == []


async def test_one_that_has_ended_by_the_servers_clock(place):
    async with running(place):
        place.certificates.refused(401, "the certificate of system:node:pi expired at 2026-01-01T00:00:00Z")
        await until(lambda: place.renewed)
    assert place.asked == [("/v1-edgekube/renew", "system:node:pi")]


async def test_another_address_is_another_serving_certificate(place):
    async with running(place):
        place.addresses = ("192.0.2.7",)
        place.certificates.kick()
        await until(lambda: place.reloaded)
    assert place.asked == [(True, ("192.0.2.7",))]
    assert load(place.identity.folder).addresses == ("192.0.2.7",)


async def test_a_certificate_for_another_key_is_not_written(place, caplog):
    before = place.identity.client.read_bytes()
    place.key = pki.create_key()
    async with running(place):
        place.clock.advance(LIFE.total_seconds() * 0.7)
        place.certificates.kick()
        await until(lambda: any("is for another key" in getattr(record, "error", "") for record in caplog.records))
    assert place.identity.client.read_bytes() == before
    assert place.renewed == []


@pytest.mark.parametrize("trouble", [ServiceUnavailable("away"), Refused("Denied", "no"), OSError(28, os.strerror(28))])
async def test_trouble_is_tried_again_and_the_old_certificate_stays(place, trouble, monkeypatch):
    before = place.identity.client.read_bytes()
    place.trouble = trouble
    async with running(place):
        place.clock.advance(LIFE.total_seconds() * 0.7)
        place.certificates.kick()
        await until(lambda: len(place.asked) == 1)
        assert place.identity.client.read_bytes() == before
        place.trouble = None
        place.certificates.kick()
        await until(lambda: place.reloaded)


async def test_a_revoked_node_says_so_once(place, caplog):
    async with running(place):
        for _ in range(3):
            place.certificates.refused(401, "the key of node pi was revoked")
            await asyncio.sleep(0.01)
    assert caplog.text.count("this node was revoked") == 1
    assert place.asked == []
