"""What a Store promises, for both backends: every test runs on SQLite and on its in-memory twin."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekube.store.memory import MemoryStore
from edgekube.store.protocol import Compacted, EventType, FutureRevision, KeyExists, KeyMissing, RevisionMismatch, StoreUnavailable
from edgekube.store.sqlite import open_store


def value(text="x"):
    """An encoder that writes its revision into the value, as the API server does."""
    return lambda revision: (f"{text}@{revision}".encode(), {"revision": revision})


@pytest.fixture(params=["memory", "sqlite"])
async def store(request, tmp_path):
    found = MemoryStore() if request.param == "memory" else await open_store(tmp_path / "db" / "state.db")
    yield found
    await found.close()


async def put(store, key, text="x", *, durable=True):
    current = store.latest(key)
    if current is None:
        return await store.create(key, value(text), durable=durable)
    return await store.update(key, current.revision, value(text), durable=durable)


async def test_a_write_is_read_back_with_its_revision_inside(store):
    record = await store.create("pods/d/a", value("hello"))
    assert record.value == f"hello@{record.revision}".encode()
    assert store.get("pods/d/a") == record
    assert record.create_revision == record.revision == store.revision
    assert record.tag == {"revision": record.revision}


async def test_revisions_are_global_and_grow_by_one(store):
    revisions = [(await put(store, f"{bucket}/{n}")).revision for n in range(3) for bucket in ("pods", "nodes")]
    assert revisions == list(range(revisions[0], revisions[0] + 6))


async def test_compare_and_swap(store):
    first = await store.create("pods/a", value())
    with pytest.raises(KeyExists) as exists:
        await store.create("pods/a", value())
    assert exists.value.current == first
    second = await store.update("pods/a", first.revision, value("y"))
    assert (second.create_revision, second.revision) == (first.revision, first.revision + 1)
    for refused in (store.update("pods/a", first.revision, value()), store.delete("pods/a", first.revision, value())):
        with pytest.raises(RevisionMismatch) as mismatch:
            await refused
        assert mismatch.value.current == second
    for refused in (store.update("pods/none", 1, value()), store.delete("pods/none", 1, value())):
        with pytest.raises(KeyMissing):
            await refused


async def test_a_refused_write_costs_no_revision(store):
    record = await store.create("pods/a", value())
    with pytest.raises(RevisionMismatch):
        await store.update("pods/a", record.revision - 1, value())
    assert (await put(store, "pods/b")).revision == record.revision + 1


async def test_of_two_writers_with_one_expectation_one_wins(store):
    record = await store.create("pods/a", value())
    results = await asyncio.gather(
        *(store.update("pods/a", record.revision, value(str(n))) for n in range(20)), return_exceptions=True
    )
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert all(isinstance(result, RevisionMismatch) for result in results[1:])


async def test_delete_and_create_again(store):
    first = await store.create("pods/a", value())
    gone = await store.delete("pods/a", first.revision, value("last"))
    assert store.get("pods/a") is None
    assert gone.value == f"last@{gone.revision}".encode()
    again = await store.create("pods/a", value())
    assert again.create_revision == again.revision > gone.revision


async def test_range_orders_limits_and_continues(store):
    for name in ("b", "a", "d", "c"):
        await put(store, f"pods/x/{name}")
    await put(store, "pods/y/a")
    await put(store, "nodes/x")
    records, more = store.range("pods/x/")
    assert ([r.key for r in records], more) == (["pods/x/a", "pods/x/b", "pods/x/c", "pods/x/d"], 0)
    records, more = store.range("pods/", limit=3)
    assert ([r.key[-3:] for r in records], more) == (["x/a", "x/b", "x/c"], 2)
    records, more = store.range("pods/", after="pods/x/c", limit=3)
    assert ([r.key[-3:] for r in records], more) == (["x/d", "y/a"], 0)
    assert (store.count("pods"), store.count("none"), set(store.buckets())) == (5, 0, {"pods", "nodes"})


async def test_range_at_an_older_revision_shows_what_was(store):
    a = await put(store, "pods/a", "one")
    b = await put(store, "pods/b", "one")
    await put(store, "pods/a", "two")
    await store.delete("pods/b", b.revision, value())
    await put(store, "pods/c", "one")
    assert [r.key for r in store.range("pods/", revision=b.revision)[0]] == ["pods/a", "pods/b"]
    assert store.range("pods/", revision=b.revision)[0][0] == a
    page, more = store.range("pods/", revision=b.revision, limit=1)
    assert ([r.key for r in page], more) == (["pods/a"], 1)
    with pytest.raises(FutureRevision):
        store.range("pods/", revision=store.revision + 1)


async def test_history_since_a_revision(store):
    await put(store, "nodes/before")
    start = store.revision
    a = await put(store, "pods/a")
    await put(store, "nodes/between")
    b = await put(store, "pods/a", "new")
    gone = await store.delete("pods/a", b.revision, value())
    events = store.since("pods", start)
    assert [(e.type, e.revision) for e in events] == [
        (EventType.CREATED, a.revision), (EventType.UPDATED, b.revision), (EventType.DELETED, gone.revision),
    ]  # fmt: skip
    assert [e.previous for e in events] == [None, a, b]
    assert store.since("pods", b.revision) == events[2:]
    assert store.since("pods", gone.revision) == []
    with pytest.raises(FutureRevision):
        store.since("pods", store.revision + 1)


async def test_subscribers_hear_each_event_once_in_order_after_it_is_visible(store):
    heard = []

    def notify(events):
        assert all(store.revision >= event.revision for event in events)
        heard.extend(events)

    stop = store.subscribe("pods", notify)
    await asyncio.gather(*(put(store, f"pods/{n}", durable=n % 3 != 0) for n in range(50)))
    await put(store, "nodes/x")
    assert [e.revision for e in heard] == sorted(e.revision for e in heard)
    assert sorted(e.record.key for e in heard) == sorted(f"pods/{n}" for n in range(50))
    stop()
    await put(store, "pods/late")
    assert len(heard) == 50


async def test_an_ephemeral_write_waits_for_earlier_durable_ones(store):
    order = []
    store.subscribe("pods", lambda events: order.extend(e.record.key for e in events))
    durable = asyncio.get_running_loop().create_task(store.create("pods/durable", value()))
    await asyncio.sleep(0)
    await store.create("pods/ephemeral", value(), durable=False)
    await durable
    assert order == ["pods/durable", "pods/ephemeral"]


async def test_what_is_in_flight_is_latest_but_not_yet_readable(store):
    task = asyncio.get_running_loop().create_task(store.create("pods/a", value()))
    await asyncio.sleep(0)
    assert store.latest("pods/a") is not None
    assert store.get("pods/a") is None
    await task
    assert store.get("pods/a") == store.latest("pods/a")


async def test_a_cancelled_caller_does_not_take_its_write_back(store):
    task = asyncio.get_running_loop().create_task(store.create("pods/a", value()))
    await asyncio.sleep(0)
    task.cancel()
    await put(store, "pods/b")
    assert store.get("pods/a") is not None


async def test_closed_is_closed(store):
    await put(store, "pods/a")
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.create("pods/b", value())


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_old_history_is_refused_not_guessed(backend, tmp_path):
    store = MemoryStore(history=10) if backend == "memory" else await open_store(tmp_path / "state.db", history=10)
    await put(store, "pods/a")
    start = store.revision
    for n in range(30):
        await put(store, "pods/a", str(n))
    with pytest.raises(Compacted) as compacted:
        store.since("pods", start)
    assert compacted.value.oldest == store.oldest("pods")
    with pytest.raises(Compacted):
        store.range("pods/", revision=start)
    assert len(store.since("pods", store.oldest("pods"))) == 10
    await store.close()


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "gone"]), st.sampled_from("abcd"), st.booleans()), min_size=1, max_size=40
)


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors])
@given(operations=OPERATIONS)
def test_any_history_agrees_with_a_model(backend, operations, tmp_path_factory):
    async def scenario():
        store = MemoryStore() if backend == "memory" else await open_store(tmp_path_factory.mktemp("model") / "state.db")
        model, snapshots, heard = {}, {}, []
        store.subscribe("k", heard.extend)
        for verb, name, durable in operations:
            key = f"k/{name}"
            if verb == "put":
                record = await put(store, key, durable=durable)
                model[key] = record.value
            elif key in model:
                record = await store.delete(key, store.latest(key).revision, value())
                del model[key]
            else:
                continue
            snapshots[record.revision] = dict(model)
        assert {r.key: r.value for r in store.range("k/")[0]} == model
        for revision, expected in snapshots.items():
            assert {r.key: r.value for r in store.range("k/", revision=revision)[0]} == expected
        assert [e.revision for e in heard] == sorted(snapshots)
        await store.close()

    asyncio.run(scenario())
