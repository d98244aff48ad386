"""Deleting folders: what is kept, what is mounted, what links lead to."""

import pytest

from edgekube.kubelet.volumes.mounting import bind, ensure_tmpfs, unmount
from edgekube.lib.files import MountInside, mounts_below, remove_tree
from tests.kit.requires import needs


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for name in ("db", "volumes/disk"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text("x")
    yield folder
    for point in mounts_below(tmp_path):
        unmount(point)


def test_all_goes_once_and_again(data):
    (data / "link").symlink_to(data.parent)
    assert remove_tree(data)
    assert remove_tree(data)
    assert data.parent.exists()


def test_what_is_kept_keeps_the_folder(data):
    assert not remove_tree(data, keep=frozenset(("volumes",)))
    assert [path.name for path in data.iterdir()] == ["volumes"]


@needs("root")
@pytest.mark.parametrize("disk", ["tmpfs", "bind"])
def test_a_disk_mounted_at_the_folder_is_emptied_and_stays_mounted(data, disk):
    other = data.parent / "other"
    if disk == "tmpfs":
        ensure_tmpfs(data)
    else:
        other.mkdir()
        bind(str(other), data)
    (data / "state").write_text("x")
    assert not remove_tree(data)
    assert mounts_below(data) == [str(data)]
    assert list(data.iterdir()) == []
    assert not remove_tree(data)


@needs("root")
def test_nothing_is_deleted_beside_a_mount(data):
    ensure_tmpfs(data / "db")
    with pytest.raises(MountInside, match="db is mounted: nothing below .* was deleted; unmount it"):
        remove_tree(data)
    assert (data / "volumes/disk/file").exists()


@needs("root")
def test_a_mount_in_what_is_kept_is_no_obstacle(data):
    ensure_tmpfs(data / "volumes/disk")
    (data / "volumes/disk/mine").write_text("x")
    assert not remove_tree(data, keep=frozenset(("volumes",)))
    assert (data / "volumes/disk/mine").exists()
