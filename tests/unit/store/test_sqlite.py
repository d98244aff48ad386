"""What only a store on a disk can promise: restarts, classes of durability, the ceiling, failing commits."""

import asyncio

import pytest

from edgekube.lib import failpoint
from edgekube.store.protocol import Compacted, EventType, StoreUnavailable
from edgekube.store.sqlite import CEILING_STEP, open_store


def value(data=b"x"):
    return lambda _: (data, None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "db" / "state.db"


@pytest.fixture
def disk(monkeypatch):
    """Switch failing commits on and off."""

    class Disk:
        def fails(self):
            monkeypatch.setitem(failpoint._points, "store.commit.before-sync", ("error", 1))

        def works(self):
            monkeypatch.delitem(failpoint._points, "store.commit.before-sync")

    return Disk()


async def test_a_clean_restart_keeps_everything_ephemeral_state_too(path):
    store = await open_store(path)
    durable = await store.create("pods/a", value(b"durable"))
    await store.create("leases/a", value(b"first"), durable=False)
    lease = await store.update("leases/a", store.get("leases/a").revision, value(b"second"), durable=False)
    await store.update("pods/a", durable.revision, value(b"heartbeat"), durable=False)
    revision = store.revision
    await store.close()
    store = await open_store(path)
    assert store.revision == revision
    assert (store.get("leases/a").value, store.get("leases/a").revision) == (b"second", lease.revision)
    assert store.get("pods/a").value == b"heartbeat"
    assert store.get("pods/a").create_revision == durable.revision
    await store.close()


async def test_durable_buckets_keep_their_history_others_list_again(path):
    store = await open_store(path)
    start = store.revision
    pod = await store.create("pods/a", value())
    changed = await store.update("pods/a", pod.revision, value(b"y"))
    gone = await store.delete("pods/a", changed.revision, value(b"last"))
    await store.create("leases/a", value(), durable=False)
    await store.close()
    store = await open_store(path)
    events = store.since("pods", start)
    assert [(e.type, e.revision, e.record.value) for e in events] == [
        (EventType.CREATED, pod.revision, b"x"),
        (EventType.UPDATED, changed.revision, b"y"),
        (EventType.DELETED, gone.revision, b"last"),
    ]
    assert [e.previous.value if e.previous else None for e in events] == [None, b"x", b"y"]
    assert store.oldest("leases") == store.revision
    with pytest.raises(Compacted):
        store.since("leases", start)
    await store.close()


async def test_history_after_a_restart_is_as_long_as_before_and_never_has_holes(path):
    store = await open_store(path, history=20)
    revisions = []
    for turn in range(100):
        key = f"pods/{turn % 7}"
        current = store.get(key)
        if current is not None and turn % 5 == 0:
            record = await store.delete(key, current.revision, value())
        elif current is not None:
            record = await store.update(key, current.revision, value(b"%d" % turn))
        else:
            record = await store.create(key, value(b"%d" % turn))
        revisions.append(record.revision)
    before = store.since("pods", store.oldest("pods"))
    await store.close()
    store = await open_store(path, history=20)
    after = store.since("pods", store.oldest("pods"))
    assert [e.revision for e in after] == revisions[-20:]
    assert [(e.type, e.revision, e.record.value) for e in after] == [(e.type, e.revision, e.record.value) for e in before]
    assert [e.previous and e.previous.revision for e in after] == [e.previous and e.previous.revision for e in before]
    await store.close()


async def test_the_file_is_bounded(path):
    store = await open_store(path, history=50)
    for number in range(2000):
        key = f"pods/{number % 10}"
        current = store.get(key)
        await (store.create(key, value()) if current is None else store.update(key, current.revision, value(b"%d" % number)))
    assert store._slots._next <= 10 + 50 + 5
    await store.close()


async def test_the_ceiling_is_always_on_the_disk_first(path):
    store = await open_store(path)
    for _ in range(CEILING_STEP + 500):
        current = store.latest("leases/a")
        if current is None:
            await store.create("leases/a", value(), durable=False)
        else:
            await store.update("leases/a", current.revision, value(), durable=False)
        assert store.revision <= store._ceiling
    await store.close()


async def test_a_bucket_s_first_ephemeral_write_needs_the_disk(path, disk):
    """Else its history would be believed after a crash."""
    store = await open_store(path)
    await store.create("leases/known", value(), durable=False)
    disk.fails()
    with pytest.raises(StoreUnavailable):
        await store.create("events/first", value(), durable=False)
    assert store.get("events/first") is None
    assert store.latest("events/first") is None
    await store.create("leases/more", value(), durable=False)
    disk.works()
    await store.create("events/first", value(), durable=False)
    await store.close()


async def test_what_builds_on_a_refused_ephemeral_write_is_refused(path, disk):
    store = await open_store(path)
    disk.fails()
    loop = asyncio.get_running_loop()
    first = loop.create_task(store.create("events/a", value(), durable=False))
    await asyncio.sleep(0)
    second = loop.create_task(store.update("events/a", store.latest("events/a").revision, value(), durable=True))
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 2
    disk.works()
    await store.create("events/a", value())
    await store.close()


async def test_revisions_of_refused_writes_are_not_given_again(path, disk):
    store = await open_store(path)
    good = await store.create("pods/a", value())
    disk.fails()
    with pytest.raises(StoreUnavailable):
        await store.create("pods/b", value())
    disk.works()
    assert (await store.create("pods/c", value())).revision > good.revision + 1
    await store.close()


async def test_independent_writes_go_on_after_a_failed_batch(path, disk):
    store = await open_store(path)
    loop = asyncio.get_running_loop()
    await store.create("leases/a", value(), durable=False)
    disk.fails()
    durable = loop.create_task(store.create("pods/a", value()))
    await asyncio.sleep(0)
    ephemeral = loop.create_task(store.create("leases/b", value(), durable=False))
    results = await asyncio.gather(durable, ephemeral, return_exceptions=True)
    assert isinstance(results[0], StoreUnavailable)
    assert store.get("leases/b") == results[1]
    disk.works()
    await store.close()


async def test_a_full_disk_at_start_still_shows_what_is_there(path, disk):
    store = await open_store(path)
    await store.create("pods/a", value(b"here"))
    await store.close()
    disk.fails()
    store = await open_store(path)
    assert store.get("pods/a").value == b"here"
    with pytest.raises(StoreUnavailable):
        await store.create("pods/b", value())
    disk.works()
    await store.create("pods/b", value())
    await store.close()


async def test_closing_commits_what_is_queued_and_takes_nothing_new(path):
    store = await open_store(path)
    loop = asyncio.get_running_loop()
    writes = [loop.create_task(store.create(f"pods/{n}", value())) for n in range(50)]
    await asyncio.sleep(0)
    closing = loop.create_task(store.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await store.create("pods/late", value())
    await asyncio.gather(closing, *writes)
    store = await open_store(path)
    assert store.count("pods") == 50
    await store.close()


async def test_the_deletion_of_what_never_reached_the_disk_does_not_reach_it_either(path):
    store = await open_store(path)
    lease = await store.create("leases/a", value(), durable=False)
    slots = store._slots._next
    await store.delete("leases/a", lease.revision, value())
    pod = await store.create("pods/a", value())
    shown = await store.update("pods/a", pod.revision, value(b"y"), durable=False)
    await store.delete("pods/a", shown.revision, value())
    await store.close()
    store = await open_store(path)
    assert store.get("pods/a") is None
    assert store._slots._next - slots == 2  # the pod and its tombstone
    await store.close()


async def test_tags_are_rebuilt_at_start(path):
    store = await open_store(path, tagger=lambda key, data, revision: (key, data, revision))
    record = await store.create("pods/a", lambda revision: (b"v", ("pods/a", b"v", revision)))
    await store.close()
    store = await open_store(path, tagger=lambda key, data, revision: (key, data, revision))
    assert store.get("pods/a").tag == record.tag
    await store.close()
