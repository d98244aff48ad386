"""Make a snapshot: of a store that runs (its memory at one revision, no lock, no pause) or of a database that nobody has open.

Context: a card that may be slow, a loop that must not wait, writes that must go on. Decision: references to the records in memory are
copied (0.2 ms for 10,000), and a thread packs them; neither the loop nor the database thread takes part. SQLite's backup or VACUUM INTO
would hold the writer, and read what is in memory anyway. Measured with 10,000 pods of 6 KB on a busy 2-core VM: 1 s, 16 MB, the loop and
writes as late as without it (99th percentile 4 and 12 ms, before 8 and 14), no more memory; a restore takes 2.5 s.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edgekube import __version__
from edgekube.app.backup import folder
from edgekube.app.backup.content import File, digest, gather_files, pack
from edgekube.app.paths import Paths
from edgekube.config import Settings, shared
from edgekube.lib import archive
from edgekube.lib.clock import rfc3339
from edgekube.lib.where import authority_of
from edgekube.store import migrations
from edgekube.store.protocol import Image, Record, StoreDamaged
from edgekube.store.slotlog import SlotLog

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Saved:
    """What was made."""

    path: Path
    size: int
    objects: int
    revision: int

    def told(self) -> Mapping[str, Any]:
        return {"path": str(self.path), "size": self.size, "objects": self.objects, "revision": self.revision}


def write(paths: Paths, settings: Settings, image: Image, *, name: str, now: datetime, seal: archive.Seal | None = None) -> Saved:
    """Write `image` and the files that belong to it as snapshots/NAME. Blocks: not for the loop. Raises OSError, FileExistsError."""
    home = folder.folder_of(paths.data)
    home.mkdir(mode=0o700, exist_ok=True)
    folder.remove_unfinished(home)
    files = gather_files(paths.data)
    path = folder.path_for(home, name)
    size = archive.write(path, _header(paths, settings, image, files, now), pack(files, image.records), seal)
    return Saved(path, size, len(image.records), image.revision)


def _header(paths: Paths, settings: Settings, image: Image, files: Sequence[File], now: datetime) -> Mapping[str, Any]:
    ca = (paths.pki / "ca.crt").read_text()
    return {
        "format": FORMAT,
        "database": image.format or migrations.newest(),
        "edgekube": __version__,
        "created": rfc3339(now),
        "node": settings.node_name,
        "authority": authority_of(ca).hex(),
        "cluster": shared(settings),
        "revision": image.revision,
        "durable": image.durable,
        "objects": len(image.records),
        "files": digest(files),
    }


async def save_online(
    paths: Paths, settings: Settings, image: Image, *, name: str, now: datetime, seal: archive.Seal | None = None
) -> Saved:
    """The same beside a running store, in a thread that gives way."""
    return await asyncio.to_thread(write, paths, settings, image, name=name, now=now, seal=seal)


def image_of(database: Path) -> Image:
    """The content of a database that nobody has open. Raises StoreDamaged."""
    if not database.is_file():
        raise StoreDamaged(f"{database} does not exist: no server has run here")
    slots = SlotLog(database, 0)
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=1.0)) as connection:
            slots.open(connection, upto=0)
            if not slots.check():
                raise StoreDamaged(f"{database} is damaged: start the server, which recovers what can be read")
            content = slots.load()
    except sqlite3.Error as error:
        raise StoreDamaged(f"{database} can not be read: {error}") from error
    newest: dict[str, Record] = {}
    for row in content.rows:
        if row.deleted:
            newest.pop(row.key, None)
        else:
            newest[row.key] = Record(row.key, row.value, row.revision, row.create_revision, None)
    revision = content.rows[-1].revision if content.rows else 0
    return Image(revision, revision, list(newest.values()), slots.format)
