"""The images folder: archives dropped there are taken in once, by their content, and stay pinned for as long as the file is there.

    start, change -> files gone: their images are no longer pinned, and kept
                  -> files whose size, time and inode are known, and whose images are here: nothing is read
                  -> else hashed; content that is known: noted only; new content: loaded, pinned, pods that wait for images are woken

Reads <data-dir>/images; writes the record (imagebook.py), Events about the Node. A file that somebody still writes to is left until it is
closed; one that can not be used is told once, and tried again when it changes or at the next start. Costs nothing while no file changes.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from edgekube.client.protocol import Client
from edgekube.client.recorder import WARNING, Recorder
from edgekube.kubelet.imagebook import Book, ImageBook, Taken
from edgekube.kubelet.runtime.archive import SUFFIXES
from edgekube.kubelet.runtime.protocol import Runtime, RuntimeDown, RuntimeFailure
from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import Clock
from edgekube.lib.files import still_written
from edgekube.lib.inotify import FILES, ITSELF, MOVED_TO, FolderWatch

log = logging.getLogger(__name__)

LOOK = 60.0  # where there is no inotify
RETRY = 2.0
SETTLE = 0.2
_CHUNK = 1 << 20


class ImageFolder:
    """Component; `changed` is called when images have come, by whatever way: the runtime's own `store` is watched for that."""

    name = "images-folder"

    def __init__(
        self,
        *,
        folder: Path,
        store: Path,
        book: ImageBook,
        runtime: Runtime,
        client: Client,
        clock: Clock,
        node_name: str,
        changed: Callable[[], None],
    ) -> None:
        self._folder, self._store, self._changed = folder, store, changed
        self._book, self._runtime, self._node_name = book, runtime, node_name
        self._recorder = Recorder(client=client, component="kubelet", clock=clock, host=node_name)
        self._broken: dict[str, Sequence[int]] = {}  # files that could not be used, as they were then
        self._unsure: dict[str, Sequence[int]] = {}
        self._backoff = Backoff(base=10.0, cap=300.0)

    async def run(self, ready: asyncio.Event) -> None:
        ready.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run(), name="images-folder/events")
            group.create_task(self._watch_store(), name="images-folder/store")
            while True:
                try:
                    await self._follow()
                except RuntimeDown as error:
                    log.debug("images folder not looked through yet", extra={"path": str(self._folder), "error": str(error)})
                except (OSError, RuntimeFailure) as error:  # a full disk, say: what was loaded can not even be noted
                    log.warning("images folder not looked through", extra={"path": str(self._folder), "error": str(error)})
                    await asyncio.sleep(self._backoff.delay(""))
                await asyncio.sleep(RETRY)

    async def _watch_store(self) -> None:
        """Images also come by commands (`edgekube images import`) and by pulls of other pods."""
        while True:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._store.mkdir, mode=0o700, parents=True, exist_ok=True)
                with FolderWatch(self._store, MOVED_TO | ITSELF) as watch:
                    while await asyncio.to_thread(self._store.is_dir):
                        await watch.wait(None if watch.works else LOOK)
                        await watch.quiet(SETTLE, at_most=RETRY)
                        self._changed()
            await asyncio.sleep(LOOK)

    async def _follow(self) -> None:
        """Until the folder is gone."""
        await asyncio.to_thread(self._folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        with FolderWatch(self._folder, FILES | ITSELF) as watch:
            while await asyncio.to_thread(self._folder.is_dir):
                busy = await self.look()
                self._backoff.forget("")
                await watch.wait(RETRY if busy else None if watch.works else LOOK)

    async def look(self) -> bool:
        """Take in what is new. True: a file may still be written to, and no event will say when that ends. Raises RuntimeDown, OSError."""
        found = await asyncio.to_thread(stamps, self._folder)
        book = await asyncio.to_thread(self._book.read)
        if not found and not book.files:
            return False
        for name in [name for name in book.files if name not in found]:
            book = await asyncio.to_thread(self._book.change, _without(name))
            log.info("image archive is gone: its images are kept but no longer pinned", extra={"path": str(self._folder / name)})
        self._broken = {name: stamp for name, stamp in self._broken.items() if name in found}
        if not found:
            return False
        here = {image.id for image in await self._runtime.images()}
        busy = False
        for name, stamp in sorted(found.items()):
            known = book.files.get(name)
            if self._broken.get(name) == stamp or (known is not None and list(known.stamp) == list(stamp) and here.issuperset(known.ids)):
                continue
            written = await asyncio.to_thread(still_written, self._folder / name)
            if written is None and self._unsure.get(name) != stamp:  # then it holds still from one look to the next
                self._unsure[name], busy = stamp, True
            elif not written:
                book = await self._take(name, stamp, book, here)
        return busy

    async def _take(self, name: str, stamp: Sequence[int], book: Book, here: set[str]) -> Book:
        path = self._folder / name
        try:
            digest = await asyncio.to_thread(hashed, path)
            if await asyncio.to_thread(stamp_of, path) != stamp:
                return book  # it changes as we read: an event follows
        except FileNotFoundError:
            return book
        except OSError as error:
            self._refused(name, stamp, f"{path} can not be read: {error.strerror}")
            return book
        same = next((one for one in book.files.values() if one.sha256 == digest and one.ids and here.issuperset(one.ids)), None)
        if same is not None:
            return await asyncio.to_thread(self._book.change, _with(name, Taken(stamp, digest, same.ids, same.names)))
        try:
            names = await self._runtime.load_image(path)
            ids = [image.id for image in [await self._runtime.image(one) for one in names] if image is not None]
        except RuntimeDown:
            raise
        except RuntimeFailure as error:
            self._refused(name, stamp, str(error))
            return book
        book = await asyncio.to_thread(self._book.change, _with(name, Taken(stamp, digest, ids, list(names))))
        self._changed()
        return book

    def _refused(self, name: str, stamp: Sequence[int], why: str) -> None:
        self._broken[name] = stamp
        log.warning("image archive refused", extra={"path": str(self._folder / name), "error": why})
        ref = {"kind": "Node", "name": self._node_name, "uid": self._node_name, "apiVersion": "v1"}
        self._recorder.event(ref, WARNING, "ImageArchiveRefused", f"images/{name}: {why}")


def _with(name: str, taken: Taken) -> Callable[[Book], Book]:
    return lambda book: book.with_file(name, taken)


def _without(name: str) -> Callable[[Book], Book]:
    return lambda book: book.with_file(name, None)


def stamps(folder: Path) -> dict[str, Sequence[int]]:
    """The archives of the folder; hidden files are of copies that are under way."""
    found: dict[str, Sequence[int]] = {}
    for path in folder.iterdir():
        if path.name.endswith(SUFFIXES) and path.name[0] != "." and path.is_file():
            found[path.name] = stamp_of(path)
    return found


def stamp_of(path: Path) -> Sequence[int]:
    """What changes when the file does: size, time, inode."""
    about = path.stat()
    return [about.st_size, about.st_mtime_ns, about.st_ino]


def hashed(path: Path) -> str:
    """sha256 of the contents."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()
