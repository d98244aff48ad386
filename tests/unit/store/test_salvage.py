"""The reader that trusts nothing, against what SQLite itself says of the same file."""

import os
import random
import shutil
import sqlite3

import pytest

from edgekube.store import salvage
from edgekube.store.protocol import StoreDamaged
from edgekube.store.slotlog import PAGE_SIZE, Row, SlotLog
from edgekube.store.sqlite import open_store


def make(path, count=300, *, close=True):
    """A database with small, large and deleted keys; returns its rows by revision and the open connection."""
    chance = random.Random(7)
    connection = sqlite3.connect(path)
    log = SlotLog(path, history=50)
    log.open(connection)
    log.load()
    rows = {}
    for revision in range(1, count + 1):
        size = chance.choice((3, 150, 900, 5_000, 40_000))
        data = chance.randbytes(size // 2) + b"a" * (size - size // 2)
        row = Row(revision, f"pods/default/p{revision % 97}", max(1, revision - revision % 7), revision % 13 == 0, data)
        log.commit([row], [("ceiling", str(revision + 1000))])
        rows[revision] = row
    if close:
        connection.close()
    return rows, connection


def by_sqlite(path):
    log = SlotLog(path, history=50)
    connection = sqlite3.connect(path)
    log.open(connection)
    content = log.load()
    connection.close()
    return {row.revision: row for row in content.rows}


def test_a_whole_database_is_read_whole(tmp_path):
    make(tmp_path / "a.db")
    found = salvage.read(tmp_path / "a.db")
    assert found.rows == by_sqlite(tmp_path / "a.db")
    assert found.meta["ceiling"] == "1300"


def test_commits_that_are_only_in_the_wal_are_read(tmp_path):
    _, connection = make(tmp_path / "a.db", close=False)
    for companion in ("", "-wal"):
        shutil.copy(f"{tmp_path}/a.db{companion}", f"{tmp_path}/b.db{companion}")
    connection.close()
    found = salvage.read(tmp_path / "b.db")
    assert max(found.rows) == 300
    expected = by_sqlite(tmp_path / "b.db")
    assert {revision: found.rows[revision] for revision in expected} == expected


def test_a_torn_wal_counts_up_to_its_last_whole_commit(tmp_path):
    _, connection = make(tmp_path / "a.db", count=20, close=False)
    for companion in ("", "-wal"):
        shutil.copy(f"{tmp_path}/a.db{companion}", f"{tmp_path}/b.db{companion}")
    connection.close()
    with open(f"{tmp_path}/b.db-wal", "r+b") as file:
        file.truncate(os.path.getsize(f"{tmp_path}/b.db-wal") - 100)
    found = salvage.read(tmp_path / "b.db")
    assert found.rows == by_sqlite(tmp_path / "b.db")
    assert max(found.rows) == 19


@pytest.mark.parametrize("seed", range(8))
def test_every_row_that_is_not_on_a_broken_page_is_read(tmp_path, seed):
    chance = random.Random(seed)
    make(tmp_path / "a.db")
    data = bytearray((tmp_path / "a.db").read_bytes())
    pages = len(data) // PAGE_SIZE
    whole = salvage.read(tmp_path / "a.db").rows
    broken = [0, *chance.sample(range(1, pages), 3)]
    for page in broken:
        data[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = chance.randbytes(PAGE_SIZE) if seed % 2 else bytes(PAGE_SIZE)
    (tmp_path / "a.db").write_bytes(data)
    found = salvage.read(tmp_path / "a.db").rows
    assert all(whole[revision] == row for revision, row in found.items())
    assert len(whole) - len(found) < 60


def test_noise_is_nothing(tmp_path):
    (tmp_path / "a.db").write_bytes(os.urandom(20 * PAGE_SIZE))
    assert salvage.read(tmp_path / "a.db").rows == {}
    (tmp_path / "a.db").write_bytes(b"")
    assert salvage.read(tmp_path / "a.db").rows == {}


async def test_a_lost_first_page_is_recovered_from(tmp_path):
    path = tmp_path / "state.db"
    store = await open_store(path)
    for number in range(100):
        await store.create(f"pods/{number}", lambda _: (os.urandom(700), None))
    before = {record.key: record.value for record in store.range("pods/")[0]}
    revision = store.revision
    await store.close()
    with path.open("r+b") as file:
        file.write(bytes(PAGE_SIZE))
    store = await open_store(path)
    assert {record.key: record.value for record in store.range("pods/")[0]} == before
    assert store.revision > revision
    await store.close()


async def test_a_kept_copy_is_the_last_resort(tmp_path):
    path = tmp_path / "state.db"
    store = await open_store(path)
    await store.create("pods/a", lambda _: (b"kept", None))
    await store.close()
    shutil.copy(path, tmp_path / "yesterday.db")
    path.write_bytes(path.read_bytes()[:100] + os.urandom(3 * PAGE_SIZE - 100))
    store = await open_store(path)
    assert store.get("pods/a").value == b"kept"
    await store.close()


async def test_a_foreign_file_is_no_case_for_recovery(tmp_path):
    path = tmp_path / "state.db"
    path.write_bytes(os.urandom(3 * PAGE_SIZE))
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match="not a database"):
        await open_store(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["state.db"]
