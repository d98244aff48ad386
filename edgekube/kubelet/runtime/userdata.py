"""What podman writes down about a container, kept in memory instead of on the disk.

Context: for a container that starts, podman writes its OCI configuration, with the whole environment and so with every Secret in it, to
STORAGE/overlay-containers/ID/userdata, which is on the disk and outlives the container's machine. It can not be told to do otherwise
before 4.4 (transient_store). Decision: between creating a container and starting it that folder becomes a link to one in the run
directory. Nothing is lost: containers do not outlive a boot here, and a boot removes what the storage still knows of them.

Blocks for a few system calls. Promises: idempotent, and complete again when it is called after a crash at any step.
"""

import contextlib
import shutil
from pathlib import Path

_OLD = "userdata.old"


def keep_in_memory(container_id: str, *, storage: Path, memory: Path) -> None:
    """Before the first start. `memory` is a folder on a tmpfs. Raises OSError."""
    folder = storage / "overlay-containers" / container_id
    link, there = folder / "userdata", memory / container_id
    if link.is_symlink() or not folder.is_dir():
        return
    memory.mkdir(mode=0o700, parents=True, exist_ok=True)
    there.mkdir(mode=0o700, exist_ok=True)
    if link.is_dir():
        shutil.copytree(link, there, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(folder / _OLD, ignore_errors=True)
        link.rename(folder / _OLD)
    link.symlink_to(there)
    shutil.rmtree(folder / _OLD, ignore_errors=True)


def forget(container_id: str, *, memory: Path) -> None:
    """The container is gone."""
    shutil.rmtree(memory / container_id, ignore_errors=True)


def sweep(*, storage: Path, memory: Path) -> None:
    """Forget all containers that the storage does not know; those of an earlier boot get empty folders, for podman removes no others."""
    with contextlib.suppress(FileNotFoundError):
        for folder in (storage / "overlay-containers").iterdir():
            link = folder / "userdata"
            if folder.is_dir() and not link.exists():
                link.unlink(missing_ok=True)
                link.mkdir(mode=0o700)
    with contextlib.suppress(FileNotFoundError):
        for entry in list(memory.iterdir()):
            if not (storage / "overlay-containers" / entry.name).is_dir():
                forget(entry.name, memory=memory)
