"""Volumes on a real file system: the atomic writer, safe sub paths, host paths, payloads, and removal that never goes through a mount."""

import base64
import os
import stat

import pytest

from edgekube.api.catalog import CONFIG_MAP, SECRET
from edgekube.kubelet.runtime.mounts import is_mounted, mount, unmount
from edgekube.kubelet.volumes import mounting, payloads
from edgekube.kubelet.volumes.hostpath import ensure_host_path
from edgekube.kubelet.volumes.manager import ensure_empty_dir
from edgekube.kubelet.volumes.payloads import Inputs
from edgekube.kubelet.volumes.protocol import VolumeNotReady
from edgekube.kubelet.volumes.subpath import SubPathRefused, bind_subpath, check_subpath, open_inside
from edgekube.kubelet.volumes.writer import BadPath, File, write_payload
from tests.kit.requires import needs
from tests.unit.kubelet.kit import pod, spec


def shown(folder):
    """What a reader sees: relative name -> bytes, through the links."""
    return {name: (folder / name).read_bytes() for name in os.listdir(folder) if not name.startswith("..") and (folder / name).is_file()}


def test_a_payload_is_written_updated_and_pruned(tmp_path):
    assert write_payload(tmp_path, {"a": File(b"1", 0o644), "b": File(b"2", 0o400)})
    assert shown(tmp_path) == {"a": b"1", "b": b"2"}
    assert os.readlink(tmp_path / "a") == "..data/a"
    first = os.readlink(tmp_path / "..data")
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o400
    assert not write_payload(tmp_path, {"a": File(b"1", 0o644), "b": File(b"2", 0o400)})
    assert os.readlink(tmp_path / "..data") == first
    assert write_payload(tmp_path, {"a": File(b"3", 0o644), "c": File(b"4", 0o644)})
    assert shown(tmp_path) == {"a": b"3", "c": b"4"}
    assert not (tmp_path / first).exists()
    assert not os.path.lexists(tmp_path / "b")


def test_nested_paths_and_modes(tmp_path):
    write_payload(tmp_path, {"x/y/z": File(b"deep", 0o600)}, group=2000 if os.geteuid() == 0 else None)
    assert (tmp_path / "x" / "y" / "z").read_bytes() == b"deep"
    if os.geteuid() == 0:
        found = (tmp_path / "x" / "y" / "z").stat()
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (2000, 0o640)


def test_a_half_made_version_is_replaced(tmp_path):
    write_payload(tmp_path, {"a": File(b"1", 0o644)})
    (tmp_path / "..data_tmp").symlink_to("nowhere")
    (tmp_path / "..2020_01_01_00_00_00.1").mkdir()
    write_payload(tmp_path, {"a": File(b"2", 0o644)})
    assert shown(tmp_path) == {"a": b"2"}
    assert not (tmp_path / "..2020_01_01_00_00_00.1").exists()


