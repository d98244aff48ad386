"""Renewal by proof of key: for a node that was off until after its certificate's end, and for nobody else."""

import logging
from datetime import timedelta

import pytest

from edgekube.apiserver.renewal import LARGEST, PATH, Rate
from edgekube.lib import csr, pki
from edgekube.lib.clock import FakeClock
from edgekube.lib.pki import Subject
from tests.api.joining import Machine, joinable


@pytest.fixture
async def cluster():
    async with joinable() as made:
        yield made


def expired(cluster, machine: Machine) -> None:
    """As if the machine had been off for years."""
    authority = cluster.live.pki.authority.read_bytes()
    request = csr.parse(csr.make(machine.key, machine.subject))
    then = cluster.clock.now() - timedelta(days=200)
    machine.certificate = csr.issue(authority, request, ["digital signature", "client auth"], now=then, life=timedelta(days=1))


async def test_an_expired_certificate_is_refused_by_name_and_renewed_by_its_key(cluster, caplog):
    caplog.set_level(logging.INFO)
    pi = await cluster.join(Machine("pi"), await cluster.token())
    expired(cluster, pi)
    assert (await cluster.works(pi)).startswith("401 the certificate of system:node:pi does not hold now: its last moment is ")
    # Shown or not, the old certificate makes no difference here.
    for shown in (pi, None):
        status, made = await cluster.call("POST", PATH, csr.make(pi.key, pi.subject), machine=shown)
        assert status == 200, made
    pi.certificate = made
    assert await cluster.works(pi) == ""
    lines = [record for record in caplog.records if record.getMessage() == "certificate renewed by proof of key"]
    assert [line.__dict__["node"] for line in lines] == ["pi", "pi"]


async def test_what_is_not_renewed(cluster):
    pi = await cluster.join(Machine("pi"), await cluster.token())
    other = await cluster.join(Machine("other"), await cluster.token())
    node = ("system:nodes",)
    for body, code, words in (
        (csr.make(pki.create_key(), pi.subject), 403, "no renewal: node pi is another machine now"),
        (csr.make(pi.key, other.subject), 403, "no renewal: node other is another machine now"),
        (csr.make(pi.key, Subject("system:node:new", node)), 403, "no renewal: node new is not known here"),
        (csr.make(pi.key, Subject("system:node:pi", ("system:masters",))), 403, "no renewal: subject organization is not system:nodes"),
        (csr.make(pi.key, Subject("system:node:pi", node, ("pi",))), 403, "no renewal: DNS subjectAltNames are not allowed"),
        (b"nonsense", 400, "no signing request: PEM block type must be CERTIFICATE REQUEST"),
    ):
        status, answer = await cluster.call("POST", PATH, body)
        assert (status, answer["message"][: len(words)]) == (code, words)


async def test_a_revoked_node_is_not_renewed(cluster):
    pi = await cluster.join(Machine("pi"), await cluster.token())
    await cluster.revoke("pi")
    status, answer = await cluster.call("POST", PATH, csr.make(pi.key, pi.subject))
    assert (status, answer["message"]) == (403, "no renewal: the key of node pi was revoked")


async def test_large_bodies_and_other_methods_are_refused(cluster):
    status, answer = await cluster.call("POST", PATH, b"x" * (LARGEST + 1))
    assert (status, answer["message"]) == (413, f"Request entity too large: limit is {LARGEST}")
    assert (await cluster.call("GET", PATH))[0] in (403, 405)


async def test_requests_are_few(cluster):
    body = csr.make(pki.create_key(), Machine("pi").subject)
    codes = [(await cluster.call("POST", PATH, body))[0] for _ in range(8)]
    assert codes == [403] * 6 + [429] * 2


def test_the_rate_is_of_each_and_of_all_and_comes_back():
    clock = FakeClock()
    rate = Rate(clock, each=2, everybody=3, senders=4)
    assert [rate.admits("a") for _ in range(3)] == [True, True, False]
    assert [rate.admits("b") for _ in range(2)] == [True, False]  # all have had three
    clock.advance(60)
    assert rate.admits("a")
    for number in range(10):
        rate.admits(str(number))
    assert len(rate._known) <= 4
