"""What stands on a Client, against a live API server: Events, reflectors under trouble, election, certificates that change."""

import asyncio
import contextlib
import os
import socket
from datetime import UTC, datetime

import pytest

from edgekube.api.catalog import CONFIG_MAP, EVENT, EVENT_V1, LEASE, NAMESPACE, POD
from edgekube.api.types import Key
from edgekube.apiserver.front import Front, server_context
from edgekube.apiserver.identity import Decision, User
from edgekube.apiserver.local import LocalClient
from edgekube.apiserver.registry import tagger
from edgekube.apiserver.server import Server
from edgekube.client.cache import Cache
from edgekube.client.faulty import Fault, FaultyClient
from edgekube.client.http import HttpClient, HttpConfig
from edgekube.client.leases import Election, ElectionConfig
from edgekube.client.recorder import NORMAL, Recorder, reference
from edgekube.errors import AlreadyExists, Expired, Forbidden, NotFound, ServiceUnavailable, Timeout
from edgekube.lib import pki
from edgekube.lib.clock import FakeClock, SystemClock
from edgekube.store.memory import MemoryStore
from tests.api.controlplane import AllowAll, Nobody


@pytest.fixture
async def client():
    server = Server(store=MemoryStore(tagger), authenticator=Nobody(), authorizer=AllowAll(), clock=SystemClock())
    local = LocalClient(server, User("admin"))
    for name in ("default", "kube-system"):
        await local.create(NAMESPACE, {"metadata": {"name": name}})
    yield FaultyClient(local)
    await server.store.close()


@contextlib.asynccontextmanager
async def running(*coroutines):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        async with asyncio.timeout(10):
            yield tasks
        for task in tasks:
            task.cancel()


async def events(client, kind=EVENT):
    return [item.decode() for item in (await client.list(kind, "default")).items]


