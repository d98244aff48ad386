"""Revocation: what a node has open ends at once, and what it tries next is refused with a line that says why."""

import asyncio
import time

import aiohttp
import pytest

from edgekube.api import catalog, nodeidentity
from edgekube.errors import ServiceUnavailable
from tests.api.joining import Machine, joinable
from tests.kit.agentlink import agent_link
from tests.kit.until import until


@pytest.fixture
async def cluster():
    async with joinable() as made:
        yield made


class Watching:
    """An open watch of a machine."""

    def __init__(self, cluster, machine: Machine) -> None:
        self._cluster, self._machine = cluster, machine

    async def __aenter__(self) -> "Watching":
        self._session = aiohttp.ClientSession()
        url = self._cluster.live.url + "/api/v1/nodes?watch=true"
        self._answer = await self._session.get(url, ssl=self._cluster.tls(self._machine))
        assert self._answer.status == 200
        await self._answer.content.readline()  # it lives: the first Node is there
        return self

    async def ended(self, seconds: float) -> float:
        """How long it took to end."""
        started = time.monotonic()
        async with asyncio.timeout(seconds):
            try:
                while await self._answer.content.readany():
                    pass
            except (aiohttp.ClientError, ConnectionError):
                pass
        return time.monotonic() - started

    async def goes_on(self) -> bool:
        return not self._answer.content.at_eof() and self._answer.connection is not None

    async def __aexit__(self, *_: object) -> None:
        self._answer.close()
        await self._session.close()


async def test_a_revoked_node_is_cut_off_within_two_seconds(cluster):
    token = await cluster.token()
    bad, good = await cluster.join(Machine("bad"), token), await cluster.join(Machine("good"), token)
    told = []
    cluster.identities.on_revoked(told.append)
    async with Watching(cluster, bad) as watch, Watching(cluster, good) as other:
        await cluster.revoke("bad")
        assert await watch.ended(2.0) < 2.0
        assert await other.goes_on()
    assert told == ["bad"]
    assert await cluster.works(bad) == "401 the key of node bad was revoked"
    assert await cluster.works(good) == ""


async def test_an_agents_one_connection_ends_too_and_does_not_come_back(cluster):
    async with agent_link(cluster.live, "edge-1") as agent, asyncio.timeout(10):
        session = agent.link.session
        listed = await agent.client.list(catalog.NODE)
        async with agent.client.watch(catalog.NODE, revision=listed.revision) as changes:
            await cluster.revoke("edge-1")
            with pytest.raises(ServiceUnavailable):
                await anext(changes)
        await session.closed
        await until(lambda: "was revoked" in agent.link.trouble)
        assert not cluster.live.tunnels.connected("edge-1")


async def test_a_machine_whose_name_is_taken_over_is_cut_off_too(cluster):
    old = await cluster.join(Machine("pi"), await cluster.token())
    async with Watching(cluster, old) as watch:
        await cluster.join(Machine("pi"), await cluster.token(node="pi", uses=1))
        assert await watch.ended(2.0) < 2.0
    assert (await cluster.works(old)).startswith("401 node pi is another machine now")


async def test_a_pin_that_is_gone_cuts_off_and_one_that_is_only_touched_does_not(cluster):
    pi = await cluster.join(Machine("pi"), await cluster.token())
    async with Watching(cluster, pi) as watch:
        secret = await cluster.live.client.get(catalog.SECRET, "pi.node-identity", "kube-system")
        secret["metadata"]["labels"] = {"a": "b"}
        await cluster.live.client.update(catalog.SECRET, secret)
        assert await cluster.works(pi) == ""
        assert await watch.goes_on()
        await cluster.live.client.delete(catalog.SECRET, nodeidentity.secret_name("pi"), "kube-system")
        assert await watch.ended(2.0) < 2.0
    assert (await cluster.works(pi)).startswith("401 node pi is not known here")


async def test_deleting_the_node_alone_cuts_nobody_off(cluster):
    pi = await cluster.join(Machine("pi"), await cluster.token())
    async with Watching(cluster, pi) as watch:
        await cluster.live.client.delete(catalog.NODE, "pi")
        assert await cluster.works(pi) == ""
        assert await watch.goes_on()


async def test_the_servers_own_node_is_known_by_its_file(cluster):
    own = Machine("node-1")
    pem = cluster.live.pki.kubelet_client.read_bytes()
    own.key, _, rest = pem.partition(b"-----BEGIN CERTIFICATE-----")
    own.certificate = b"-----BEGIN CERTIFICATE-----" + rest
    assert (await cluster.works(own)).startswith("401")
    cluster.identities.trust_own("node-1", cluster.live.pki.kubelet_client)
    assert await cluster.works(own) == ""
