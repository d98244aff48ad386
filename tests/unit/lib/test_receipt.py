"""The receipt: durable before it returns, whole after any interruption, each thing once."""

import json

from edgekube.lib.receipt import Change, Receipt


def test_the_first_state_counts_however_often_something_is_changed(tmp_path):
    receipt = Receipt(tmp_path / "host")
    receipt.note("sysctl", "net/a", before="0", after="1")
    receipt.note("sysctl", "net/a", before="7", after="1")
    Receipt(tmp_path / "host").note("sysctl", "net/a", before="1", after="2")
    assert Receipt(tmp_path / "host").changes() == [Change("sysctl", "net/a", "0", "2")]
    assert len(receipt.path.read_text().splitlines()) == 2


def test_noting_what_is_known_writes_nothing(tmp_path):
    receipt = Receipt(tmp_path)
    receipt.note_all([Change("folder", "/a"), Change("folder", "/b")])
    before = receipt.path.stat().st_mtime_ns
    Receipt(tmp_path).note_all([Change("folder", "/b"), Change("folder", "/a")])
    assert receipt.path.stat().st_mtime_ns == before


def test_a_torn_line_is_none_and_spoils_no_other(tmp_path):
    receipt = Receipt(tmp_path)
    receipt.note("folder", "/a")
    whole = receipt.path.read_bytes()
    for cut in range(1, len(whole)):
        receipt.path.write_bytes(whole + whole[:cut].replace(b"/a", b"/x"))
        Receipt(tmp_path).note("folder", "/b")
        assert [change.name for change in Receipt(tmp_path).changes()][-1] == "/b", cut
        assert Receipt(tmp_path).changes()[0] == Change("folder", "/a")


def test_two_writers_do_not_lose_each_others_lines(tmp_path):
    one, other = Receipt(tmp_path), Receipt(tmp_path)
    one.note("folder", "/a")
    other.note("folder", "/b")
    one.note("folder", "/c")
    assert [change.name for change in Receipt(tmp_path).changes()] == ["/a", "/b", "/c"]


def test_a_file_that_was_there_is_kept_once(tmp_path):
    path = tmp_path / "config"
    path.write_text("theirs")
    receipt = Receipt(tmp_path / "host")
    receipt.note_file(path)
    path.write_text("ours")
    Receipt(tmp_path / "host").note_file(path, after="abc")
    (change,) = receipt.changes()
    assert change.before is not None
    assert receipt.kept(change.before).read_text() == "theirs"


def test_folders_to_be_made_are_noted_from_the_outside_in(tmp_path):
    receipt = Receipt(tmp_path / "host")
    receipt.note_file(tmp_path / "a" / "b" / "file")
    assert [(change.kind, change.name) for change in receipt.changes()] == [
        ("folder", f"{tmp_path}/a"), ("folder", f"{tmp_path}/a/b"), ("file", f"{tmp_path}/a/b/file"),
    ]  # fmt: skip
    assert json.loads(receipt.path.read_text().splitlines()[0])["before"] is None
