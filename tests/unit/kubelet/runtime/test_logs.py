"""Reading and rotating logs: tables over what a client sees, and following a file while it is written and rotated."""

import asyncio
import gzip
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgekube.kubelet.runtime import rotation
from edgekube.kubelet.runtime.logs import Formatter, LogOptions, read_log, tail_offset
from edgekube.lib.clock import FakeClock
from edgekube.lib.inotify import FolderWatch
from tests.kit.fake_runtime import FakeRuntime
from tests.kit.runtimes import container, make_pod

A = b"2026-11-20T10:00:00.123456789+00:00 stdout F one\n"
B = b"2026-11-20T10:00:01.123456789+00:00 stderr F two\n"
P = b"2026-11-20T10:00:02.000000000+00:00 stdout P par\n"
F = b"2026-11-20T10:00:02.000000001+00:00 stdout F tial\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (LogOptions(), b"one\ntwo\npartial\n"),
        (LogOptions(stream="stderr"), b"two\n"),
        (LogOptions(stream="stdout"), b"one\npartial\n"),
        (LogOptions(since=datetime(2026, 11, 20, 10, 0, 1, tzinfo=UTC)), b"two\npartial\n"),
        (
            LogOptions(timestamps=True),
            b"2026-11-20T10:00:00.123456789Z one\n2026-11-20T10:00:01.123456789Z two\n2026-11-20T10:00:02.000000000Z partial\n",
        ),
        (LogOptions(limit=6), b"one\ntw"),
        (LogOptions(limit=0), b""),
    ],
)
@pytest.mark.parametrize("step", [1, 10_000])
def test_formatter(options: LogOptions, expected: bytes, step: int) -> None:
    formatter, data = Formatter(options), A + B + b"torn line\n" + P + F
    assert b"".join(formatter.feed(data[at : at + step]) for at in range(0, len(data), step)) == expected


@pytest.mark.parametrize("count", [0, 1, 2, 5, 2999, 3000, 9999])
def test_tail(count: int) -> None:
    lines = [b"%d %s\n" % (at, b"x" * (at % 90)) for at in range(3000)]
    file = io.BytesIO(b"".join(lines))
    file.seek(tail_offset(file, count))
    assert file.read() == b"".join(lines[len(lines) - min(count, 3000) :])


def test_tail_with_an_unfinished_line() -> None:
    file = io.BytesIO(b"a\nb\nc")
    file.seek(tail_offset(file, 2))
    assert file.read() == b"b\nc"


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _rotate(path: Path, data: bytes) -> None:
    path.rename(path.with_name("0.log.old"))
    path.write_bytes(data)


async def test_follow_across_a_rotation(tmp_path: Path) -> None:
    path, over = tmp_path / "0.log", asyncio.Event()
    path.write_bytes(A)

    async def is_over() -> bool:
        return over.is_set()

    pieces = read_log(path, LogOptions(follow=True), is_over=is_over)
    async with asyncio.timeout(5):
        assert await anext(pieces) == b"one\n"
        _append(path, B)
        assert await anext(pieces) == b"two\n"
        _rotate(path, P + F)
        assert await anext(pieces) == b"partial\n"
        over.set()
        assert [piece async for piece in pieces] == []


async def test_what_was_written_before_the_end_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(A + B)

    async def is_over() -> bool:
        return True

    assert b"".join([piece async for piece in read_log(path, LogOptions(follow=True, tail=1), is_over=is_over)]) == b"two\n"


async def test_no_file(tmp_path: Path) -> None:
    async def is_over() -> bool:
        return True

    with pytest.raises(FileNotFoundError):
        await anext(read_log(tmp_path / "no" / "0.log", LogOptions(follow=True), is_over=is_over))


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_descriptor_is_left_by_a_watch(tmp_path: Path) -> None:
    before = _descriptors()
    with FolderWatch(tmp_path):
        pass
    assert _descriptors() == before


async def test_rotation_keeps_the_newest(tmp_path: Path) -> None:
    runtime, clock = FakeRuntime(), FakeClock()
    box = await make_pod(runtime, "web")
    image = await runtime.image("busybox:test")
    assert image is not None
    found = await runtime.create(container(box, image.id, ["sleep", "inf"], log_dir=tmp_path), box)
    await runtime.start(found)
    info = await runtime.inspect(found)
    assert info is not None
    path, keeper = info.log_path, rotation.LogRotation(runtime=runtime, clock=clock, max_size=10, max_files=3)
    for number in range(5):
        path.write_bytes(b"line %d\n" % number * 4)
        await keeper.rotate_all()
        clock.advance(10)
    names = sorted(entry.name for entry in path.parent.iterdir())
    assert names == ["0.log", "0.log.20260101-000030.gz", "0.log.20260101-000040"]
    assert gzip.decompress((path.parent / names[1]).read_bytes()) == b"line 3\n" * 4
    assert path.read_bytes() == b""
    await keeper.rotate_all()
    assert sorted(entry.name for entry in path.parent.iterdir()) == names


async def test_rotation_is_undone_when_the_log_is_not_reopened(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    box = await make_pod(runtime, "web")
    image = await runtime.image("busybox:test")
    assert image is not None
    found = await runtime.create(container(box, image.id, ["sleep", "inf"], log_dir=tmp_path), box)
    await runtime.start(found)
    info = await runtime.inspect(found)
    assert info is not None
    info.log_path.write_bytes(b"x" * 100)
    from edgekube.kubelet.runtime.protocol import RuntimeFailure

    runtime.refuse["reopen_log"] = RuntimeFailure("ReopenLogError", "no")
    await rotation.LogRotation(runtime=runtime, clock=FakeClock(), max_size=10, max_files=3).rotate_all()
    assert info.log_path.read_bytes() == b"x" * 100
