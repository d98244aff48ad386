"""How each kind of change is looked at and undone: exactly to what was before, and never what is somebody else's by now."""

import os

import pytest

from edgekube.app import hostkinds
from edgekube.app.hostkinds import State, configured, digest, look, undo
from edgekube.app.removalfiles import replay
from edgekube.lib.receipt import Change, Receipt
from tests.kit.netns import call_inside, namespace
from tests.kit.requires import needs


@pytest.fixture
def receipt(tmp_path):
    return Receipt(tmp_path / "host")


def undone(receipt):
    said, left = [], []
    replay(list(receipt.changes()), receipt, said.append, left.append)
    return said, left


def test_files_go_and_come_back(tmp_path, receipt):
    new, old = tmp_path / "etc" / "x" / "new", tmp_path / "old"
    old.write_text("theirs")
    old.chmod(0o640)
    receipt.note_file(new)
    receipt.note_file(old)
    new.parent.mkdir(parents=True)
    new.write_text("ours")
    old.write_text("ours")
    undone(receipt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "old"]
    assert (old.read_text(), old.stat().st_mode & 0o777) == ("theirs", 0o640)
    assert undone(receipt) == ([], [])


def test_what_somebody_changed_since_stays_and_is_told(tmp_path, receipt):
    path = tmp_path / "unit"
    path.write_text("ours")
    receipt.note("file", str(path), after=digest(path))
    assert look(receipt.changes()[0]) is State.OURS
    path.write_text("edited")
    assert look(receipt.changes()[0]) is State.FOREIGN
    assert undone(receipt)[1] == [f"{path}: somebody has changed it since"]
    assert path.read_text() == "edited"


def test_a_folder_goes_only_when_it_is_empty(tmp_path, receipt):
    for name in ("empty", "used"):
        receipt.note_folders(tmp_path / name)
        (tmp_path / name).mkdir()
    (tmp_path / "used" / "theirs").write_text("")
    undone(receipt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "used"]


def test_trees_go_whole_be_they_folders_files_or_links(tmp_path, receipt):
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(target)
    for name in ("folder", "file", "link"):
        receipt.note("tree", str(tmp_path / name))
    undone(receipt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "target"]


def test_a_shared_file_stays_while_somebody_has_it_open(tmp_path, receipt):
    path = tmp_path / "lock"
    path.write_text("")
    receipt.note("shared", str(path))
    with path.open():
        assert undone(receipt)[0] == []
    assert path.exists()
    assert undone(receipt)[0] == [str(path)]
    assert not path.exists()


@needs("root", "netns")
def test_a_sysctl_gets_its_old_value_back_only_while_it_is_ours(receipt):
    name = "net/ipv4/ip_forward"
    receipt.note("sysctl", name, before="0", after="1")
    change = receipt.changes()[0]

    def value(text=None):
        path = f"/proc/sys/{name}"
        if text is not None:
            with open(path, "w") as file:
                file.write(text)
        with open(path) as file:
            return file.read().strip()

    with namespace() as ns:
        call_inside(ns, lambda: value("1"))
        assert call_inside(ns, lambda: undo(change, receipt)) == "net.ipv4.ip_forward is 0 again"
        assert call_inside(ns, value) == "0"
        assert call_inside(ns, lambda: undo(change, receipt)) == ""
    other = Change("sysctl", "kernel/pid_max", "1", "2")
    assert (look(other), undo(other, receipt)) == (State.FOREIGN, "")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("net.ipv4.ip_forward = 1\n", True),
        ("net/ipv4/ip_forward=1\n", True),
        ("-net.ipv4.ip_forward=1", True),
        ("#net.ipv4.ip_forward=1\n", False),
        ("net.ipv4.ip_forward = 0\n", False),
        ("", False),
    ],
)
def test_what_the_host_is_configured_to_is_not_ours(tmp_path, lines, expected):
    (tmp_path / "99.conf").write_text(lines)
    assert configured("net/ipv4/ip_forward", "1", (f"{tmp_path}/*.conf", f"{tmp_path}/none")) is expected


def test_controllers_are_taken_back_one_by_one(tmp_path, receipt):
    """A plain file stands for the kernel's: it shows the last thing that was written."""
    path = tmp_path / "cgroup.subtree_control"
    path.write_text("cpu memory io")
    change = Change("controllers", str(path), "cpu memory", "cpu memory io rdma")
    assert look(change) is State.OURS
    assert undo(change, receipt) == f"io in {path}"
    assert path.read_text() == "-io"


def test_a_kernel_module_stays_while_it_has_users(receipt, monkeypatch):
    monkeypatch.setattr(hostkinds, "loaded_modules", lambda: {"used": 2, "idle": 0})
    states = {name: look(Change("module", name)) for name in ("used", "idle", "gone")}
    assert states == {"used": State.FOREIGN, "idle": State.OURS, "gone": State.UNDONE}
    assert undo(Change("module", "used"), receipt) == ""


def test_a_kind_of_a_newer_version_is_left_alone(receipt):
    assert undo(Change("quantum", "x"), receipt) == ""
    assert set(hostkinds.KINDS) >= {"file", "folder", "sysctl", "unit"}


def test_links_are_not_followed(tmp_path, receipt):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("theirs")
    receipt.note_file(link)
    os.symlink(target, link)
    undone(receipt)
    assert not os.path.lexists(link)
    assert target.read_text() == "theirs"
