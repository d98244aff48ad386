"""What this node remembers of its images: which are pinned, and which files of the images folder have been taken in.

Reads and writes <data-dir>/images.json, each change under a lock and durably: the node and commands of the same installation share it. A
file that is damaged counts as empty, and is told: then files of the folder are taken in again, which changes nothing.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from edgekube.kubelet.runtime.protocol import ImageInfo
from edgekube.lib.files import write_if_changed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """A file of the folder that was looked at. `stamp` changes with the file."""

    stamp: Sequence[int]
    sha256: str
    ids: Sequence[str] = ()
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Book:
    """`pinned`: names and ids that a person has pinned."""

    pinned: frozenset[str] = frozenset()
    files: Mapping[str, Taken] = field(default_factory=dict)

    def pinned_by(self, image: ImageInfo) -> str:
        """Why garbage collection leaves the image alone, "" if nothing says so."""
        refs = {image.id, *image.tags, *image.digests}
        if refs & self.pinned:
            return "pinned"
        for name, taken in self.files.items():
            if refs & {*taken.ids, *taken.names}:
                return f"images/{name}"
        return ""

    def pin(self, *refs: str) -> "Book":
        return replace(self, pinned=self.pinned | set(refs))

    def unpin(self, *refs: str) -> "Book":
        return replace(self, pinned=self.pinned - set(refs))

    def with_file(self, name: str, taken: Taken | None) -> "Book":
        """`None`: it is gone."""
        files = {known: entry for known, entry in self.files.items() if known != name}
        return replace(self, files=files if taken is None else files | {name: taken})


class BookDamaged(Exception):
    """The record can not be read: what is pinned is not known."""


class ImageBook:
    """The file. Blocks: use it in a thread."""

    def __init__(self, data_dir: Path) -> None:
        self._path, self._lock = data_dir / "images.json", data_dir / "images.lock"

    def read(self) -> Book:
        try:
            return self.read_whole()
        except BookDamaged as error:
            log.warning("record of images not readable: it starts anew", extra={"path": str(self._path), "error": str(error)})
            return Book()

    def read_whole(self) -> Book:
        """For who would remove what is not in it. Raises BookDamaged."""
        try:
            found = orjson.loads(self._path.read_bytes())
            return Book(frozenset(map(str, found["pinned"])), {name: Taken(**entry) for name, entry in found["files"].items()})
        except FileNotFoundError:
            return Book()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BookDamaged(f"{self._path} is not readable: {error}") from error

    def change(self, how: Callable[[Book], Book]) -> Book:
        """Write what `how` makes of it; returns that. Writes nothing if it is the same."""
        with self._alone():
            old = self.read()
            new = how(old)
            if new != old:
                body: dict[str, Any] = {
                    "pinned": sorted(new.pinned),
                    "files": {name: asdict(one) for name, one in sorted(new.files.items())},
                }
                write_if_changed(self._path, orjson.dumps(body, option=orjson.OPT_INDENT_2), mode=0o600)
            return new

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
