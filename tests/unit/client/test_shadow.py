"""A Client that remembers: what it answers while the server is away, what it never answers, what of it is on the disk."""

import asyncio
import contextlib
import logging

import pytest

from edgekube.api.catalog import CONFIG_MAP, ENDPOINT_SLICE, NAMESPACE, NODE, POD, SECRET, SERVICE
from edgekube.api.types import Key
from edgekube.apiserver.identity import Decision, User
from edgekube.apiserver.local import LocalClient
from edgekube.apiserver.registry import tagger
from edgekube.apiserver.server import Server
from edgekube.client.cache import Cache, Source
from edgekube.client.faulty import Fault, FaultyClient
from edgekube.client.keeper import Pace
from edgekube.client.shadow import ShadowClient
from edgekube.client.shadowstore import ShadowStore
from edgekube.client.watched import ObjectTracker
from edgekube.errors import Expired, Forbidden, NotFound, ServiceUnavailable, Timeout
from edgekube.lib.clock import SystemClock
from edgekube.lib.sealed import FileKey, SealedLog
from edgekube.store.memory import MemoryStore
from tests.kit.cable import Cable
from tests.kit.remembering import QUICK, remembering
from tests.kit.until import until

MINE = Source(POD, fields="spec.nodeName=pi")


class Everything:
    def authorize(self, attributes):
        return Decision(attributes.namespace != "forbidden", "not here")


class Nobody:
    async def authenticate(self, *_):
        raise AssertionError


@contextlib.asynccontextmanager
async def world():
    """A server's client; another one is a server restored from a backup."""
    server = Server(store=MemoryStore(tagger), authenticator=Nobody(), authorizer=Everything(), clock=SystemClock())
    client = LocalClient(server, User("admin", ("system:masters",)))
    await client.create(NAMESPACE, {"metadata": {"name": "default"}})
    yield client
    await server.store.close()


@contextlib.asynccontextmanager
async def caching(client, *sources):
    cache = Cache(client=client, sources=sources)
    running = asyncio.get_running_loop().create_task(cache.run())
    try:
        async with asyncio.timeout(5):
            await cache.wait_synced()
        yield cache
    finally:
        running.cancel()
        await asyncio.wait({running})


def pod(name="web", secret=""):
    volumes = [{"name": "s", "secret": {"secretName": secret}}] if secret else []
    spec = {"nodeName": "pi", "containers": [{"name": "main", "image": "i"}], "volumes": volumes}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def config(name, kind="ConfigMap", **data):
    return {"kind": kind, "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"}, "data": data}


async def names(client, source=MINE):
    found = await client.list(source.kind, source.namespace, labels=source.labels, fields=source.fields)
    return [item.name for item in found.items]


async def test_a_cold_start_without_the_server(tmp_path):
    async with world() as server:
        await server.create(POD, pod("a"))
        await server.create(POD, pod("b"))
        outside = {"type": "ExternalName", "externalName": "example.com"}
        await server.create(SERVICE, {"metadata": {"name": "s", "namespace": "default"}, "spec": outside})
        async with remembering(tmp_path, server) as client:
            assert await names(client) == ["a", "b"]
            assert await names(client, Source(SERVICE)) == ["s"]
        for hang in (False, True):
            cable = Cable(server)
            cable.pull(hang=hang)
            async with remembering(tmp_path, cable) as client, asyncio.timeout(5):
                found = await client.list(POD, fields=MINE.fields, limit=1)
                assert [item.name for item in found.items] == ["a", "b"]  # also when a part was asked for
                assert (found.remembered, found.revision, found.continue_token) == (True, 0, "")
                assert found.items[0].decode() == await server.get(POD, "a", "default")
                assert (await client.get(POD, "b", "default"))["metadata"]["name"] == "b"
                assert await names(client, Source(SERVICE)) == ["s"]
                with pytest.raises(TimeoutError):  # what was never seen is waited for
                    async with asyncio.timeout(0.1):
                        await names(client, Source(NAMESPACE))
                with pytest.raises((ServiceUnavailable, TimeoutError)):
                    async with asyncio.timeout(0.1):
                        await client.create(POD, pod("c"))


