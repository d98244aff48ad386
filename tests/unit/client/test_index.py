"""KindStore: what handlers hear, what indexes find, who is woken."""

import asyncio

import pytest

from edgekube.api.item import Item
from edgekube.api.types import Key
from edgekube.client.index import KindStore


def item(name, revision=1, *, namespace="default", uid="", labels=None, controller="", owners=()):
    return Item(
        raw=b"{}",
        key=Key(namespace, name),
        uid=uid or f"uid-{name}",
        revision=revision,
        labels=labels or {},
        fields={},
        owners=owners or ((controller,) if controller else ()),
        controller=controller,
        deleting=False,
    )


@pytest.fixture
def store():
    return KindStore()


@pytest.fixture
def heard(store):
    calls = []
    store.on_change(lambda old, new: calls.append((old and old.revision, new and new.revision)))
    return calls


def test_handlers_hear_each_change_once(store, heard):
    store.put(item("a", 1))
    store.put(item("a", 2))
    store.drop(Key("default", "a"), item("a", 3))
    store.drop(Key("default", "a"))
    assert heard == [(None, 1), (1, 2), (3, None)]


def test_a_new_object_under_an_old_name_is_a_deletion_and_a_creation(store, heard):
    store.put(item("a", 1, uid="one"))
    store.put(item("a", 5, uid="two"))
    assert heard == [(None, 1), (1, None), (None, 5)]
    assert store.by_uid("one") is None
    assert store.by_uid("two").revision == 5


def test_lists_by_namespace(store):
    for namespace, name in (("x", "a"), ("y", "b"), ("x", "c")):
        store.put(item(name, namespace=namespace))
    assert [i.name for i in store.list("x", None)] == ["a", "c"]
    assert len(store) == len(list(store)) == 3
    store.drop(Key("x", "a"))
    store.drop(Key("x", "c"))
    assert store.list("x", None) == []


def test_an_index_made_late_knows_what_was_there_and_follows(store):
    store.put(item("a", controller="rs"))
    assert [i.name for i in store.by_index("controller", "rs")] == ["a"]
    store.put(item("b", controller="rs"))
    store.put(item("a", 2))
    assert [i.name for i in store.by_index("controller", "rs")] == ["b"]
    store.drop(Key("default", "b"))
    assert store.by_index("controller", "rs") == []


def test_own_index(store):
    store.add_index("first", lambda i: (i.name[0],))
    store.put(item("web-1"))
    store.put(item("db-1"))
    assert [i.name for i in store.by_index("first", "w")] == ["web-1"]
    assert sorted(store.index_values("first")) == ["d", "w"]


async def test_wait_for_wakes_in_order_of_revision(store):
    order = []

    async def wait(revision):
        await store.wait_for(revision)
        order.append(revision)

    async with asyncio.TaskGroup() as group:
        for revision in (7, 3, 5):
            group.create_task(wait(revision))
        await asyncio.sleep(0)
        store.reached(4)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == [3]
        store.reached(9)
    assert order == [3, 5, 7]
    await store.wait_for(9)


async def test_wait_until_looks_again_at_each_change_of_its_key(store):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(store.wait_until(Key("default", "a"), lambda i: i is not None and i.revision == 2))
        await asyncio.sleep(0)
        store.put(item("b"))
        store.put(item("a", 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
        store.put(item("a", 2))
    assert store._changed == {}


async def test_a_cancelled_wait_leaves_nothing_behind(store):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(store.wait_until(Key("default", "a"), lambda i: i is not None))
        await asyncio.sleep(0)
        task.cancel()
    assert store._changed == {}
