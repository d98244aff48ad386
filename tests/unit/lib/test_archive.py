"""A file that is whole or refused, one line each."""

import os

import pytest

from edgekube.lib import archive
from edgekube.lib.archive import Damaged, WrongPassphrase

PARTS = [os.urandom(100_000), b"", b"x" * 3_000_000, os.urandom(700_000)]


@pytest.fixture(params=[None, b"correct horse"], ids=["plain", "sealed"])
def passphrase(request):
    return request.param


@pytest.fixture
def file(tmp_path, passphrase):
    path = tmp_path / "a.snapshot"
    archive.write(path, {"name": "a"}, PARTS, archive.make_seal(passphrase) if passphrase else None)
    return path


def test_what_goes_in_comes_out(file, passphrase):
    header = archive.verify(file)
    assert header["name"] == "a"
    assert ("sealed" in header) == (passphrase is not None)
    assert b"".join(archive.read(file, passphrase)) == b"".join(PARTS)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["a.snapshot"]


@pytest.mark.parametrize("size", [0, 1, archive.BLOCK - 1, archive.BLOCK, archive.BLOCK + 1, 2 * archive.BLOCK])
def test_sizes_around_a_block(tmp_path, passphrase, size):
    data = os.urandom(size)
    archive.write(tmp_path / "a", {}, [data], archive.make_seal(passphrase) if passphrase else None)
    archive.verify(tmp_path / "a")
    assert b"".join(archive.read(tmp_path / "a", passphrase)) == data


def test_cut_or_changed_anywhere(file):
    data = file.read_bytes()
    for cut in (0, 3, 11, 40, len(data) // 2, len(data) - 33, len(data) - 1):
        file.write_bytes(data[:cut])
        with pytest.raises(Damaged):
            archive.verify(file)
    for at in (0, 9, 20, 5000, len(data) // 2, len(data) - 40, len(data) - 1):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(Damaged):
            archive.verify(file)
    file.write_bytes(data + b"more")
    with pytest.raises(Damaged):
        archive.verify(file)


def test_text_mode_transfers_and_other_files(tmp_path):
    (tmp_path / "x").write_bytes(b"something else entirely")
    with pytest.raises(Damaged, match="it is no snapshot of edgekube"):
        archive.read_header(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(Damaged, match="it is empty"):
        archive.verify(tmp_path / "x")


def test_passphrases(tmp_path):
    archive.write(tmp_path / "sealed", {}, PARTS, archive.make_seal(b"right"))
    archive.write(tmp_path / "plain", {}, PARTS)
    for name, given, why in (
        ("sealed", b"wrong", "the passphrase is not the one it was made with"),
        ("sealed", None, "it is encrypted: give its passphrase with --passphrase-file"),
        ("plain", b"right", "it is not encrypted"),
    ):
        with pytest.raises(WrongPassphrase, match=why):
            list(archive.read(tmp_path / name, given))


def test_a_forged_block_is_told_even_if_the_checksum_fits(tmp_path):
    """Who has the file but not the passphrase: swaps, drops, and a header of another file."""
    import hashlib
    import struct

    seal = archive.make_seal(b"right")
    archive.write(tmp_path / "a", {"n": 1}, [os.urandom(3 * archive.BLOCK)], seal)
    data = (tmp_path / "a").read_bytes()
    (length,) = struct.unpack_from("!I", data, 8)
    at, frames = 12 + length, []
    while (size := struct.unpack_from("!I", data, at)[0]) != 0:
        frames.append(data[at : at + 4 + size])
        at += 4 + size
    head = data[: 12 + length]
    assert len(frames) > 2
    for forged in (head + b"".join(frames[:-1]), head + frames[0] + b"".join(frames[2:]), head.replace(b'"n": 1', b'"n": 2') + b"".join(frames)):
        body = forged + bytes(4)
        (tmp_path / "b").write_bytes(body + hashlib.sha256(body).digest())
        archive.verify(tmp_path / "b")
        with pytest.raises((Damaged, WrongPassphrase)):
            list(archive.read(tmp_path / "b", b"right"))


def test_nothing_is_left_of_one_that_failed(tmp_path):
    def parts():
        yield b"x"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        archive.write(tmp_path / "a", {}, parts())
    assert list(tmp_path.iterdir()) == []
    archive.write(tmp_path / "a", {}, [b"1"])
    with pytest.raises(FileExistsError):
        archive.write(tmp_path / "a", {}, [b"2"])
    assert b"".join(archive.read(tmp_path / "a")) == b"1"


def test_a_header_may_not_ask_for_all_memory(tmp_path):
    seal = archive.make_seal(b"x")
    archive.write(tmp_path / "a", {}, [b"1"], archive.Seal(seal.key, {**seal.how, "n": 1 << 30}))
    with pytest.raises(Damaged, match="its encryption can not be read"):
        list(archive.read(tmp_path / "a", b"x"))
