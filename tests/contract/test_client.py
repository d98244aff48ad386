"""What every Client promises, in process, over HTTP, and remembered: the same answers, the same errors, the same watch."""

import asyncio
import contextlib

import pytest

from edgekube.api.catalog import CONFIG_MAP, NAMESPACE, POD, REPLICA_SET
from edgekube.api.types import Key
from edgekube.apiserver.front import Front
from edgekube.apiserver.identity import Decision, User
from edgekube.apiserver.local import LocalClient
from edgekube.apiserver.registry import tagger
from edgekube.apiserver.server import Server
from edgekube.client.cache import Cache, Source
from edgekube.client.faulty import FaultyClient
from edgekube.client.http import HttpClient, HttpConfig
from edgekube.client.protocol import ChangeType, PatchType
from edgekube.client.shadow import ShadowClient
from edgekube.client.shadowstore import ShadowStore
from edgekube.client.watched import ObjectTracker
from edgekube.errors import AlreadyExists, Conflict, Expired, Forbidden, NotFound, ServiceUnavailable, Unauthorized
from edgekube.lib.clock import SystemClock
from edgekube.lib.sealed import FileKey, SealedLog
from edgekube.store.memory import MemoryStore

ADMIN = User("admin", ("system:masters",))


class Authorizer:
    """Everything but what the tests want refused."""

    def authorize(self, attributes):
        return Decision(attributes.namespace != "forbidden", "not here")


class Authenticator:
    """One good token."""

    async def authenticate(self, authorization, _certificate):
        if authorization == "Bearer good":
            return ADMIN
        raise Unauthorized


@pytest.fixture
async def server():
    found = Server(store=MemoryStore(tagger, history=50), authenticator=Authenticator(), authorizer=Authorizer(), clock=SystemClock())
    yield found
    await found.store.close()


@contextlib.asynccontextmanager
async def over_http(server, token="good"):
    front = Front(server)
    port = await front.listen("127.0.0.1", 0, None)
    async with HttpClient(HttpConfig(server=f"http://127.0.0.1:{port}", token=lambda: token)) as client:
        yield client
    await front.close(0.1)


@contextlib.asynccontextmanager
async def shadowed(inner, folder):
    store = ShadowStore(file=SealedLog(folder / "state", FileKey(folder / "state.key")))
    await store.open()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(store.run())
        yield ShadowClient(inner, store)
        running.cancel()


@pytest.fixture(params=["local", "http", "faulty", "shadow", "shadow-http"])
async def client(request, server, tmp_path):
    local = LocalClient(server, ADMIN)
    await local.create(NAMESPACE, {"metadata": {"name": "default"}})
    await local.create(NAMESPACE, {"metadata": {"name": "other"}})
    if request.param == "http":
        async with over_http(server) as http:
            yield http
    elif request.param == "shadow":
        async with shadowed(local, tmp_path) as shadow:
            yield shadow
    elif request.param == "shadow-http":
        async with over_http(server) as http, shadowed(http, tmp_path) as shadow:
            yield shadow
    else:
        yield local if request.param == "local" else FaultyClient(local)


def config_map(name="a", namespace="default", labels=None, **data):
    metadata = {"name": name, "namespace": namespace} | ({"labels": labels} if labels else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def next_changes(batches, count):
    found = []
    async with asyncio.timeout(5):
        async for batch in batches:
            found += [change for change in batch if change.type is not ChangeType.BOOKMARK]
            if len(found) >= count:
                return found
    return found


async def test_create_get_update_delete(client):
    made = await client.create(CONFIG_MAP, config_map(x="1"))
    assert made["metadata"]["uid"]
    assert await client.get(CONFIG_MAP, "a", "default") == made
    changed = await client.update(CONFIG_MAP, made | {"data": {"x": "2"}})
    assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    with pytest.raises(Conflict):
        await client.update(CONFIG_MAP, made | {"data": {"x": "3"}})
    gone = await client.delete(CONFIG_MAP, "a", "default")
    assert (gone["kind"], gone["status"], gone["details"]["uid"]) == ("Status", "Success", made["metadata"]["uid"])
    with pytest.raises(NotFound) as refused:
        await client.get(CONFIG_MAP, "a", "default")
    assert refused.value.message == 'configmaps "a" not found'


async def test_dry_run_stores_nothing(client):
    await client.create(CONFIG_MAP, config_map(), dry_run=True)
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAP, "a", "default")


async def test_refusals_are_the_same_classes(client):
    await client.create(CONFIG_MAP, config_map())
    with pytest.raises(AlreadyExists) as refused:
        await client.create(CONFIG_MAP, config_map())
    assert refused.value.message == 'configmaps "a" already exists'
    assert refused.value.details == {"name": "a", "kind": "configmaps"}
    with pytest.raises(Forbidden) as refused:
        await client.get(CONFIG_MAP, "a", "forbidden")
    assert refused.value.message.endswith('cannot get resource "configmaps" in API group "" in the namespace "forbidden": not here')
    with pytest.raises(NotFound):
        await client.delete(CONFIG_MAP, "b", "default")


