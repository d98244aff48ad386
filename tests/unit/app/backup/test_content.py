"""The entries of a snapshot: what belongs to it and what may not be in one."""

import pytest

from edgekube.app.backup import content
from edgekube.app.backup.content import File, SnapshotRow
from edgekube.lib.archive import Damaged
from edgekube.store.protocol import Record


def test_round_trip_in_order_of_revisions():
    files = [File("pki/ca.pem", 0o600, b"secret"), File("manifests/static/a.yaml", 0o644, b"")]
    records = [Record("pods/b", b"2", 9, 4, None), Record("pods/a", b"\0" * 100_000, 5, 5, None)]
    found = list(content.unpack(content.pack(files, records)))
    assert found == [*files, SnapshotRow("pods/a", 5, 5, b"\0" * 100_000), SnapshotRow("pods/b", 9, 4, b"2")]


@pytest.mark.parametrize("name", ["/etc/passwd", "pki/../../etc/passwd", "../x", "db/state.db", "", "agent/key"])
def test_names_that_lead_elsewhere(name):
    with pytest.raises(Damaged, match="a file that belongs to no snapshot"):
        list(content.unpack(content.pack([File(name, 0o600, b"x")], [])))


def test_not_complete():
    whole = b"".join(content.pack([File("pki/ca.pem", 0o600, b"x" * 50)], [Record("a/b", b"v", 1, 1, None)]))
    for cut in range(0, len(whole), 7):
        with pytest.raises(Damaged):
            list(content.unpack([whole[:cut]]))


def test_which_files(tmp_path):
    for name in ("pki/ca.pem", "pki/.x.1.tmp", "manifests/static/a.yaml", "db/state.db", "agent/key", "time-floor", "volumes/v"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "pki" / "link").symlink_to("/etc/passwd")
    files = content.gather_files(tmp_path)
    assert [file.name for file in files] == ["time-floor", "pki/ca.pem", "manifests/static/a.yaml"]
    before = content.digest(files)
    (tmp_path / "time-floor").write_text("later")
    assert content.digest(content.gather_files(tmp_path)) == before
    (tmp_path / "pki" / "ca.pem").write_text("other")
    assert content.digest(content.gather_files(tmp_path)) != before
