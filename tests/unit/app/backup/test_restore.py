"""A snapshot taken from a store that goes on, restored on blank and used machines, and killed at every step."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgekube.app.backup import content, exchange, save
from edgekube.app.backup.content import SnapshotRow
from edgekube.app.backup.restore import ASIDE, Refused, missing_flags, restore
from edgekube.app.paths import Paths
from edgekube.config import Settings, shared
from edgekube.lib import archive
from edgekube.store.protocol import Compacted, EventType, FutureRevision
from edgekube.store.sqlite import open_store
from edgekube.store.transplant import BUMP

NOW = datetime(2026, 5, 1, tzinfo=UTC)
CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def settings(folder):
    return Settings(data_dir=folder, node_name="pi")


def value(data):
    return lambda _: (data, None)


def credentials(folder, text="first"):
    (folder / "pki").mkdir(parents=True, exist_ok=True)
    (folder / "pki" / "ca.crt").write_text(CA)
    (folder / "pki" / "ca.pem").write_text(text)


def machine(tmp_path, name):
    return Paths(tmp_path / name, tmp_path / f"{name}-run")


async def cluster(paths, pods=20):
    """A store with pods, some deleted and some with newer versions that are on no disk."""
    credentials(paths.data)
    store = await open_store(paths.database)
    for number in range(pods):
        await store.create(f"pods/{number}", value(b"pod %d" % number * 100))
    await store.delete("pods/0", store.get("pods/0").revision, value(b"gone"))
    await store.update("pods/1", store.get("pods/1").revision, value(b"heartbeat"), durable=False)
    return store


def contents(store):
    return {record.key: (record.value, record.revision, record.create_revision) for record in store.everything().records}


async def test_online_and_back_on_a_blank_machine(tmp_path):
    here, there = machine(tmp_path, "here"), machine(tmp_path, "there")
    store = await cluster(here)
    before = contents(store)
    image = store.everything()
    await store.create("pods/later", value(b"x"))
    saved = await save.save_online(here, settings(here.data), image, name="a", now=NOW)
    last = store.revision
    await store.close()
    assert (saved.objects, saved.revision) == (19, image.revision)

    done = restore(there, settings(there.data), saved.path, passphrase=None, now=NOW + timedelta(minutes=1))
    assert (done.objects, done.kept) == (19, [])
    assert (there.data / "pki" / "ca.pem").read_text() == "first"
    assert (there.data / "node-name").read_text() == "pi\n"
    again = await open_store(there.database)
    assert contents(again) == before
    assert again.revision >= saved.revision + BUMP > last
    for old in (last, saved.revision, 1):
        with pytest.raises(Compacted):
            again.since("pods", old)
        with pytest.raises(Compacted):
            again.since("jobs", old)
    with pytest.raises(FutureRevision):
        again.since("pods", again.revision + 1)
    made = await again.create("pods/new", value(b"y"))
    assert made.revision > saved.revision + BUMP
    await again.close()


async def test_two_lives_from_one_snapshot_do_not_share_revisions(tmp_path):
    here = machine(tmp_path, "here")
    store = await cluster(here)
    saved = await save.save_online(here, settings(here.data), store.everything(), name="a", now=NOW)
    await store.close()
    revisions = []
    for hours in (1, 2):
        there = machine(tmp_path, f"there{hours}")
        restore(there, settings(there.data), saved.path, passphrase=None, now=NOW + timedelta(hours=hours))
        again = await open_store(there.database)
        revisions.append(again.revision)
        await again.close()
    assert revisions[1] - revisions[0] == 3_600_000


async def test_the_old_state_is_kept_with_its_wal(tmp_path):
    paths = machine(tmp_path, "here")
    store = await cluster(paths)
    saved = await save.save_online(paths, settings(paths.data), store.everything(), name="a", now=NOW)
    await store.close()
    Path(f"{paths.database}-wal").write_bytes(b"stale")
    credentials(paths.data, "second")
    done = restore(paths, settings(paths.data), saved.path, passphrase=None, now=NOW)
    assert sorted(path.name for path in done.kept) == [f"db{ASIDE}20260501-000000", f"pki{ASIDE}20260501-000000"]
    assert [entry.name for entry in (paths.data / "db").iterdir()] == ["state.db"]
    assert (done.kept[1] / "ca.pem").read_text() == "second"
    exchange.forget(paths.data, ASIDE)
    assert exchange.kept(paths.data, ASIDE) == []


async def test_what_is_refused_changes_nothing(tmp_path):
    paths = machine(tmp_path, "here")
    store = await cluster(paths)
    saved = await save.save_online(paths, settings(paths.data), store.everything(), name="a", now=NOW, seal=archive.make_seal(b"right"))
    with pytest.raises(Refused, match="in use by another process"):
        restore(paths, settings(paths.data), saved.path, passphrase=b"right", now=NOW)
    await store.close()
    whole, before = saved.path.read_bytes(), listing(paths.data)
    newer = tmp_path / "newer"
    archive.write(newer, {**archive.read_header(saved.path), "database": 99, "edgekube": "9.0"}, [b""])
    for file, data, passphrase, why in (
        (saved.path, whole, b"wrong", "the passphrase is not the one"),
        (saved.path, whole, None, "it is encrypted"),
        (saved.path, whole[:-100], b"right", "it is damaged or cut short"),
        (newer, newer.read_bytes(), None, r"made by a newer edgekube \(9.0\)"),
    ):
        file.write_bytes(data)
        with pytest.raises(Refused, match=why) as refused:
            restore(paths, settings(paths.data), file, passphrase=passphrase, now=NOW)
        assert "\n" not in str(refused.value)
        saved.path.write_bytes(whole)
        assert listing(paths.data) == before
    paths.agent.mkdir()
    with pytest.raises(Refused, match="belongs to an agent"):
        restore(paths, settings(paths.data), saved.path, passphrase=b"right", now=NOW)


def listing(folder):
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def test_flags_that_the_cluster_needs(tmp_path):
    theirs = shared(replace(settings(tmp_path), cluster_cidr="10.9.0.0/16"))
    assert missing_flags({"cluster": theirs}, settings(tmp_path)) == ["--cluster-cidr=10.9.0.0/16"]


KILLED = """
import sys, json
from datetime import UTC, datetime
from pathlib import Path
from edgekube.app.backup.restore import restore
from edgekube.app.paths import Paths
from edgekube.config import Settings
data, file = map(Path, sys.argv[1:])
restore(Paths(data, data / "run"), Settings(data_dir=data, node_name="pi"), file, passphrase=None, now=datetime(2026, 5, 1, tzinfo=UTC))
"""
STEPS = ("before-decision", "decided", "aside", "aside=kill:2", "into-place", "into-place=kill:2", "into-place=kill:3", "before-end")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["again", "start"])
async def test_killed_at_every_step(tmp_path, step, how):
    """Afterwards it is all old or all new; running it again, or starting the server once it was decided, completes it."""
    paths = machine(tmp_path, "here")
    store = await cluster(paths)
    old = contents(store)
    saved = await save.save_online(paths, settings(paths.data), store.everything(), name="a", now=NOW)
    await store.create("pods/later", value(b"x"))
    newer = contents(store)
    await store.close()
    credentials(paths.data, "second")
    point = f"exchange.{step}" if "=" in step else f"exchange.{step}=kill"
    argv = [sys.executable, "-c", KILLED, str(paths.data), str(saved.path)]
    done = subprocess.run(argv, env=os.environ | {"EDGEKUBE_FAILPOINTS": point}, check=False)
    assert done.returncode == -9
    if how == "again":
        assert subprocess.run(argv, check=False).returncode == 0
        decided = True
    else:
        decided = exchange.finish(paths.data)
        assert decided == (step != "before-decision")
    again = await open_store(paths.database)
    assert contents(again) == (old if decided else newer)
    await again.close()
    assert (paths.data / "pki" / "ca.pem").read_text() == ("first" if decided else "second")
    assert not exchange.finish(paths.data)
    kept = {path.name.partition(ASIDE)[0] for path in exchange.kept(paths.data, ASIDE)}
    if decided:
        asides = [path / "ca.pem" for path in exchange.kept(paths.data, ASIDE) if path.name.startswith("pki")]
        assert "second" in [path.read_text() for path in asides], "the state that was there is kept"
    if how == "start":
        assert kept == ({"db", "pki"} if decided else set())
    assert not (paths.data / "exchange.json").exists()


def test_an_offline_image_is_what_the_store_would_load(tmp_path):
    paths = machine(tmp_path, "here")

    async def make():
        store = await cluster(paths)
        await store.close()
        store = await open_store(paths.database)
        found = contents(store)
        await store.close()
        return found

    found = asyncio.run(make())
    image = save.image_of(paths.database)
    assert {r.key: (r.value, r.revision, r.create_revision) for r in image.records} == found


def test_header_says_what_list_shows(tmp_path):
    paths = machine(tmp_path, "here")

    async def make():
        store = await cluster(paths)
        try:
            return await save.save_online(paths, settings(paths.data), store.everything(), name="a", now=NOW)
        finally:
            await store.close()

    header = archive.read_header(asyncio.run(make()).path)
    assert json.dumps(header)
    assert {"created": "2026-05-01T00:00:00Z", "node": "pi", "objects": 19, "format": 1, "database": 1}.items() <= header.items()


async def test_under_load_each_is_the_state_at_one_revision(tmp_path):
    """Writers never stop; every snapshot is exactly what the events up to its revision tell."""
    paths = machine(tmp_path, "here")
    credentials(paths.data)
    store = await open_store(paths.database)
    events, stop = [], False
    for bucket in ("pods", "leases"):
        store.subscribe(bucket, events.extend)

    async def writer(number):
        turn = 0
        while not stop:
            turn += 1
            durable = number % 2 == 0
            key = f"{'pods' if durable else 'leases'}/{number}-{turn % 7}"
            found = store.latest(key)
            if found is None:
                await store.create(key, value(b"%d" % turn * 300), durable=durable)
            elif turn % 5 == 0:
                await store.delete(key, found.revision, value(b"gone"))
            else:
                await store.update(key, found.revision, value(b"%d" % turn * 300), durable=durable)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(writer(number))
        here = settings(paths.data)
        saved = [await save.save_online(paths, here, store.everything(), name=f"s{number}", now=NOW) for number in range(20)]
        stop = True
    await store.close()
    assert len({each.revision for each in saved}) > 10
    for each in saved:
        expected = {}
        for event in events:
            if event.revision > each.revision:
                break
            expected[event.record.key] = event.record.value
            if event.type is EventType.DELETED:
                del expected[event.record.key]
        archive.verify(each.path)
        found = {row.key: row.value for row in content.unpack(archive.read(each.path)) if isinstance(row, SnapshotRow)}
        assert found == expected