async def test_preconditions_of_delete(client):
    made = await client.create(CONFIG_MAP, config_map())
    for precondition in ({"uid": "00000000-0000-0000-0000-000000000000"}, {"revision": "1"}):
        with pytest.raises(Conflict):
            await client.delete(CONFIG_MAP, "a", "default", **precondition)
    await client.delete(CONFIG_MAP, "a", "default", uid=made["metadata"]["uid"], revision=made["metadata"]["resourceVersion"])


async def test_deletes_with_finalizer_or_propagation_answer_what_is_left(client):
    held = config_map()
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await client.create(CONFIG_MAP, held)
    left = await client.delete(CONFIG_MAP, "a", "default")
    assert (left["kind"], "deletionTimestamp" in left["metadata"]) == ("ConfigMap", True)
    await client.create(CONFIG_MAP, config_map("b"))
    left = await client.delete(CONFIG_MAP, "b", "default", propagation="Foreground")
    assert left["metadata"]["finalizers"] == ["foregroundDeletion"]


@pytest.mark.parametrize(
    ("kind", "patch", "data"),
    [
        (PatchType.MERGE, {"data": {"x": None, "y": "2"}}, {"y": "2"}),
        (PatchType.JSON, [{"op": "replace", "path": "/data/x", "value": "3"}], {"x": "3"}),
        (PatchType.STRATEGIC, {"data": {"z": "4"}}, {"x": "1", "z": "4"}),
    ],
)
async def test_patches(client, kind, patch, data):
    await client.create(CONFIG_MAP, config_map(x="1"))
    changed = await client.patch(CONFIG_MAP, "a", "default", patch, patch_type=kind)
    assert changed["data"] == data


async def test_apply(client):
    body = config_map(x="1")
    made = await client.patch(CONFIG_MAP, "a", "default", body, patch_type=PatchType.APPLY, field_manager="me")
    assert made["data"] == {"x": "1"}
    with pytest.raises(Conflict):
        await client.patch(CONFIG_MAP, "a", "default", config_map(x="2"), patch_type=PatchType.APPLY, field_manager="you")
    taken = await client.patch(CONFIG_MAP, "a", "default", config_map(x="2"), patch_type=PatchType.APPLY, field_manager="you", force=True)
    assert taken["data"] == {"x": "2"}


async def test_status_is_written_apart(client):
    spec = {
        "replicas": 0,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }
    made = await client.create(REPLICA_SET, {"metadata": {"name": "r", "namespace": "default"}, "spec": spec})
    changed = await client.update(REPLICA_SET, made | {"status": {"replicas": 3}, "spec": {}}, subresource="status")
    assert (changed["status"]["replicas"], changed["spec"]) == (3, made["spec"])
    scale = await client.get(REPLICA_SET, "r", "default", subresource="scale")
    scale["spec"]["replicas"] = 2
    await client.update(REPLICA_SET, scale, subresource="scale")
    assert (await client.get(REPLICA_SET, "r", "default"))["spec"]["replicas"] == 2


async def test_lists(client):
    for number in range(5):
        await client.create(CONFIG_MAP, config_map(f"c{number}", labels={"odd": str(number % 2)}, n=str(number)))
    await client.create(CONFIG_MAP, config_map("x", "other"))
    everything = await client.list(CONFIG_MAP)
    assert [item.name for item in everything.items] == ["c0", "c1", "c2", "c3", "c4", "x"]
    one = everything.items[1]
    assert one.key == Key("default", "c1")
    assert one.decode() == await client.get(CONFIG_MAP, "c1", "default")
    assert (one.labels, one.uid, one.revision) == (
        {"odd": "1"},
        one.decode()["metadata"]["uid"],
        int(one.decode()["metadata"]["resourceVersion"]),
    )
    assert everything.revision >= max(item.revision for item in everything.items)
    assert [item.name for item in (await client.list(CONFIG_MAP, "default", labels="odd=1")).items] == ["c1", "c3"]
    assert [item.name for item in (await client.list(CONFIG_MAP, "default", fields="metadata.name=c2")).items] == ["c2"]


async def test_pages(client):
    for number in range(5):
        await client.create(CONFIG_MAP, config_map(f"c{number}"))
    first = await client.list(CONFIG_MAP, "default", limit=2)
    assert (len(first.items), first.remaining) == (2, 3)
    await client.create(CONFIG_MAP, config_map("c9"))
    second = await client.list(CONFIG_MAP, "default", limit=9, continue_token=first.continue_token)
    assert [item.name for item in second.items] == ["c2", "c3", "c4"]
    assert (second.continue_token, second.revision) == ("", first.revision)


