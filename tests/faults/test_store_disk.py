"""The store on disks that are full, broken, taken or somebody else's."""

import asyncio
import os
import sqlite3
import subprocess
import uuid
from pathlib import Path

import pytest

from edgekube.store.protocol import StoreDamaged, StoreUnavailable
from edgekube.store.sqlite import open_store
from tests.kit.requires import needs


def value(data=b"x"):
    return lambda revision: (data, None)


async def fill(path, count=200):
    store = await open_store(path)
    for n in range(count):
        await store.create(f"pods/{n}", value(os.urandom(500)))
    await store.close()
    return store.revision


@pytest.fixture
def small_disk():
    folder = Path(f"/tmp/ekt-disk-{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


@needs("root")
async def test_a_full_disk_refuses_writes_loses_nothing_and_recovers(small_disk):
    store = await open_store(small_disk / "state.db")
    written = {}
    with pytest.raises(StoreUnavailable, match="does not take writes"):
        for n in range(5000):
            data = os.urandom(2000)
            written[(await store.create(f"pods/{n}", value(data))).key] = data
    before = store.revision
    assert {r.key: r.value for r in store.range("pods/")[0]} == written
    record = await store.create("leases/x", value(), durable=False)
    assert record.revision > before
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    again = await store.create("pods/again", value(b"fits"))
    assert again.revision > before
    await store.close()
    store = await open_store(small_disk / "state.db")
    written["pods/again"] = b"fits"
    assert {r.key: r.value for r in store.range("pods/")[0]} == written
    await store.close()


async def test_a_failed_commit_is_taken_back_even_if_it_reached_the_disk(tmp_path, monkeypatch):
    """The commit fails after SQLite had written it: the next start must not show what was refused."""
    store = await open_store(tmp_path / "state.db")
    await store.create("pods/good", value())
    from edgekube.lib import failpoint

    monkeypatch.setitem(failpoint._points, "store.commit.before-sync", ("error", 1))
    with pytest.raises(StoreUnavailable):
        await store.create("pods/refused", value())
    assert store.get("pods/refused") is None
    assert store.trouble  # what /readyz shows
    monkeypatch.delitem(failpoint._points, "store.commit.before-sync")
    await store.create("pods/later", value())
    assert not store.trouble
    await store.close()
    store = await open_store(tmp_path / "state.db")
    assert [r.key for r in store.range("pods/")[0]] == ["pods/good", "pods/later"]
    await store.close()


async def test_writes_that_build_on_a_failed_one_fail_too(tmp_path, monkeypatch):
    store = await open_store(tmp_path / "state.db")
    from edgekube.lib import failpoint

    monkeypatch.setitem(failpoint._points, "store.commit.before-sync", ("error", 1))
    loop = asyncio.get_running_loop()
    first = loop.create_task(store.create("pods/a", value()))
    await asyncio.sleep(0)
    second = loop.create_task(store.update("pods/a", store.latest("pods/a").revision, value(b"y"), durable=False))
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable]
    assert store.latest("pods/a") is None
    monkeypatch.delitem(failpoint._points, "store.commit.before-sync")
    await store.create("pods/a", value())
    await store.close()


async def test_a_second_process_is_told_so(tmp_path):
    store = await open_store(tmp_path / "state.db")
    with pytest.raises(StoreDamaged, match="in use by another process"):
        await open_store(tmp_path / "state.db")
    await store.close()


async def test_a_foreign_database_is_left_alone(tmp_path):
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine(x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match="not a database of edgekube"):
        await open_store(path)
    path.write_bytes(before)
    path.write_bytes(b"hello, this is no database at all")
    with pytest.raises(StoreDamaged, match="not a database"):
        await open_store(path)
    assert path.read_bytes() == b"hello, this is no database at all"


async def test_a_newer_database_is_left_alone(tmp_path):
    path = tmp_path / "state.db"
    await fill(path, 1)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreDamaged, match="newer edgekube"):
        await open_store(path)


async def test_a_damaged_database_is_set_aside_and_salvaged(tmp_path):
    path = tmp_path / "state.db"
    revision = await fill(path)
    data = bytearray(path.read_bytes())
    for page in (10, 11):
        data[page * 4096 : page * 4096 + 4096] = os.urandom(4096)
    path.write_bytes(data)
    store = await open_store(path)
    assert 100 < store.count("pods") < 200
    assert store.revision > revision
    assert store.oldest("pods") == store.revision  # watchers list again
    await store.create("pods/new", value())
    await store.close()
    assert (tmp_path / "state.db.damaged-1").exists()
    store = await open_store(path)
    assert store.get("pods/new") is not None
    await store.close()


async def test_a_salvage_that_was_killed_is_done_again(tmp_path):
    path = tmp_path / "state.db"
    await fill(path, 5)
    path.rename(tmp_path / "state.db.damaged-1")
    (tmp_path / "state.db.salvaged").write_bytes(b"half")
    store = await open_store(path)
    assert store.count("pods") == 5
    await store.close()


async def test_what_cannot_be_salvaged_is_said(tmp_path):
    path = tmp_path / "state.db"
    await fill(path)
    data = bytearray(path.read_bytes())
    data[100:] = os.urandom(len(data) - 100)
    path.write_bytes(data)
    with pytest.raises(StoreDamaged, match="damaged"):
        await open_store(path)
    assert (tmp_path / "state.db.damaged-1").exists()
