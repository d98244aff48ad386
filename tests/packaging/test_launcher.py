"""The launcher: unpacks once, finds what is damaged, becomes the program. In scope: files, versions, locks. Places: test_places.py."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.kit.launchers import small_binary, start, versions, with_footer
from tests.kit.requires import needs

pytestmark = needs("build")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_binary(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Further versions."""
    folder = tmp_path_factory.mktemp("others")
    return [small_binary(folder, f"edgekube-{number}", str(number).encode()) for number in range(3)]


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def run(program, data, *arguments):
    return start([program, "version", f"--data-dir={data}", *arguments])


def test_it_becomes_the_program(small, data):
    child = subprocess.Popen(["my name", "version", "--data-dir", str(data), "exit=7"], executable=small, stdout=subprocess.PIPE, text=True)
    said = child.communicate(timeout=30)[0]
    (name,) = versions(data / "data")
    assert said.split() == ["argv0=my", "name", "arguments=4", f"file={small}", f"exe={data}/data/{name}/edgekube"]
    assert child.returncode == 7


def test_what_is_unpacked_is_what_was_packed(small, data):
    assert run(small, data).returncode == 0
    (name,) = versions(data / "data")
    folder = data / "data" / name
    assert (folder / "lib/data").read_text() == "one"
    assert (folder / "lib/link").readlink().name == "data"
    assert (folder / "lib/deep/empty").stat().st_size == 0
    assert os.readlink(data / "data/current") == name
    assert (data / "data").stat().st_mode & 0o777 == 0o700


def test_the_second_start_writes_nothing(small, data):
    run(small, data)
    before = {path: path.lstat() for path in (data / "data").rglob("*")}
    assert run(small, data).returncode == 0
    assert {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in before.items()} == {
        path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in (data / "data").rglob("*")
    }


def test_a_damaged_file_is_refused_and_leaves_nothing(small, data, tmp_path):
    damaged = tmp_path / "damaged"
    content = bytearray(small.read_bytes())
    content[-300] ^= 1  # in the payload
    damaged.write_bytes(content)
    damaged.chmod(0o755)
    done = run(damaged, data)
    assert (done.returncode, done.stdout) == (1, "")
    assert "damaged: its content is not what was built. Copy it again" in done.stderr
    assert versions(data / "data") == []
    assert not (data / "data/.unpacking").exists()


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_file_cut_short_is_refused(small, data, tmp_path, cut):
    short = tmp_path / "short"
    short.write_bytes(small.read_bytes()[:-cut])
    short.chmod(0o755)
    done = run(short, data)
    assert done.returncode == 1
    assert "damaged: its end is missing" in done.stderr
    assert not data.exists()


def _truncate(folder):
    os.truncate(folder / "lib/data", 1)


def _remove(folder):
    (folder / "lib/deep/empty").unlink()


def _chmod(folder):
    (folder / "edgekube").chmod(0o644)


def _relink(folder):
    (folder / "lib/link").unlink()
    (folder / "lib/link").symlink_to("data2")


def _manifest(folder):
    (folder / "MANIFEST").write_text("")


def _writable(folder):
    folder.chmod(0o777)


@pytest.mark.parametrize("damage", [_truncate, _remove, _chmod, _relink, _manifest, _writable])
def test_an_unpacked_folder_that_is_not_whole_is_made_anew(small, data, damage):
    run(small, data)
    (name,) = versions(data / "data")
    damage(data / "data" / name)
    assert run(small, data).returncode == 0
    assert versions(data / "data") == [name]
    assert (data / "data" / name / "lib/data").read_text() == "one"
    assert (data / "data" / name).stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(shutil.which("strace") is None, reason="NOT TESTED HERE: needs strace")
@pytest.mark.parametrize(
    "call", ["mkdirat", "openat:when=9", "write:when=2", "symlinkat", "fsync:when=1", "fsync:when=5", "renameat:when=2", "flock:when=1"]
)
def test_killed_at_any_point_the_next_start_completes_it(small, data, call):
    name, _, when = call.partition(":")
    trace = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL" + (f":{when}" if when else "")]
    killed = start([*trace, small, "version", f"--data-dir={data}"])
    assert killed.returncode != 0, "nothing was killed: the point is not reached any more"
    assert killed.stdout == ""
    done = run(small, data)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in (data / "data").iterdir() if path.name.startswith(".")] == [".lock"]


def test_many_starts_at_once_unpack_one(small, data):
    children = [
        subprocess.Popen([small, "version", f"--data-dir={data}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    said = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0] * 8, said
    assert len({out for out, _ in said}) == 1
    assert len(versions(data / "data")) == 1


def test_the_version_before_is_kept_and_older_ones_go(small, others, data):
    run(small, data)
    (first,) = versions(data / "data")
    for program in others:
        assert run(program, data).returncode == 0
    assert len(versions(data / "data")) == 2
    assert first not in versions(data / "data")
    assert os.readlink(data / "data/previous") in versions(data / "data")


def test_going_back_needs_no_unpacking_and_turns_the_links(others, data):
    one, two, _ = others
    run(one, data)
    run(two, data)
    links = os.readlink(data / "data/current"), os.readlink(data / "data/previous")
    assert run(one, data).returncode == 0
    assert (os.readlink(data / "data/previous"), os.readlink(data / "data/current")) == links


def test_what_runs_is_not_pruned(small, others, data):
    waiting = subprocess.Popen([small, f"--data-dir={data}", "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    waiting.stdout.readline()
    (first,) = versions(data / "data")
    for program in others:
        run(program, data)
    assert first in versions(data / "data")
    waiting.communicate("", timeout=30)
    run(small, data), run(others[0], data), run(others[1], data)
    assert len(versions(data / "data")) == 2


def test_a_machine_with_an_older_c_library_is_told(small, data, tmp_path):
    loader = os.path.realpath(
        subprocess.run(["readelf", "-lW", sys.executable], capture_output=True, text=True, check=True)
        .stdout.partition("interpreter: ")[2]
        .partition("]")[0]
    )
    needy = with_footer(small, tmp_path / "needy", interpreter=loader.encode(), glibc=99)
    done = run(needy, data)
    assert done.returncode == 1
    assert "this machine's C library is glibc 2." in done.stderr
    assert "2.99 or newer is needed: Debian 12" in done.stderr
    assert run(with_footer(small, tmp_path / "content", interpreter=loader.encode(), glibc=2), data).returncode == 0


def test_a_machine_without_such_programs_is_told(small, data, tmp_path):
    foreign = with_footer(small, tmp_path / "foreign", interpreter=b"/lib/ld-linux-none.so.1")
    done = run(foreign, data)
    assert done.returncode == 1
    assert (
        "has no /lib/ld-linux-none.so.1: its C library is not glibc (Alpine), or its programs are of another architecture or 32 bit"
        in done.stderr
    )