@pytest.mark.parametrize("name", ["", "/abs", "../up", "a/../b", "..hidden", "x" * 300])
def test_bad_names(tmp_path, name):
    with pytest.raises(BadPath):
        write_payload(tmp_path, {name: File(b"", 0o644)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/abs", "../x", "a/../../x"])
def test_sub_paths_that_are_refused_at_once(path):
    with pytest.raises(SubPathRefused):
        check_subpath(path)


def test_sub_paths_never_leave_the_volume(tmp_path):
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.mkdir()
    (volume / "good").mkdir()
    (volume / "inner").symlink_to("good")
    (volume / "absolute").symlink_to(volume / "good")
    (volume / "escape").symlink_to("../outside")
    (volume / "far").symlink_to("/etc")
    (volume / "loop").symlink_to("loop")
    for path in ("good", "inner", "absolute", "good/new/deeper"):
        descriptor = open_inside(str(volume), path, create=True)
        assert os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(volume))
        os.close(descriptor)
    for path in ("escape", "escape/x", "far", "far/passwd", "loop"):
        with pytest.raises(SubPathRefused):
            open_inside(str(volume), path, create=True)
    assert list(outside.iterdir()) == []
    with pytest.raises(SubPathRefused):
        open_inside(str(volume), "missing", create=False)


@needs("root")
def test_sub_paths_are_mounted_and_removed(tmp_path):
    volume, pods = tmp_path / "volume", tmp_path / "pods"
    (volume / "d").mkdir(parents=True)
    (volume / "d" / "f").write_text("x")
    bind_subpath(str(volume), "d", pods / "u" / "s" / "0", read_only_volume=False)
    bind_subpath(str(volume), "d/f", pods / "u" / "s" / "1", read_only_volume=True)
    assert (pods / "u" / "s" / "0" / "f").read_text() == (pods / "u" / "s" / "1").read_text() == "x"
    mounting.remove_tree(pods / "u")
    mounting.remove_tree(pods / "u")
    assert not (pods / "u").exists()
    assert (volume / "d" / "f").read_text() == "x"


@needs("root")
def test_tmpfs_is_adopted_and_removed(tmp_path):
    target = tmp_path / "pod" / "m"
    mounting.ensure_tmpfs(target, size=1 << 20)
    (target / "x").write_text("kept")
    mounting.ensure_tmpfs(target, size=1 << 20)
    assert (target / "x").read_text() == "kept"
    mounting.remove_tree(tmp_path / "pod")
    assert not is_mounted(target)
    assert not (tmp_path / "pod").exists()


@needs("root")
def test_removal_follows_no_link_and_no_mount(tmp_path):
    precious, folder = tmp_path / "precious", tmp_path / "pod"
    precious.mkdir()
    (precious / "x").write_text("x")
    (folder / "mnt").mkdir(parents=True)
    (folder / "link").symlink_to(precious)
    mount(str(precious), str(folder / "mnt"), flags=4096)
    try:
        mounting.remove_tree(folder)
    finally:
        unmount(str(folder / "mnt"))
    assert (precious / "x").read_text() == "x"


@pytest.mark.parametrize(("kind", "make", "fine"), [
    ("", None, True), ("DirectoryOrCreate", None, True), ("FileOrCreate", None, True), ("Directory", None, False), ("File", None, False),
    ("Directory", "dir", True), ("Directory", "file", False), ("File", "file", True), ("File", "dir", False), ("Socket", "file", False),
    ("CharDevice", "file", False), ("BlockDevice", "dir", False), ("DirectoryOrCreate", "file", False), ("FileOrCreate", "dir", False),
])  # fmt: skip
def test_host_path_types(tmp_path, kind, make, fine):
    path = tmp_path / "p"
    if make == "dir":
        path.mkdir()
    elif make == "file":
        path.touch()
    if fine:
        assert ensure_host_path({"path": str(path), "type": kind}) == path
        assert path.exists()
    else:
        with pytest.raises(VolumeNotReady, match=f"hostPath type check failed: {path} is not a"):
            ensure_host_path({"path": str(path), "type": kind})


def test_host_path_devices():
    assert str(ensure_host_path({"path": "/dev/null", "type": "CharDevice"})) == "/dev/null"


OBJECTS = {
    (CONFIG_MAP, "cm"): {"data": {"a": "1", "b": "2"}, "binaryData": {"c": base64.b64encode(b"\xff").decode()}},
    (SECRET, "s"): {"data": {"k": base64.b64encode(b"v").decode()}},
}
INPUTS = Inputs(
    find=lambda kind, key: OBJECTS.get((kind, key.name)), tokens={("", 3600): "tok", ("vault", 600): "vtok"}, allocatable={"cpu": "4"}
)


def files(volume, found=None):
    return payloads.volume_files(found or pod(), {"name": "v", **volume}, INPUTS)


def plain(made):
    return {name: (file.data, file.mode) for name, file in made.items()}


@pytest.mark.parametrize(("volume", "expected"), [
    ({"configMap": {"name": "cm"}}, {"a": (b"1", 0o644), "b": (b"2", 0o644), "c": (b"\xff", 0o644)}),
    ({"configMap": {"name": "cm", "defaultMode": 0o400, "items": [{"key": "a", "path": "x/a"}]}}, {"x/a": (b"1", 0o400)}),
    ({"configMap": {"name": "cm", "items": [{"key": "a", "path": "a", "mode": 0o600}]}}, {"a": (b"1", 0o600)}),
    ({"configMap": {"name": "no", "optional": True}}, {}),
    ({"configMap": {"name": "cm", "optional": True, "items": [{"key": "z", "path": "z"}]}}, {}),
    ({"secret": {"secretName": "s"}}, {"k": (b"v", 0o644)}),
    ({"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}},
                                {"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
     {"n": (b"web", 0o644), "l": (b'a="1"\nb="x\\"y"', 0o644)}),
    ({"downwardAPI": {"items": [{"path": "c", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}}]}}, {"c": (b"4", 0o644)}),
    ({"projected": {"defaultMode": 0o444, "sources": [{"configMap": {"name": "cm", "items": [{"key": "a", "path": "a"}]}},
                                                      {"secret": {"name": "s"}}, {"serviceAccountToken": {"path": "token"}}]}},
     {"a": (b"1", 0o444), "k": (b"v", 0o444), "token": (b"tok", 0o444)}),
    ({"emptyDir": {}}, None),
])  # fmt: skip
def test_payloads(volume, expected):
    made = files(volume, pod(labels={"b": 'x"y', "a": "1"}))
    assert (made if made is None else plain(made)) == expected


@pytest.mark.parametrize(("volume", "message"), [
    ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
    ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
    ({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}, "configmap references non-existent config key: z"),
    ({"secret": {"secretName": "s", "items": [{"key": "z", "path": "z"}]}}, "secret references non-existent secret key: z"),
])  # fmt: skip
def test_payloads_that_are_not_ready(volume, message):
    with pytest.raises(VolumeNotReady, match=message):
        files(volume)


def test_token_files_can_be_read_by_who_runs():
    volume = {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault", "expirationSeconds": 600}}]}}
    own = spec(securityContext={"runAsUser": 7})
    made = files(volume, pod(own))["t"]
    assert (made.data, made.mode, made.owner) == (b"vtok", 0o600, 7)
    made = files(volume, pod(own, securityContext={"fsGroup": 5}))["t"]
    assert (made.mode, made.owner) == (0o600, -1)
    assert payloads.wanted_tokens({"name": "v", **volume}) == {("vault", 600)}


@pytest.mark.parametrize(("group", "mode"), [(None, 0o777), (os.getgid(), 0o2777)])
def test_an_empty_dir_appears_with_its_rights_and_then_belongs_to_the_pod(tmp_path, group, mode):
    folder = tmp_path / "volumes" / "data"
    (tmp_path / "volumes" / ".data").mkdir(parents=True)  # what a kill -9 has left
    ensure_empty_dir(folder, {}, group)
    assert stat.S_IMODE(folder.stat().st_mode) == mode
    folder.chmod(0o700)
    ensure_empty_dir(folder, {}, group)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@needs("root")
def test_an_empty_dir_in_memory_keeps_the_mode_the_pod_gave_it(tmp_path):
    folder = tmp_path / "data"
    try:
        ensure_empty_dir(folder, {"medium": "Memory"}, None)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o777
        folder.chmod(0o700)
        ensure_empty_dir(folder, {"medium": "Memory"}, None)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        mounting.remove_tree(folder)
