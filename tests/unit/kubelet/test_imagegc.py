"""Which images go, when, and what stays whatever happens. In: plans and the collector on the fake runtime. Out: podman."""

from dataclasses import replace

import pytest

from edgekube.kubelet.imagebook import Book, ImageBook, Taken
from edgekube.kubelet.imagegc import ImageCollector, Thresholds, Usage, plan_collection, wanted_bytes
from edgekube.kubelet.machine import Disk
from edgekube.kubelet.runtime.protocol import RuntimeFailure
from edgekube.lib.clock import FakeClock
from tests.kit.fake_runtime import BUSYBOX, FakeRuntime

GB = 1 << 30


def image(name, size=100):
    return replace(BUSYBOX, id=f"sha256:{name:0<64}", tags=(f"docker.io/library/{name}:v1",), digests=(), size=size)


A, B, C, D = image("a"), image("b"), image("c"), image("d")


def disk(percent):
    return Disk(100 * GB, (100 - percent) * GB, 0, 0)


@pytest.mark.parametrize(("percent", "gigabytes"), [(10, 0), (84, 0), (85, 5), (95, 15), (100, 20)])
def test_from_the_high_threshold_down_to_the_low_one(percent, gigabytes):
    assert wanted_bytes(disk(percent), Thresholds()) == gigabytes * GB


def test_never_at_one_hundred_and_on_no_disk_at_all():
    assert wanted_bytes(disk(100), Thresholds(high=100)) == 0
    assert wanted_bytes(Disk(0, 0, 0, 0), Thresholds()) == 0


def order(needed=(), book=None, now=1000.0, seen=None, used=None):
    usage = Usage(seen=seen or dict.fromkeys((A.id, B.id, C.id, D.id), 0.0), used=used or {}, begun=True)
    found = plan_collection((A, B, C, D), needed=set(needed), book=book or Book(), usage=usage, now=now, minimum_age=120)
    return [one.tags[0].rpartition("/")[2][0] for one in found]


def test_those_unused_for_longest_go_first():
    assert order(used={A.id: 30.0, B.id: 10.0, C.id: 20.0, D.id: 40.0}) == ["b", "c", "a", "d"]
    assert order(seen={A.id: 4.0, B.id: 3.0, C.id: 2.0, D.id: 1.0}) == ["d", "c", "b", "a"]


def test_what_stays():
    assert order(needed=(A.id, "docker.io/library/b:v1")) == ["c", "d"]
    assert order(book=Book(pinned=frozenset((A.id, "docker.io/library/c:v1")))) == ["b", "d"]
    assert order(book=Book(files={"x.tar": Taken([1], "s", [D.id], [])})) == ["a", "b", "c"]
    assert order(seen={A.id: 990.0, B.id: 0.0, C.id: 0.0, D.id: 881.0}) == ["b", "c"]


def test_what_was_there_at_the_start_is_old_and_what_comes_later_is_not():
    usage = Usage()
    usage.note([A], (), 5.0)
    usage.note([A, B], {B.id}, 6.0)
    assert (usage.seen[A.id], usage.seen[B.id]) == (float("-inf"), 6.0)
    assert usage.used[B.id] == 6.0
    usage.note([B], (), 7.0)
    assert (list(usage.seen), usage.used[B.id]) == ([B.id], 6.0)


class Bench:
    def __init__(self, tmp_path, needed=(), thresholds=None):
        self.runtime, self.clock, self.told = FakeRuntime(), FakeClock(), []
        self.runtime.images_known = {one.tags[0]: replace(one, size=2 * GB) for one in (A, B, C, D)}
        self.book = ImageBook(tmp_path)
        self.collector = ImageCollector(
            runtime=self.runtime,
            book=self.book,
            clock=self.clock,
            thresholds=thresholds or Thresholds(),
            needed=lambda: set(needed),
            tell=lambda reason, message: self.told.append((reason, message)),
        )

    def left(self):
        return sorted(name.rpartition("/")[2][0] for name in self.runtime.images_known)


async def test_it_stops_when_enough_is_free(tmp_path):
    bench = Bench(tmp_path)
    assert await bench.collector.collect(disk(83), pressure=False) == 2 * GB  # nothing is wanted; asked anyway one goes
    assert bench.collector.due(disk(99), pressure=False) is False  # not twice within 5 minutes


async def test_never_is_never_whatever_the_disk_says(tmp_path):
    """The images of somebody else's podman are not ours to remove."""
    bench = Bench(tmp_path, thresholds=Thresholds(high=100))
    assert not bench.collector.due(disk(99), pressure=False)
    assert not bench.collector.due(disk(99), pressure=True)


async def test_pinned_and_needed_ones_survive_a_full_disk_and_people_are_told(tmp_path):
    bench = Bench(tmp_path, needed=("a:v1",))
    bench.book.change(lambda book: book.pin("docker.io/library/b:v1"))
    assert bench.collector.due(disk(95), pressure=False)
    assert await bench.collector.collect(disk(95), pressure=False) == 4 * GB
    assert bench.left() == ["a", "b"]
    message = f"Attempted to free {15 * GB} bytes, but only found {4 * GB} bytes eligible to free."
    assert bench.told == [("FreeDiskSpaceFailed", f"Failed to garbage collect required amount of images. {message}")]
    await bench.collector.collect(disk(95), pressure=False)
    assert [reason for reason, _ in bench.told[1:]] == ["FreeDiskSpaceFailed", "ImageGCFailed"]


async def test_under_pressure_everything_that_may_go_goes_and_nobody_is_told(tmp_path):
    bench = Bench(tmp_path, needed=("a:v1",))
    assert await bench.collector.collect(disk(95), pressure=True) == 6 * GB
    assert (bench.left(), bench.told) == (["a"], [])


async def test_an_image_that_can_not_be_removed_does_not_keep_the_others(tmp_path):
    bench = Bench(tmp_path)
    bench.runtime.refuse["remove_image"] = RuntimeFailure("ImageInUse", "in use")
    assert await bench.collector.collect(disk(95), pressure=False) == 0
    assert await bench.collector.collect(disk(95), pressure=False) == 0
    assert [reason for reason, _ in bench.told] == ["ImageGCFailed"]


async def test_with_a_damaged_record_nothing_goes(tmp_path):
    bench = Bench(tmp_path)
    (tmp_path / "images.json").write_text("{")
    for _ in range(2):
        assert await bench.collector.collect(disk(95), pressure=True) == 0
    assert bench.left() == ["a", "b", "c", "d"]
    assert bench.told[0][0] == "ImageGCFailed"


def test_the_record_survives_and_a_damaged_one_is_empty(tmp_path):
    book = ImageBook(tmp_path)
    book.change(lambda found: found.pin("x").with_file("a.tar", Taken([1, 2, 3], "sha", ["sha256:1"], ["n"])))
    assert book.read() == Book(frozenset(("x",)), {"a.tar": Taken([1, 2, 3], "sha", ["sha256:1"], ["n"])})
    (tmp_path / "images.json").write_text("{")
    assert book.read() == Book()