async def test_watch(client):
    start = (await client.list(CONFIG_MAP)).revision
    made = await client.create(CONFIG_MAP, config_map(labels={"see": "yes"}))
    async with client.watch(CONFIG_MAP, "default", revision=start, labels="see=yes") as batches:
        await client.create(CONFIG_MAP, config_map("b"))
        changed = await client.update(CONFIG_MAP, made | {"data": {"x": "1"}})
        changed["metadata"]["labels"] = {"see": "no"}
        await client.update(CONFIG_MAP, changed)
        again = await client.patch(CONFIG_MAP, "a", "default", {"metadata": {"labels": {"see": "yes"}}})
        await client.delete(CONFIG_MAP, "a", "default")
        changes = await next_changes(batches, 5)
    assert [change.type.value for change in changes] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    assert changes[0].item.decode() == made
    assert changes[3].item.revision == int(again["metadata"]["resourceVersion"])
    revisions = [change.item.revision for change in changes]
    assert revisions == sorted(set(revisions))


async def test_a_list_and_a_watch_tell_the_same_bytes(client):
    """A cache that lists again must not take every object for changed."""
    start = (await client.list(CONFIG_MAP)).revision
    await client.create(CONFIG_MAP, config_map(labels={"a": "b"}, x="1"))
    async with client.watch(CONFIG_MAP, revision=start) as batches:
        (change,) = await next_changes(batches, 1)
    (item,) = (await client.list(CONFIG_MAP)).items
    assert (change.item.raw, change.item.revision) == (item.raw, item.revision)


async def test_a_watch_from_forgotten_times_expires(client):
    for number in range(80):
        await client.create(CONFIG_MAP, config_map(f"c{number}"))
        await client.delete(CONFIG_MAP, f"c{number}", "default")
    with pytest.raises(Expired):
        async with client.watch(CONFIG_MAP, revision=2) as batches:
            await next_changes(batches, 1)


async def test_raw(client):
    assert b'"major"' in await client.raw("GET", "/version")
    with pytest.raises(NotFound):
        await client.raw("GET", "/nowhere")


async def test_a_cache_on_it(client):
    await client.create(CONFIG_MAP, config_map(x="1"))
    cache = Cache(client=client, sources=(Source(CONFIG_MAP, namespace="default"), POD))
    heard = []
    cache.on_change(CONFIG_MAP, lambda old, new: heard.append((old and old.name, new and new.name)))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(cache.run())
        async with asyncio.timeout(5):
            await cache.wait_synced()
            made = await client.create(CONFIG_MAP, config_map("b"))
            await cache.wait_for(CONFIG_MAP, int(made["metadata"]["resourceVersion"]))
            assert cache.get(CONFIG_MAP, Key("default", "b")).decode() == made
            await client.delete(CONFIG_MAP, "a", "default")
            await cache.wait_until(CONFIG_MAP, Key("default", "a"), lambda item: item is None)
        task.cancel()
    assert heard == [(None, "a"), (None, "b"), ("a", None)]


async def test_single_objects_are_watched_while_somebody_needs_them(client):
    await client.create(CONFIG_MAP, config_map(x="1"))
    seen = asyncio.Queue()
    async with ObjectTracker(client=client) as tracker, asyncio.timeout(5):
        tracker.on_change(lambda _kind, key, item: seen.put_nowait((key.name, item and item.decode().get("data"))))
        key = Key("default", "a")
        assert (await tracker.acquire(CONFIG_MAP, key)).decode()["data"] == {"x": "1"}
        assert await tracker.acquire(CONFIG_MAP, Key("default", "missing")) is None
        await client.patch(CONFIG_MAP, "a", "default", {"data": {"x": "2"}})
        await client.create(CONFIG_MAP, config_map("missing", y="1"))
        assert [await seen.get() for _ in range(3)] == [("a", {"x": "1"}), ("a", {"x": "2"}), ("missing", {"y": "1"})]
        tracker.hold(CONFIG_MAP, key)
        tracker.release(CONFIG_MAP, key)
        assert tracker.known(CONFIG_MAP, key)
        tracker.release(CONFIG_MAP, key)
        assert tracker.get(CONFIG_MAP, key) is None


async def test_wrong_token_and_no_server(server):
    async with over_http(server, "bad") as client:
        with pytest.raises(Unauthorized):
            await client.get(POD, "a", "default")
    async with HttpClient(HttpConfig(server="http://127.0.0.1:1")) as client:
        with pytest.raises(ServiceUnavailable):
            await client.get(POD, "a", "default")
        with pytest.raises(ServiceUnavailable):
            async with client.watch(POD, revision=1):
                pass
