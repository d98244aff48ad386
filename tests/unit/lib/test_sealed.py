"""The encrypted log: what it keeps through power cuts, what it notices of tampering, what it tells nobody."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgekube.lib.sealed import MAGIC, Damaged, FileKey, SealedLog

HEADER = len(MAGIC) + 16


@pytest.fixture
def log(tmp_path):
    return opened(tmp_path)


def opened(folder):
    return SealedLog(folder / "state", FileKey(folder / "state.key"))


def batches(path):
    """(start, end) of each batch of the file."""
    data, at, found = path.read_bytes(), HEADER, []
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        found.append((at, end))
        at = end
    return found


def test_records_come_back(log, tmp_path):
    assert log.load() == {}
    log.append({"a": b"1", "b": b"2" * 5000})
    log.append({"a": b"3", "c": b"", "nobody": None})
    log.append({"b": None})
    again = opened(tmp_path)
    assert again.load() == {"a": b"3", "c": b""}
    again.append({"d": b"4"})
    assert opened(tmp_path).load() == {"a": b"3", "c": b"", "d": b"4"}


def test_only_root_reads_it_and_nothing_is_in_clear(log, tmp_path):
    log.load()
    log.append({"name-of-a-record": b"correct horse battery staple"})
    for name in ("state", "state.key"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"battery" not in data
    assert b"name-of" not in data
    os.chmod(tmp_path / "state", 0o644)
    os.chmod(tmp_path / "state.key", 0o644)
    opened(tmp_path).load()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_another_key_reads_nothing(log, tmp_path):
    log.load()
    log.append({"a": b"1"})
    log.append({"a": b"2"})
    (tmp_path / "state.key").write_bytes(b"x" * 32)
    with pytest.raises(Damaged):
        opened(tmp_path).load()
    (tmp_path / "state.key").write_bytes(b"short")
    with pytest.raises(Damaged):
        opened(tmp_path).load()


def test_a_key_that_was_cut_is_replaced(log, tmp_path):
    log.load()
    log.append({"a": b"1"})
    (tmp_path / "state.key").write_bytes(b"short")
    again = opened(tmp_path)
    with pytest.raises(Damaged):
        again.load()
    again.discard()
    again.append({"a": b"2"})
    assert opened(tmp_path).load() == {"a": b"2"}


def test_a_torn_end_is_left_out_and_overwritten(log, tmp_path):
    log.load()
    log.append({"a": b"1"})
    whole = len((tmp_path / "state").read_bytes())
    log.append({"a": b"2"})
    data = (tmp_path / "state").read_bytes()
    for cut in range(whole, len(data)):
        (tmp_path / "state").write_bytes(data[:cut])
        again = opened(tmp_path)
        assert again.load() == {"a": b"1"}, cut
    (tmp_path / "state").write_bytes(data[:whole] + b"\0" * 700)  # a file system that made room and lost the contents
    again = opened(tmp_path)
    assert again.load() == {"a": b"1"}
    assert again.torn
    again.append({"b": b"3"})
    assert opened(tmp_path).load() == {"a": b"1", "b": b"3"}


@pytest.mark.parametrize("act", ["swap", "drop", "repeat", "flip", "foreign", "nonsense", "short"])
def test_tampering_is_noticed(tmp_path, act):
    log = opened(tmp_path)
    log.load()
    for number in range(4):
        log.append({"secret": b"%d" % number})
    path = tmp_path / "state"
    data, (one, two, three, four) = path.read_bytes(), batches(path)
    parts = [data[start:end] for start, end in (one, two, three, four)]
    head = data[:HEADER]
    if act == "foreign":
        (tmp_path / "other").mkdir()
        other = SealedLog(tmp_path / "other" / "state", FileKey(tmp_path / "state.key"))
        other.load()
        for number in range(4):
            other.append({"secret": b"old %d" % number})
        start, end = batches(tmp_path / "other" / "state")[1]
        parts[1] = (tmp_path / "other" / "state").read_bytes()[start:end]
    elif act == "swap":
        parts[1], parts[2] = parts[2], parts[1]
    elif act == "drop":
        del parts[1]
    elif act == "repeat":
        parts.insert(2, parts[1])
    elif act == "flip":
        parts[1] = parts[1][:40] + bytes([parts[1][40] ^ 1]) + parts[1][41:]
    path.write_bytes({"nonsense": b"hello" * 20, "short": MAGIC}.get(act, head + b"".join(parts)))
    with pytest.raises(Damaged):
        opened(tmp_path).load()


def test_what_is_superseded_does_not_pile_up(log, tmp_path):
    log.load()
    live = {"a": os.urandom(20000)}
    for _ in range(60):
        live["a"] = os.urandom(20000)
        log.append(live)
        if log.mostly_history:
            log.rewrite(live)
    assert log.size < 20000 * 2 + (300 << 10)
    assert (tmp_path / "state").stat().st_size == log.size
    again = opened(tmp_path)
    assert again.load() == live
    for _ in range(60):  # restarts do not forget how much of it is history
        again.append({"a": os.urandom(20000)})
        again = opened(tmp_path)
        again.load()
        if again.mostly_history:
            again.rewrite(live)
    assert again.size < 20000 * 2 + (300 << 10)


def test_an_append_that_fails_adds_nothing(log, tmp_path, monkeypatch):
    log.load()
    log.append({"a": b"1"})
    monkeypatch.setattr("edgekube.lib.sealed.hit", failing("sealed.append.unsynced"))
    with pytest.raises(OSError, match="no space"):
        log.append({"a": b"2"})
    monkeypatch.undo()
    assert opened(tmp_path).load() == {"a": b"1"}
    log.append({"b": b"3"})
    assert opened(tmp_path).load() == {"a": b"1", "b": b"3"}


def failing(name):
    def hit(point):
        if point == name:
            raise OSError(28, "no space left")

    return hit


_WRITER = """
import sys
from pathlib import Path
from edgekube.lib.sealed import FileKey, SealedLog
folder = Path(sys.argv[1])
log = SealedLog(folder / "state", FileKey(folder / "state.key"))
log.load()
for number in range(40):
    log.append({"a": b"%d" % number, "b": b"%d" % number})
    print(number, flush=True)
    if number % 7 == 6:
        log.rewrite({"a": b"%d" % number, "b": b"%d" % number})
"""


@pytest.mark.parametrize("point", ["sealed.append.before", "sealed.append.unsynced", "sealed.rewrite.before", "sealed.rewrite.after"])
@pytest.mark.parametrize("passes", [1, 3])
def test_killed_at_each_step(tmp_path, point, passes):
    writer = tmp_path / "writer.py"
    writer.write_text(_WRITER)
    environment = os.environ | {"EDGEKUBE_FAILPOINTS": f"{point}=kill:{passes}", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, str(writer), str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    said = done.stdout.split()
    records = opened(tmp_path).load()
    assert len({*records.values()}) <= 1  # both of a batch, or neither
    found = int(records.get("a", b"-1"))
    acknowledged = int(said[-1]) if said else -1
    assert acknowledged <= found <= acknowledged + 1
