"""Databases and snapshots of every released version open with this one; steps between formats are whole or not at all."""

import os
import shutil
import signal
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgekube.app.backup.restore import restore
from edgekube.app.backup.save import image_of
from edgekube.app.paths import Paths
from edgekube.config import Settings
from edgekube.lib import failpoint
from edgekube.store import migrations
from edgekube.store.migrations import Step
from edgekube.store.protocol import StoreDamaged
from edgekube.store.sqlite import open_store
from tests.unit.store.golden import CONTENT, FILES, PASSPHRASE

RELEASED = sorted(Path(__file__).parent.glob("golden-*"))
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def copy(golden, name, folder):
    """A released database as it lay on a disk, with its WAL."""
    (folder / "db").mkdir(parents=True)
    for companion in ("", "-wal"):
        if (golden / f"{name}.db{companion}").exists():
            shutil.copy(golden / f"{name}.db{companion}", folder / "db" / f"state.db{companion}")
    return folder / "db" / "state.db"


def contents(store):
    return {record.key: record.value for record in store.everything().records}


@pytest.mark.parametrize("golden", RELEASED, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["closed", "killed"])
async def test_a_released_database_opens(tmp_path, golden, name):
    path = copy(golden, name, tmp_path)
    store = await open_store(path)
    expected = {key: value for key, value in CONTENT.items() if name == "closed" or "ephemeral" not in key}
    assert contents(store) == expected
    before = store.revision
    assert (await store.create("pods/default/new", lambda _: (b"x", None))).revision > before
    await store.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["state.db"], "nothing was set aside as damaged"


@pytest.mark.parametrize("golden", RELEASED, ids=lambda path: path.name)
@pytest.mark.parametrize(("name", "passphrase"), [("plain", None), ("sealed", PASSPHRASE)])
async def test_a_released_snapshot_restores(tmp_path, golden, name, passphrase):
    paths = Paths(tmp_path, tmp_path / "run")
    restore(paths, Settings(data_dir=tmp_path), golden / f"{name}.snapshot", passphrase=passphrase, now=NOW)
    store = await open_store(paths.database)
    assert contents(store) == CONTENT
    await store.close()
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES


def shout(connection):
    """A step as there may be one: every value of pods in capitals, and one more table."""
    rows = connection.execute("SELECT id, value FROM slots WHERE key LIKE 'pods/%' AND state = 1").fetchall()
    connection.executemany("UPDATE slots SET value = ? WHERE id = ?", [(bytes(value).upper(), slot) for slot, value in rows])
    connection.execute("CREATE TABLE more(a)")


def twice(connection):
    connection.execute("INSERT INTO more VALUES(1)")


@pytest.fixture
def steps(monkeypatch):
    monkeypatch.setattr(migrations, "STEPS", (Step(2, shout), Step(3, twice)))


def looked_at(path):
    connection = sqlite3.connect(path)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return connection.execute("PRAGMA user_version").fetchone()[0], tables
    finally:
        connection.close()


@pytest.mark.parametrize("name", ["closed", "killed"])
async def test_steps_lead_from_an_old_one_to_the_newest(tmp_path, steps, name):
    path = copy(RELEASED[0], name, tmp_path)
    for _ in range(2):
        store = await open_store(path)
        assert contents(store)["pods/default/updated"] == b"THIRD VERSION"
        assert contents(store)["configmaps/default/plain"] == b"short"
        await store.close()
    assert looked_at(path) == (3, {"slots", "meta", "more"})


async def test_a_new_database_goes_the_same_way(tmp_path, steps):
    store = await open_store(tmp_path / "new.db")
    await store.close()
    assert looked_at(tmp_path / "new.db") == (3, {"slots", "meta", "more"})


async def test_a_step_that_fails_changes_nothing(tmp_path, monkeypatch):
    def fails(connection):
        shout(connection)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(migrations, "STEPS", (Step(2, fails),))
    path = copy(RELEASED[0], "closed", tmp_path)
    with pytest.raises(StoreDamaged, match="can not be opened: disk I/O error"):
        await open_store(path)
    assert looked_at(path) == (1, {"slots", "meta"})
    monkeypatch.setattr(migrations, "STEPS", ())
    store = await open_store(path)
    assert contents(store) == CONTENT
    await store.close()


async def test_killed_in_a_step(tmp_path, steps, monkeypatch):
    path = copy(RELEASED[0], "closed", tmp_path)
    child = os.fork()
    if child == 0:
        failpoint._points["store.migrate.before-commit"] = ("kill", 2)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        migrations.migrate(connection, 1, upto=3)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert looked_at(path) == (2, {"slots", "meta", "more"})
    store = await open_store(path)
    assert contents(store)["pods/default/updated"] == b"THIRD VERSION"
    await store.close()
    assert looked_at(path)[0] == 3


async def test_a_snapshot_of_an_old_database_is_migrated_when_it_is_opened(tmp_path, steps):
    """Not when it is taken: an upgrade that was taken back must find its database as it was."""
    path = copy(RELEASED[0], "closed", tmp_path / "a")
    assert image_of(path).format == 1
    assert looked_at(path)[0] == 1
    paths = Paths(tmp_path / "b", tmp_path / "run")
    restore(paths, Settings(data_dir=paths.data), RELEASED[0] / "plain.snapshot", passphrase=None, now=NOW)
    assert looked_at(paths.database) == (1, {"slots", "meta"})
    store = await open_store(paths.database)
    assert contents(store)["pods/default/updated"] == b"THIRD VERSION"
    await store.close()


async def test_a_damaged_old_one_is_saved_in_its_own_format(tmp_path, steps):
    path = copy(RELEASED[0], "closed", tmp_path)
    data = bytearray(path.read_bytes())
    data[100] = 0x55  # the root of the schema
    path.write_bytes(data)
    store = await open_store(path)
    assert contents(store)["pods/default/updated"] == b"THIRD VERSION"
    await store.close()
    assert looked_at(path)[0] == 3