async def test_nothing_remembered_while_the_server_answers(tmp_path):
    async with world() as server:
        await server.create(POD, pod("a"))
        async with remembering(tmp_path, server) as client:
            assert await names(client) == ["a"]
            await server.delete(POD, "a", "default", grace_seconds=0)
            assert await names(client) == []
            with pytest.raises(NotFound):
                await client.get(POD, "a", "default")
            with pytest.raises(Forbidden):
                await client.list(POD, "forbidden")


async def test_a_cache_through_an_outage(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cable = None
    async with world() as server:
        for name in ("stays", "goes", "again"):
            await server.create(POD, pod(name))
        cable = Cable(server)
        async with remembering(tmp_path, cable) as client, caching(client, MINE) as cache, asyncio.timeout(10):
            heard = []
            cache.on_change(POD, lambda old, new: heard.append((old and old.name, new and new.name)))
            cable.pull()
            await until(lambda: client.contact.away)
            await server.delete(POD, "goes", "default", grace_seconds=0)
            old = await server.get(POD, "again", "default")
            await server.delete(POD, "again", "default", grace_seconds=0)
            new = await server.create(POD, pod("again"))
            await server.create(POD, pod("new"))
            before = len(cable.calls)
            await asyncio.sleep(0.3)
            assert len(cable.calls) - before < 20
            assert heard == []
            cable.plug()
            await cache.wait_until(POD, Key("default", "new"), lambda item: item is not None)
            await cache.wait_until(POD, Key("default", "goes"), lambda item: item is None)
            assert cache.get(POD, Key("default", "again")).uid == new["metadata"]["uid"] != old["metadata"]["uid"]
            assert ("stays", "stays") not in heard
            assert (heard.count(("again", None)), heard.count((None, "again"))) == (1, 1)
    lines = [record.message for record in caplog.records if record.levelno >= logging.INFO and record.name.startswith("edgekube.client")]
    assert [line for line in lines if "contact" in line] == [
        "contact with the server lost; going on with what is remembered",
        "contact with the server is back",
    ]
    assert not [line for line in lines if "watch" in line]


async def test_from_cold_to_warm(tmp_path):
    async with world() as server:
        await server.create(POD, pod("a"))
        await server.create(POD, pod("b"))
        async with remembering(tmp_path, server) as client:
            await names(client)
        cable = Cable(server, plugged=False)
        async with remembering(tmp_path, cable) as client, caching(client, MINE) as cache, asyncio.timeout(5):
            assert cache.synced
            fresh = asyncio.get_running_loop().create_task(cache.wait_fresh())
            await asyncio.sleep(0.05)
            assert not fresh.done()  # nobody may take what is not here for gone
            await server.delete(POD, "b", "default", grace_seconds=0)
            cable.plug()
            await fresh
            assert [item.name for item in cache.list(POD)] == ["a"]


async def test_a_server_restored_from_a_backup(tmp_path):
    async with world() as first, world() as second:
        for name in ("a", "b", "c", "d"):
            await first.create(POD, pod(name))
        await second.create(POD, pod("a"))
        cable = Cable(first)
        async with remembering(tmp_path, cable) as client, caching(client, MINE) as cache, asyncio.timeout(5):
            assert len(cache.list(POD)) == 4
            cable.pull()
            await until(lambda: client.contact.away)
            cable.plug(second)
            await cache.wait_until(POD, Key("default", "d"), lambda item: item is None)
            assert [item.uid for item in cache.list(POD)] == [(await second.get(POD, "a", "default"))["metadata"]["uid"]]
            await second.create(POD, pod("new"))
            await cache.wait_until(POD, Key("default", "new"), lambda item: item is not None)
            cable.pull()
            await until(lambda: client.contact.away)
            assert await names(client) == ["a", "new"]


async def test_a_list_with_an_older_revision_ends_the_other_watches(tmp_path):
    """A connection that is only half dead would tell of a history that is over."""
    async with world() as first, world() as second:
        for name in ("a", "b", "c", "d"):
            await first.create(POD, pod(name))
        await second.create(POD, pod("a"))
        cable = Cable(first)
        async with remembering(tmp_path, cable) as client, asyncio.timeout(5):
            found = await client.list(POD, fields=MINE.fields)
            with pytest.raises(Expired):
                async with client.watch(POD, revision=found.revision, fields=MINE.fields) as batches:
                    cable.inner = second
                    await client.list(POD, fields=MINE.fields)
                    async for _ in batches:
                        pass


async def test_pages_are_remembered_whole_or_not_at_all(tmp_path):
    async with world() as server:
        for name in "abcde":
            await server.create(POD, pod(name))
        cable = Cable(server)
        async with remembering(tmp_path, cable) as client:
            page = await client.list(POD, fields=MINE.fields, limit=2)
            page = await client.list(POD, fields=MINE.fields, limit=2, continue_token=page.continue_token)
            cable.pull()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.list(POD, fields=MINE.fields, limit=2, continue_token=page.continue_token)
            cable.plug()
            token = ""
            for _ in range(3):
                page = await client.list(POD, fields=MINE.fields, limit=2, continue_token=token)
                token = page.continue_token
            cable.pull()
            assert await names(client) == list("abcde")
            with pytest.raises(Expired):
                await client.list(POD, fields=MINE.fields, limit=2, continue_token="x")


async def test_caches_share_their_bytes(tmp_path):
    async with world() as server:
        await server.create(POD, pod("a"))
        async with (
            remembering(tmp_path, server) as client,
            caching(client, MINE) as one,
            caching(client, MINE) as two,
            asyncio.timeout(5),
        ):
            key = Key("default", "a")
            assert one.get(POD, key) is two.get(POD, key)
            changed = await server.patch(POD, "a", "default", {"metadata": {"labels": {"x": "y"}}})
            for cache in (one, two):
                await cache.wait_for(POD, int(changed["metadata"]["resourceVersion"]))
            assert one.get(POD, key).labels == {"x": "y"}
            assert one.get(POD, key) is two.get(POD, key)


async def test_secrets_of_pods_are_kept_sealed_and_forgotten_with_the_pod(tmp_path):
    async with world() as server:
        await server.create(POD, pod("a", secret="db"))
        await server.create(SECRET, config("db", "Secret", password="aHVudGVyMg=="))
        key = Key("default", "db")
        async with remembering(tmp_path, server) as client, caching(client, MINE) as cache, ObjectTracker(client=client) as tracker:
            assert (await tracker.acquire(SECRET, key)).decode()["data"] == {"password": "aHVudGVyMg=="}
        data = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert b"aHVudGVyMg" not in data
        assert b"password" not in data
        cable = Cable(server, plugged=False)
        async with remembering(tmp_path, cable) as client, ObjectTracker(client=client) as tracker, asyncio.timeout(5):
            assert (await tracker.acquire(SECRET, key)).decode()["data"] == {"password": "aHVudGVyMg=="}
        await server.delete(POD, "a", "default", grace_seconds=0)
        async with remembering(tmp_path, server) as client, caching(client, MINE) as cache:
            assert cache.list(POD) == []
        async with remembering(tmp_path, cable) as client:
            with pytest.raises(ServiceUnavailable):
                await client.get(SECRET, "db", "default")


async def test_an_object_that_is_not_there_is_remembered_too(tmp_path):
    async with world() as server:
        async with remembering(tmp_path, server) as client:
            assert await names(client, Source(CONFIG_MAP, "default", fields="metadata.name=optional")) == []
        async with remembering(tmp_path, Cable(server, plugged=False)) as client:
            assert await names(client, Source(CONFIG_MAP, "default", fields="metadata.name=optional")) == []


async def test_the_settings_of_the_cluster_are_kept_when_read(tmp_path):
    async with world() as server:
        await server.create(NAMESPACE, {"metadata": {"name": "kube-system"}})
        settings = {"metadata": {"name": "edgekube-cluster", "namespace": "kube-system"}, "data": {"cluster-cidr": "10.42.0.0/16"}}
        made = await server.create(CONFIG_MAP, settings)
        async with remembering(tmp_path, server) as client:
            assert await client.get(CONFIG_MAP, "edgekube-cluster", "kube-system") == made
            await names(client)
        async with remembering(tmp_path, Cable(server, plugged=False)) as client:
            assert (await client.get(CONFIG_MAP, "edgekube-cluster", "kube-system"))["data"] == made["data"]


async def test_the_status_the_server_has_not_heard(tmp_path):
    """A restart count that was reached alone is not forgotten by the next restart."""
    async with world() as server:
        made = await server.create(POD, pod("a"))
        cable = Cable(server)
        async with remembering(tmp_path, cable) as client:
            await names(client)
            cable.pull()
            with pytest.raises(ServiceUnavailable):
                await client.update(POD, made | {"status": {"phase": "Running", "message": "alone"}}, subresource="status")
        async with remembering(tmp_path, cable) as client:
            (item,) = (await client.list(POD, fields=MINE.fields)).items
            found = item.decode()
            assert (found["status"]["message"], item.revision) == ("alone", 0)
            assert "resourceVersion" not in found["metadata"]  # no version of the server's
            cable.plug()
            client.contact.found()
            (item,) = (await client.list(POD, fields=MINE.fields)).items
            assert "message" not in item.decode()["status"]
            await client.update(POD, item.decode() | {"status": {"phase": "Running", "message": "heard"}}, subresource="status")
            cable.pull()
            (item,) = (await client.list(POD, fields=MINE.fields)).items
            assert item.decode()["status"].get("message") != "alone"


async def written(folder, act):
    """Bytes that reach the file because of `act`."""
    log = SealedLog(folder / "state", FileKey(folder / "state.key"))
    store = ShadowStore(file=log, pace=QUICK)
    await store.open()
    running = asyncio.get_running_loop().create_task(store.run())
    try:
        await act(store)
        await asyncio.sleep(0.2)
        return log.written
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_heartbeats_and_repetitions_write_nothing(tmp_path):
    async with world() as server:
        node = {
            "metadata": {"name": "pi"},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]},
        }
        made = await server.create(NODE, node)
        await server.create(POD, pod("a"))

        async def see(store):
            client = ShadowClient(server, store)
            await names(client)
            await names(client, Source(NODE))

        assert await written(tmp_path, see) > 300
        made["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-01-01T00:05:00Z"
        made["status"]["images"] = [{"names": ["x"], "sizeBytes": 1}]
        made = await server.update(NODE, made, subresource="status")
        assert await written(tmp_path, see) == 0
        made["status"]["conditions"][0]["status"] = "False"
        await server.update(NODE, made, subresource="status")
        assert 0 < await written(tmp_path, see) < 1000


async def test_a_damaged_file_is_one_warning(tmp_path, caplog):
    async with world() as server:
        await server.create(POD, pod("a"))
        async with remembering(tmp_path, server) as client:
            await names(client)
        data = bytearray((tmp_path / "state").read_bytes())
        data[60] ^= 1
        (tmp_path / "state").write_bytes(data)
        cable = Cable(server, plugged=False)
        async with remembering(tmp_path, cable) as client:
            waiting = asyncio.get_running_loop().create_task(names(client))
            await asyncio.sleep(0.05)
            cable.plug()
            assert await waiting == ["a"]
        assert [record.message for record in caplog.records if "remembered state" in record.message] == [
            "the remembered state can not be read; starting without it"
        ]
        async with remembering(tmp_path, Cable(server, plugged=False)) as client:
            assert await names(client) == ["a"]


async def test_a_disk_that_refuses_is_told_once_and_tried_again(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    async with world() as server:
        await server.create(POD, pod("a"))
        async with remembering(tmp_path, server) as client:
            await names(client)

            def full(point):
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr("edgekube.lib.sealed.hit", full)
                await server.create(POD, pod("b"))
                assert await names(client) == ["a", "b"]
                await until(lambda: "not written" in caplog.text)
                await asyncio.sleep(0.2)
            async with asyncio.timeout(5):
                await until(lambda: "written again" in caplog.text)
        assert caplog.text.count("not written") == 1
        async with remembering(tmp_path, Cable(server, plugged=False)) as client:
            assert await names(client) == ["a", "b"]


async def test_the_file_is_bounded(tmp_path, caplog):
    async with world() as server:
        for number in range(30):
            await server.create(CONFIG_MAP, config(f"c{number:02}", text="x" * 1000))
        pace = Pace(soon=0.01, limit=10_000)
        async with remembering(tmp_path, server, pace=pace) as client:
            for number in range(30):
                await names(client, Source(CONFIG_MAP, "default", fields=f"metadata.name=c{number:02}"))
        assert caplog.text.count("more to remember than fits") == 1
        file = SealedLog(tmp_path / "state", FileKey(tmp_path / "state.key"))
        assert sum(len(value) for value in file.load().values()) <= 10_000


async def test_a_server_that_does_not_answer_in_time_counts_as_away(tmp_path):
    async with world() as server:
        await server.create(POD, pod("a"))
        cable = Cable(server)
        async with remembering(tmp_path, server) as client:
            await names(client)
        cable.pull(hang=True)
        async with remembering(tmp_path, cable, patience=0.05) as client:
            started = asyncio.get_running_loop().time()
            assert await names(client) == ["a"]
            assert await names(client) == ["a"]
            assert asyncio.get_running_loop().time() - started < 1
            assert client.contact.away


async def test_a_link_that_is_just_coming_up_is_waited_for(tmp_path, caplog):
    """Else every start would begin with what was, and a warning."""
    async with world() as server:
        await server.create(POD, pod("a"))
        async with remembering(tmp_path, server) as client:
            await names(client)
        await server.create(POD, pod("b"))
        cable = Cable(server, plugged=False)
        async with remembering(tmp_path, cable, patience=2) as client:
            asyncio.get_running_loop().call_later(0.1, cable.plug)
            assert await names(client) == ["a", "b"]
        assert "contact" not in caplog.text


async def test_a_late_answer_is_no_lost_contact(tmp_path, caplog):
    """A server under load would be lost and found all the time."""
    async with world() as server:
        await server.create(POD, pod("a"))
        async with remembering(tmp_path, server) as client:
            client.contact.connected = lambda: True
            assert await names(client) == ["a"]
            client.inner = FaultyClient(server, [Fault(verb="list", error=Timeout("late"), times=1)])
            found = await client.list(POD, fields=MINE.fields)
            assert found.remembered  # better than nothing, and not for long
            assert not client.contact.away
            assert not (await client.list(POD, fields=MINE.fields)).remembered
    assert "contact" not in caplog.text


async def test_endpoints_of_own_pods_are_durable_soon(tmp_path):
    """Those of others, and who is ready, have time."""
    pace = Pace(soon=0.01, gather=3600)
    async with world() as server:
        mine = (await server.create(POD, pod("a")))["metadata"]["uid"]

        def endpoints(uid, ready=True):
            one = {"addresses": ["10.42.1.2"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "uid": uid}}
            return {"metadata": {"name": "web", "namespace": "default"}, "addressType": "IPv4", "ports": [], "endpoints": [one]}

        store = ShadowStore(file=SealedLog(tmp_path / "state", FileKey(tmp_path / "state.key")), pace=pace)
        await store.open()
        client = ShadowClient(server, store)
        await names(client)
        made = await server.create(ENDPOINT_SLICE, endpoints("somebody"))
        await names(client, Source(ENDPOINT_SLICE))
        await store.flush(later=False)
        size = store._file.size
        made = await server.update(ENDPOINT_SLICE, made | {"endpoints": endpoints(mine)["endpoints"]})
        await names(client, Source(ENDPOINT_SLICE))
        await store.flush(later=False)
        assert store._file.size > size
        size = store._file.size
        await server.update(ENDPOINT_SLICE, made | {"endpoints": endpoints(mine, ready=False)["endpoints"]})
        await names(client, Source(ENDPOINT_SLICE))
        await store.flush(later=False)
        assert store._file.size == size
