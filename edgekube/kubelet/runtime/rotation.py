"""Keep container logs small: above the size the file is renamed, conmon opens a new one, old files are compressed and the oldest deleted.

    0.log                       being written
    0.log.20261120-210405       the newest rotated one, plain: a follower may still read it
    0.log.20261120-200405.gz    older ones

At most `max_files` in all, as upstream counts them. One look every ten seconds, one stat(2) per running container.
"""

import asyncio
import gzip
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from edgekube.kubelet.runtime.protocol import Runtime, RuntimeFailure
from edgekube.lib.clock import Clock

log = logging.getLogger(__name__)

_EVERY_SECONDS = 10.0


class LogRotation:
    """A component."""

    name = "log-rotation"

    def __init__(self, *, runtime: Runtime, clock: Clock, max_size: int, max_files: int) -> None:
        self._runtime, self._clock = runtime, clock
        self._max_size, self._max_files = max_size, max(2, max_files)

    async def run(self, ready: asyncio.Event) -> None:
        ready.set()
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                await self.rotate_all()
            except RuntimeFailure as error:
                log.debug("log rotation skipped", extra={"error": str(error)})

    async def rotate_all(self) -> None:
        """One round."""
        for container in await self._runtime.containers():
            if container.state != "running" or not _bigger(container.log_path, self._max_size):
                continue
            try:
                await self._rotate(container.id, container.log_path)
            except (OSError, RuntimeFailure) as error:
                log.warning(
                    "log was not rotated", extra={"container": container.id[:12], "path": str(container.log_path), "error": str(error)}
                )

    async def _rotate(self, container_id: str, path: Path) -> None:
        await asyncio.to_thread(clean_up, path, self._max_files)
        aside = path.with_name(f"{path.name}.{self._clock.now():%Y%m%d-%H%M%S}")
        os.rename(path, aside)
        try:
            await self._runtime.reopen_log(container_id)
        except RuntimeFailure:
            _put_back(aside, path)
            raise


def _put_back(aside: Path, path: Path) -> None:
    if not path.exists():  # else it has been opened after all
        aside.rename(path)


def clean_up(path: Path, max_files: int) -> None:
    """Before another one is added: compress what is not yet, delete what is too much, and what a crash left of compressing."""
    for left in path.parent.glob(f"{path.name}.*.tmp"):
        left.unlink(missing_ok=True)
    old = rotated(path)
    for surplus in old[: max(0, len(old) - (max_files - 2))]:
        surplus.unlink(missing_ok=True)
    for plain in rotated(path):
        if plain.suffix != ".gz":
            _compress(plain)


def rotated(path: Path) -> Sequence[Path]:
    """Rotated files of one log, oldest first."""
    return sorted(found for found in path.parent.glob(f"{path.name}.*") if found.suffix != ".tmp")


def _compress(plain: Path) -> None:
    aside = plain.with_name(f"{plain.name}.gz.tmp")
    with plain.open("rb") as source, gzip.open(aside, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target, 256 << 10)
    aside.rename(plain.with_name(f"{plain.name}.gz"))
    plain.unlink()


def _bigger(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size > size
    except OSError:
        return False
