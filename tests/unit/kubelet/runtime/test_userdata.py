"""The folder in which podman writes a container's environment is in memory, whenever we were killed."""

import shutil
from pathlib import Path

import pytest

from edgekube.kubelet.runtime.userdata import forget, keep_in_memory, sweep


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    made = tmp_path / "storage" / "overlay-containers" / "a" / "userdata"
    (made / "artifacts").mkdir(parents=True)
    (made / "artifacts" / "x").write_text("kept")
    return tmp_path / "storage"


def test_what_is_written_later_is_in_memory(storage: Path, tmp_path: Path) -> None:
    for _ in range(2):
        keep_in_memory("a", storage=storage, memory=tmp_path / "memory")
    folder = storage / "overlay-containers" / "a"
    assert (folder / "userdata").is_symlink()
    (folder / "userdata" / "config.json").write_text("secret")
    assert (tmp_path / "memory" / "a" / "config.json").read_text() == "secret"
    assert (tmp_path / "memory" / "a" / "artifacts" / "x").read_text() == "kept"
    assert [entry.name for entry in folder.iterdir()] == ["userdata"]
    assert (tmp_path / "memory").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("step", ["copied", "renamed"])
def test_after_a_crash_it_goes_on(storage: Path, tmp_path: Path, step: str) -> None:
    folder, there = storage / "overlay-containers" / "a", tmp_path / "memory" / "a"
    (there / "artifacts").mkdir(parents=True)
    (there / "artifacts" / "x").write_text("kept")
    if step == "renamed":
        (folder / "userdata").rename(folder / "userdata.old")
    keep_in_memory("a", storage=storage, memory=tmp_path / "memory")
    assert (folder / "userdata" / "artifacts" / "x").read_text() == "kept"
    assert [entry.name for entry in folder.iterdir()] == ["userdata"]


def test_after_a_boot_podman_finds_folders(storage: Path, tmp_path: Path) -> None:
    keep_in_memory("a", storage=storage, memory=tmp_path / "memory")
    shutil.rmtree(tmp_path / "memory")
    (storage / "overlay-containers" / "containers.json").write_text("[]")
    sweep(storage=storage, memory=tmp_path / "memory")
    link = storage / "overlay-containers" / "a" / "userdata"
    assert link.is_dir()
    assert not link.is_symlink()


def test_what_is_gone_is_forgotten(storage: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    sweep(storage=storage, memory=memory)
    keep_in_memory("none", storage=storage, memory=memory)
    assert not memory.exists()
    keep_in_memory("a", storage=storage, memory=memory)
    (memory / "b").mkdir()
    sweep(storage=storage, memory=memory)
    assert [entry.name for entry in memory.iterdir()] == ["a"]
    forget("a", memory=memory)
    assert not list(memory.iterdir())
