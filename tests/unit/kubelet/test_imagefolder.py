"""The images folder on the fake runtime. In: what is loaded, when, and what is remembered. Out: podman (tests/e2e/test_images.py)."""

import os
from dataclasses import replace

import pytest

from edgekube.kubelet import imagefolder
from edgekube.kubelet.imagebook import ImageBook
from edgekube.kubelet.imagefolder import ImageFolder
from edgekube.kubelet.runtime.protocol import RuntimeFailure
from edgekube.lib.clock import FakeClock
from edgekube.lib.files import still_written
from tests.kit.fake_runtime import BUSYBOX, FakeRuntime


class Loader(FakeRuntime):
    """An archive holds the image that its text names."""

    async def load_image(self, path):
        self._call("load_image", path.name)
        text = path.read_text()
        if text == "broken":
            raise RuntimeFailure("ImageLoadError", f"{path} is damaged")
        name = f"docker.io/library/{text}:v1"
        self.images_known[name] = replace(BUSYBOX, id=f"sha256:{text:0<64}", tags=(name,))
        return [name]


class Bench:
    def __init__(self, tmp_path, runtime=None):
        self.folder, self.runtime, self.told = tmp_path / "images", runtime or Loader(), 0
        self.folder.mkdir(exist_ok=True)
        self.book = ImageBook(tmp_path)
        self.component = ImageFolder(
            folder=self.folder,
            book=self.book,
            runtime=self.runtime,
            client=None,
            clock=FakeClock(),
            node_name="n",
            store=tmp_path / "store",
            changed=self.loaded,
        )
        self.component._recorder.event = lambda *event: setattr(self, "event", event)

    def loaded(self):
        self.told += 1

    async def look(self):
        self.runtime.calls.clear()
        busy = await self.component.look()
        return busy, [what for name, what in self.runtime.calls if name == "load_image"]

    def pinned(self, text):
        image = next((one for one in self.runtime.images_known.values() if one.id.startswith(f"sha256:{text}")), None)
        return image is not None and bool(self.book.read().pinned_by(image))


async def test_a_file_is_loaded_once_and_pinned_while_it_is_there(tmp_path):
    bench = Bench(tmp_path)
    (bench.folder / "a.tar").write_text("aa")
    assert await bench.look() == (False, ["a.tar"])
    assert (bench.pinned("aa"), bench.told) == (True, 1)
    assert await bench.look() == (False, [])
    (bench.folder / "a.tar").unlink()
    assert await bench.look() == (False, [])
    assert not bench.pinned("aa")
    assert "docker.io/library/aa:v1" in bench.runtime.images_known


async def test_after_a_restart_nothing_is_read(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    (bench.folder / "a.tar.zst").write_text("aa")
    await bench.look()
    monkeypatch.setattr(imagefolder, "hashed", lambda path: pytest.fail(f"{path} was read"))
    assert await Bench(tmp_path, bench.runtime).look() == (False, [])


async def test_the_same_content_in_another_file_is_not_loaded_again(tmp_path):
    bench = Bench(tmp_path)
    (bench.folder / "a.tar").write_text("aa")
    await bench.look()
    os.utime(bench.folder / "a.tar", (1, 1))
    (bench.folder / "b.tar").write_text("aa")
    assert await bench.look() == (False, [])
    (bench.folder / "a.tar").unlink()
    await bench.look()
    assert bench.pinned("aa")


async def test_new_content_is_loaded_and_the_old_image_is_no_longer_pinned(tmp_path):
    bench = Bench(tmp_path)
    (bench.folder / "a.tar").write_text("aa")
    await bench.look()
    (bench.folder / "a.tar").write_text("eee")
    assert await bench.look() == (False, ["a.tar"])
    assert (bench.pinned("aa"), bench.pinned("eee")) == (False, True)


async def test_images_that_somebody_removed_are_loaded_again(tmp_path):
    bench = Bench(tmp_path)
    (bench.folder / "a.tar").write_text("aa")
    await bench.look()
    bench.runtime.images_known.clear()
    assert await bench.look() == (False, ["a.tar"])


async def test_a_broken_file_is_told_once_and_does_not_keep_the_others(tmp_path, caplog):
    bench = Bench(tmp_path)
    (bench.folder / "a.tar").write_text("broken")
    (bench.folder / "b.tar").write_text("bb")
    assert await bench.look() == (False, ["a.tar", "b.tar"])
    assert await bench.look() == (False, [])
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == ["image archive refused"]
    assert bench.event[2:] == ("ImageArchiveRefused", f"images/a.tar: {bench.folder}/a.tar is damaged")
    (bench.folder / "a.tar").write_text("aa")
    assert await bench.look() == (False, ["a.tar"])


async def test_a_file_that_is_being_written_waits(tmp_path):
    bench = Bench(tmp_path)
    path = bench.folder / "a.tar"
    with path.open("w") as file:
        file.write("a")
        file.flush()
        assert still_written(path) is True
        assert await bench.look() == (False, [])
        file.write("a")
    assert still_written(path) is False
    assert await bench.look() == (False, ["a.tar"])


async def test_where_the_kernel_can_not_say_it_must_hold_still(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    monkeypatch.setattr(imagefolder, "still_written", lambda path: None)
    (bench.folder / "a.tar").write_text("a")
    assert await bench.look() == (True, [])
    (bench.folder / "a.tar").write_text("aa")
    assert await bench.look() == (True, [])
    assert await bench.look() == (False, ["a.tar"])


async def test_other_files_and_hidden_ones_are_left_alone(tmp_path):
    bench = Bench(tmp_path)
    for name in ("notes.txt", ".a.tar.x7dK", ".a.tar", "a.tar.part"):
        (bench.folder / name).write_text("aa")
    assert await bench.look() == (False, [])
