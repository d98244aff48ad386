"""Snapshots by themselves: only of what has changed, only so many, and an error is no end of the process."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from edgekube.app.backup import folder
from edgekube.app.backup.schedule import Snapshots, parse
from edgekube.app.paths import Paths
from edgekube.config import Settings
from edgekube.errors import BadRequest
from edgekube.lib import archive
from edgekube.lib.clock import SystemClock
from edgekube.store.sqlite import open_store
from tests.unit.app.backup.test_restore import credentials, value


class Clock(SystemClock):
    """Moves when it is told to."""

    def __init__(self):
        super().__init__()
        self.moment = datetime(2026, 5, 1, tzinfo=UTC)

    def now(self):
        return self.moment

    def age(self, moment, *, foreign=False):
        return (self.moment - moment).total_seconds()


@pytest.fixture
async def cluster(tmp_path):
    paths = Paths(tmp_path, tmp_path / "run")
    credentials(tmp_path)
    store = await open_store(paths.database)
    clock = Clock()
    settings = Settings(data_dir=tmp_path, node_name="pi", snapshot_keep=2)
    yield Snapshots(store=store, paths=paths, settings=settings, clock=clock), store, clock
    await store.close()


def names(snapshots):
    return [each.name for each in folder.found(folder.folder_of(snapshots._paths.data))]


async def test_only_what_has_changed(cluster, tmp_path):
    snapshots, store, clock = cluster

    async def made():
        before = names(snapshots)
        clock.moment += timedelta(hours=12)
        assert await snapshots._by_itself()
        return names(snapshots) != before

    assert await made()
    assert not await made()
    await store.create("leases/a", value(b"x"), durable=False)
    assert not await made(), "what is on no disk is no reason to write to one"
    await store.create("pods/a", value(b"x"))
    assert await made()
    assert not await made()
    credentials(tmp_path, "renewed")
    assert await made()
    folder.path_for(folder.folder_of(tmp_path), "mine").write_bytes(b"")
    await store.delete("pods/a", store.get("pods/a").revision, value(b"x"))
    assert await made()
    assert len([name for name in names(snapshots) if name.startswith("auto-")]) == 2
    assert "mine" in names(snapshots)
    assert snapshots._due_in(3600.0) == 3600.0
    clock.moment += timedelta(minutes=40)
    assert snapshots._due_in(3600.0) == 1200.0


async def test_encrypted_if_wanted_and_no_end_without_the_passphrase(cluster, tmp_path):
    snapshots, _, _ = cluster
    file = tmp_path / "phrase"
    snapshots._settings = replace(snapshots._settings, snapshot_passphrase_file=str(file))
    assert not await snapshots._by_itself()
    assert names(snapshots) == []
    file.write_text("secret words\n")
    assert await snapshots._by_itself()
    path = folder.path_for(folder.folder_of(tmp_path), names(snapshots)[0])
    assert b"".join(archive.read(path, b"secret words"))


def test_requests():
    seal = archive.make_seal(b"x")
    body = json.dumps({"name": "a", "seal": {"key": seal.key.hex(), "how": seal.how}}).encode()
    assert parse(body) == ("a", seal)
    assert parse(b"") == ("", None)
    for bad in (b"[]", b"{", b'{"name": "../a"}', b'{"seal": {}}', b'{"seal": {"key": "00", "how": {"prefix": "00"}}}', b'{"name": "a/b"}'):
        with pytest.raises(BadRequest):
            parse(bad)