REF = reference({"metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "5"}}, POD, "spec.containers{c}")


async def test_an_event_is_counted_not_repeated(client):
    recorder = Recorder(client=client, component="kubelet", host="pi", clock=SystemClock())
    async with running(recorder.run()):
        for _ in range(3):
            recorder.event(REF, NORMAL, "Pulled", "image is here")
        await recorder.flush()
    (event,) = await events(client)
    assert (event["count"], event["message"], event["type"], event["reason"]) == (3, "image is here", "Normal", "Pulled")
    assert event["involvedObject"] == {
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": "default",
        "name": "web",
        "uid": "u",
        "resourceVersion": "5",
        "fieldPath": "spec.containers{c}",
    }
    assert event["source"] == {"component": "kubelet", "host": "pi"}
    assert (event["reportingComponent"], event["reportingInstance"]) == ("kubelet", "pi")
    assert event["metadata"]["name"].startswith("web.")


async def test_an_event_that_expired_is_made_again(client):
    recorder = Recorder(client=client, component="x", clock=SystemClock())
    async with running(recorder.run()):
        recorder.event(REF, NORMAL, "A", "b")
        await recorder.flush()
        await client.delete(EVENT, (await events(client))[0]["metadata"]["name"], "default")
        recorder.event(REF, NORMAL, "A", "b")
        await recorder.flush()
    assert [event["count"] for event in await events(client)] == [1]


async def test_series_as_the_scheduler_writes_them(client):
    recorder = Recorder(client=client, component="default-scheduler", clock=SystemClock(), series=True)
    async with running(recorder.run()):
        for _ in range(2):
            recorder.event(REF, "Warning", "FailedScheduling", "0/1 nodes are available", action="Scheduling")
        await recorder.flush()
    (event,) = await events(client)
    assert (event["action"], event["reportingComponent"], event["series"]["count"]) == ("Scheduling", "default-scheduler", 2)
    assert event["eventTime"]
    assert event["reportingInstance"] == f"default-scheduler-{socket.gethostname()}"
    (other,) = await events(client, EVENT_V1)
    assert (other["note"], other["reportingController"], other["regarding"]["name"]) == (
        "0/1 nodes are available",
        "default-scheduler",
        "web",
    )


async def test_events_list_in_the_order_they_happened(client):
    clock = FakeClock()  # stands still: the names must differ all the same
    recorder = Recorder(client=client, component="x", clock=clock)
    async with running(recorder.run()):
        for number in range(20):
            recorder.event(REF, NORMAL, f"R{number}", "b")
        await recorder.flush()
    found = sorted(await events(client), key=lambda event: event["metadata"]["name"])
    assert [event["reason"] for event in found] == [f"R{number}" for number in range(20)]


async def test_a_name_that_another_reporter_took_is_changed(client):
    client.faults = [Fault(verb="create", kind=EVENT, error=AlreadyExists("taken"), times=1)]
    recorder = Recorder(client=client, component="x", clock=SystemClock())
    async with running(recorder.run()):
        recorder.event(REF, NORMAL, "A", "b")
        await recorder.flush()
    assert [event["reason"] for event in await events(client)] == ["A"]


async def test_trouble_with_events_never_reaches_who_reports(client):
    client.faults = [Fault(verb="create", kind=EVENT, error=Forbidden("no"), times=1)]
    recorder = Recorder(client=client, component="x", clock=SystemClock())
    async with running(recorder.run()):
        recorder.event(REF, NORMAL, "Refused", "a")
        await recorder.flush()
        client.faults = [Fault(verb="create", kind=EVENT, error=ServiceUnavailable("later"), times=1)]
        recorder.event(REF, NORMAL, "Delayed", "b")
        await recorder.flush()
    assert [event["reason"] for event in await events(client)] == ["Delayed"]
    for number in range(2000):  # nobody writes them any more: the queue is bounded
        recorder.event(REF, NORMAL, "Flood", str(number))


async def make(client, name):
    return await client.create(CONFIG_MAP, {"metadata": {"name": name, "namespace": "default"}})


async def test_what_happened_while_away_is_told_once(client):
    await make(client, "kept")
    gone = await make(client, "gone")
    cache = Cache(client=client, sources=(CONFIG_MAP,))
    heard = []
    cache.on_change(CONFIG_MAP, lambda old, new: heard.append((old and old.uid, new and new.uid)))
    client.faults = [Fault(verb="watch", error=ServiceUnavailable("down"), times=2), Fault(verb="watch", error=Expired("old"), times=1)]
    async with running(cache.run()):
        await cache.wait_synced()
        await client.delete(CONFIG_MAP, "gone", "default")
        again = await make(client, "gone")
        new = await make(client, "new")
        await cache.wait_until(CONFIG_MAP, Key("default", "new"), lambda item: item is not None)
        await cache.wait_until(CONFIG_MAP, Key("default", "gone"), lambda item: item is not None and item.uid == again["metadata"]["uid"])
    uids = {obj["metadata"]["uid"] for obj in (again, new)}
    assert heard[2] == (gone["metadata"]["uid"], None)
    assert {change[1] for change in heard[3:]} == uids
    assert len(heard) == 5


async def test_a_silent_watch_resumes_and_one_ahead_of_the_server_lists(client):
    ahead = Timeout("Too large resource version: 9, current: 1", details={"causes": [{"reason": "ResourceVersionTooLarge"}]})
    client.faults = [Fault(verb="watch", error=Timeout("silence"), times=2), Fault(verb="watch", error=ahead, times=1)]
    cache = Cache(client=client, sources=(CONFIG_MAP,))
    async with running(cache.run()):
        await cache.wait_synced()
        await make(client, "a")
        await cache.wait_until(CONFIG_MAP, Key("default", "a"), lambda item: item is not None)
    assert client.calls.count(("list", "configmaps")) == 2


async def test_a_list_that_expires_between_pages_starts_over(client):
    for number in range(3):
        await make(client, f"c{number}")
    client.faults = [Fault(verb="list", error=Expired("too old"), times=2), Fault(verb="list", error=Forbidden("not yet"), times=2)]
    cache = Cache(client=client, sources=(CONFIG_MAP,))
    async with running(cache.run()):
        await cache.wait_synced()
    assert cache.count(CONFIG_MAP) == 3


async def test_of_two_one_leads_and_the_other_follows_when_it_stops(client):
    def election(identity):
        config = ElectionConfig(name="x", identity=identity, lease_seconds=0.5, renew_seconds=0.3, retry_seconds=0.02)
        return Election(client=client, config=config, clock=SystemClock())

    leads = asyncio.Queue()

    def lead(identity):
        async def work():
            leads.put_nowait(identity)
            await asyncio.Event().wait()

        return work

    async with running(election("a").run(lead("a"))) as (first,):
        assert await leads.get() == "a"
        async with running(election("b").run(lead("b"))):
            await asyncio.sleep(0.1)
            assert leads.empty()
            first.cancel()
            assert await leads.get() == "b"
            lease = await client.get(LEASE, "x", "kube-system")
            assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("b", 1)


async def test_a_leader_that_cannot_renew_gives_up(client):
    config = ElectionConfig(name="x", identity="a", lease_seconds=1.0, renew_seconds=0.05, retry_seconds=0.02)
    election = Election(client=client, config=config, clock=SystemClock())

    async def lead():
        client.faults = [Fault(verb="update", kind=LEASE, error=ServiceUnavailable("no"))]
        await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup, match="unhandled"):
        await election.run(lead)


async def test_faults_hit_what_they_name(client):
    client.faults = [Fault(verb="get", kind=CONFIG_MAP, error=ServiceUnavailable("no"), skip=1, times=1)]
    await make(client, "a")
    await client.get(CONFIG_MAP, "a", "default")
    with pytest.raises(NotFound):
        await client.get(POD, "a", "default")
    with pytest.raises(ServiceUnavailable):
        await client.get(CONFIG_MAP, "a", "default")
    await client.get(CONFIG_MAP, "a", "default")
    assert client.calls.count(("get", "configmaps")) == 3


class ByCertificate:
    """Authenticator: the name in the client's certificate."""

    async def authenticate(self, _authorization, certificate):
        return User(certificate.common_name) if certificate is not None else None


def write_certificate(path, authority, name):
    pki.write_secret(path, pki.issue(authority, pki.Subject(name, addresses=("127.0.0.1",), server=True, client=True), datetime.now(UTC)))


async def test_a_renewed_certificate_is_used_without_a_restart(tmp_path):
    authority = pki.create_authority("test", datetime.now(UTC))
    ca, serving, mine = (tmp_path / name for name in ("ca.pem", "serving.pem", "mine.pem"))
    ca.write_bytes(pki.certificate_pem(authority))
    write_certificate(serving, authority, "server")
    write_certificate(mine, authority, "first")
    server = Server(store=MemoryStore(tagger), authenticator=ByCertificate(), authorizer=NamedOnly(), clock=SystemClock())
    front = Front(server)
    port = await front.listen("127.0.0.1", 0, server_context(serving, ca))
    async with HttpClient(HttpConfig(server=f"https://127.0.0.1:{port}", ca_file=ca, cert_file=mine)) as client:
        with pytest.raises(Forbidden, match='User "first" cannot get'):
            await client.get(POD, "a", "default")
        async with client.watch(POD, revision=(await client.list(POD)).revision) as batches:
            write_certificate(mine, authority, "second")
            os.utime(mine, (1, 1))
            with pytest.raises(Forbidden, match='User "second" cannot get'):
                await client.get(POD, "a", "default")
            await LocalClient(server, User("second")).create(NAMESPACE, {"metadata": {"name": "default"}})
            pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
            await LocalClient(server, User("second")).create(POD, pod, "default")
            async with asyncio.timeout(5):
                assert [change.item.name async for batch in first_of(batches) for change in batch] == ["p"]
    await front.close(0.1)
    await server.store.close()


async def first_of(batches):
    """The old connection's watch goes on."""
    async for batch in batches:
        yield batch
        return


class NamedOnly:
    """Authorizer that refuses GET, so that the answer names who asked."""

    def authorize(self, attributes):
        return Decision(attributes.verb != "get")
