"""Garbage collection of images, as upstream does it (pkg/kubelet/images/image_gc_manager.go).

When the disk is fuller than the high threshold, images go until it is below the low one: those unused for longest first. Never one that a
container has or that a pod of this node names, never a pinned one, never one that was used or first seen less than the minimum age ago.
Under disk pressure everything that may go goes, before any pod does.

Costs nothing while there is room: `look` gets what the node's beat has measured anyway; at most every 5 minutes it does more.
Reads the images folder's record (imagebook.py); removes images; tells people by Events FreeDiskSpaceFailed and ImageGCFailed.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from edgekube.kubelet.imagebook import Book, BookDamaged, ImageBook
from edgekube.kubelet.machine import Disk
from edgekube.kubelet.runtime.names import expand
from edgekube.kubelet.runtime.protocol import ImageInfo, Runtime, RuntimeFailure
from edgekube.lib.clock import Clock

log = logging.getLogger(__name__)

PERIOD = 300.0
EVERYTHING = sys.maxsize
_NEVER = 100  # percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Percent of the disk that is used, and seconds. `high` of 100: never."""

    high: int = 85
    low: int = 80
    minimum_age: float = 120.0


@dataclass(slots=True)
class Usage:
    """When images were first seen and last used, on the monotonic clock; what was there at the start counts as old."""

    seen: dict[str, float] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)
    begun: bool = False

    def note(self, images: Iterable[ImageInfo], needed: Collection[str], now: float) -> None:
        """What is there now, and which of it is in use (by id, or as pods name it)."""
        first = now if self.begun else float("-inf")
        seen, used = {}, {}
        for image in images:
            seen[image.id] = self.seen.get(image.id, first)
            used[image.id] = now if is_needed(image, needed) else self.used.get(image.id, float("-inf"))
        self.seen, self.used, self.begun = seen, used, True


def is_needed(image: ImageInfo, needed: Collection[str]) -> bool:
    """`needed`: ids and whole names."""
    return not {image.id, *image.tags, *image.digests}.isdisjoint(needed)


def wanted_bytes(disk: Disk, thresholds: Thresholds) -> int:
    """How much is to be freed; 0: there is room."""
    if disk.total <= 0:
        return 0
    used = 100 - disk.available * 100 // disk.total
    if thresholds.high >= 100 or used < thresholds.high:
        return 0
    return max(0, disk.total * (100 - thresholds.low) // 100 - disk.available)


def plan_collection(
    images: Sequence[ImageInfo], *, needed: Collection[str], book: Book, usage: Usage, now: float, minimum_age: float
) -> list[ImageInfo]:
    """What may go, in this order. `needed`: ids and whole names of what must stay."""
    found = [
        image
        for image in images
        if not is_needed(image, needed) and not book.pinned_by(image) and now - usage.seen.get(image.id, now) >= minimum_age
    ]
    return sorted(found, key=lambda image: (usage.used.get(image.id, float("-inf")), usage.seen.get(image.id, now)))


class ImageCollector:
    """See the module. `needed` says which images pods of this node have or name; `tell` gets reason and message of an Event."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        book: ImageBook,
        clock: Clock,
        thresholds: Thresholds,
        needed: Callable[[], Collection[str]],
        tell: Callable[[str, str], None],
    ) -> None:
        self._runtime, self._book, self._clock = runtime, book, clock
        self._thresholds, self._needed, self._tell = thresholds, needed, tell
        self._usage = Usage()
        self._tried = float("-inf")
        self._failed = False
        self._busy = asyncio.Lock()

    def due(self, disk: Disk, *, pressure: bool) -> bool:
        """Whether `collect` has something to do now; cheap, asked at each beat of the node."""
        if self._thresholds.high >= _NEVER or self._clock.monotonic() - self._tried < (PERIOD if not pressure else PERIOD / 5):
            return False
        return pressure or wanted_bytes(disk, self._thresholds) > 0

    async def collect(self, disk: Disk, *, pressure: bool) -> int:
        """Bytes freed. Failures are told, not raised."""
        async with self._busy:
            self._tried = self._clock.monotonic()
            wanted = EVERYTHING if pressure else wanted_bytes(disk, self._thresholds)
            try:
                freed = await self._free(wanted)
            except (RuntimeFailure, BookDamaged) as error:
                self._trouble(str(error))
                return 0
            if pressure or freed >= wanted:
                self._failed = False
                return freed
            message = (
                "Failed to garbage collect required amount of images. "
                f"Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
            )
            self._tell("FreeDiskSpaceFailed", message)
            self._trouble(message)
            return freed

    def _trouble(self, message: str) -> None:
        """The first failure may pass by itself."""
        log.warning("image garbage collection failed", extra={"error": message})
        if self._failed:
            self._tell("ImageGCFailed", message)
        self._failed = True

    async def _free(self, wanted: int) -> int:
        images = await self._runtime.images()
        book = await asyncio.to_thread(self._book.read_whole)
        in_use = {info.image_id for info in await self._runtime.containers()}
        needed = {*in_use, *self._whole(), *self._needed()}
        now = self._clock.monotonic()
        self._usage.note(images, needed, now)
        freed, problems = 0, []
        for image in plan_collection(
            images, needed=needed, book=book, usage=self._usage, now=now, minimum_age=self._thresholds.minimum_age
        ):
            try:
                await self._runtime.remove_image(image.id)
            except RuntimeFailure as error:
                problems.append(str(error))
                continue
            freed += image.size
            log.info("image removed to free space", extra={"image": next(iter(image.tags), image.id[7:19]), "bytes": image.size})
            if freed >= wanted:
                break
        if problems and freed < wanted:
            raise RuntimeFailure(
                "ImageRemoveError",
                f"wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {problems}",
            )
        return freed

    def seen(self, images: Sequence[ImageInfo]) -> None:
        """The node's images as just listed: who is used now."""
        self._usage.note(images, self._whole(), self._clock.monotonic())

    def _whole(self) -> set[str]:
        return {expand(one) for one in self._needed()}
