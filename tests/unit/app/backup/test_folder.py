"""Names, order, and which snapshots go."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from edgekube.app.backup import folder
from edgekube.lib import archive
from edgekube.lib.clock import rfc3339

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def make(home, name, hours):
    archive.write(folder.path_for(home, name), {"created": rfc3339(NOW - timedelta(hours=hours))}, [b"x"])


def names(found):
    return [each.name for each in found]


def test_the_oldest_go(tmp_path):
    for name, hours in (("auto-a", 30), ("mine", 50), ("auto-b", 20), ("auto-c", 10)):
        make(tmp_path, name, hours)
    (tmp_path / "auto-broken.snapshot").write_bytes(b"nothing")
    assert names(folder.found(tmp_path)) == ["auto-broken", "mine", "auto-a", "auto-b", "auto-c"]
    assert names(folder.prune(tmp_path, 2, only="auto-")) == ["auto-broken", "auto-a"]
    assert names(folder.prune(tmp_path, 2, only="auto-")) == []
    assert names(folder.prune(tmp_path, 1)) == ["mine", "auto-b"]


def test_one_that_can_not_be_read_is_kept_while_there_are_too_few(tmp_path):
    make(tmp_path, "a", 1)
    (tmp_path / "broken.snapshot").write_bytes(b"nothing")
    assert names(folder.prune(tmp_path, 2)) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 200, "a\n", "a.tmp"])
def test_bad_names(name):
    assert folder.bad_name(name)


def test_free_names(tmp_path):
    assert folder.free_name(tmp_path, "auto-", NOW) == "auto-20260501-000000"
    make(tmp_path, "auto-20260501-000000", 0)
    assert folder.free_name(tmp_path, "auto-", NOW) == "auto-20260501-000000-2"


def test_what_a_killed_save_leaves_goes_but_not_what_a_living_one_writes(tmp_path):
    dead, living = tmp_path / ".a.snapshot.99999999.tmp", tmp_path / f".b.snapshot.{os.getppid()}.tmp"
    for path in (dead, living):
        path.write_bytes(b"")
    folder.prune(tmp_path, 5)
    assert not dead.exists()
    assert living.exists()
