"""Open a database, whatever happened to it: make it, take it as it is, or set a broken one aside and save every row that can be read.

    no file            a new one, complete under another name before it gets its own
    whole              taken
    not ours, newer    StoreDamaged: left untouched
    broken             renamed to state.db.damaged-N (kept for people to look at); its readable rows (salvage.py) go into a new file;
                       nothing readable: those of the newest other *.db beside it; no such copy: StoreDamaged

Safe to kill anywhere: until the final rename the next start finds either the old file or only the damaged copy, which it salvages again.
"""

import contextlib
import logging
import os
import sqlite3
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import aiosqlite

from edgekube.lib.files import sync_folder
from edgekube.store import migrations, salvage
from edgekube.store.protocol import StoreDamaged
from edgekube.store.slotlog import APPLICATION_ID, Content, SlotLog, run_in_thread

log = logging.getLogger(__name__)

_MAGIC = b"SQLite format 3\0"
_HEADER = struct.Struct(">40xI16xI4xI")  # schema cookie, user_version, application_id
_LOST_REVISIONS = 100_000  # how far the revisions of unreadable rows may have been ahead
_COMPANIONS = ("", "-wal", "-shm")


class _Broken(Exception):
    """SQLite can open the file but not trust it."""


async def open_database(path: Path, history: int) -> tuple[aiosqlite.Connection, SlotLog, Content]:
    """The connection, its slot log and all it holds. Raises StoreDamaged."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _finish_interrupted(path, history)
    refuse_foreign(path)
    try:
        return await _open(path, history)
    except _Broken as error:
        why = str(error)
    aside = _set_aside(path)
    _salvage(aside, path, history, why)
    try:
        return await _open(path, history)
    except _Broken as error:
        raise StoreDamaged(f"{path} is damaged and could not be recovered ({error}); the damaged file is {aside}") from error


async def _open(path: Path, history: int) -> tuple[aiosqlite.Connection, SlotLog, Content]:
    slots = SlotLog(path, history)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=1.0)

    database = aiosqlite.Connection(connect, iter_chunk_size=64)

    def prepare() -> Content:
        slots.open(database._conn)
        if not slots.check():
            raise _Broken("quick check failed")
        return slots.load()

    try:
        await database
        os.chmod(path, 0o600)
        return database, slots, await run_in_thread(database, prepare)
    except StoreDamaged:
        await _close(database)
        raise
    except (sqlite3.DatabaseError, zlib.error) as error:
        await _close(database)
        if "locked" in str(error):
            raise StoreDamaged(f"{path} is in use by another process") from error
        if "disk I/O error" in str(error) or "full" in str(error) or "unable to open" in str(error):
            raise StoreDamaged(f"{path} can not be opened: {error}") from error
        raise _Broken(str(error)) from error
    except (OSError, _Broken):
        await _close(database)
        raise


async def _close(database: aiosqlite.Connection) -> None:
    with contextlib.suppress(sqlite3.Error, ValueError):
        await database.close()


def refuse_foreign(path: Path) -> None:
    """Look at the file's header and change nothing. Raises StoreDamaged if it is not ours or newer than we are."""
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER.size)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreDamaged(f"{path} can not be read: {error.strerror}") from error
    if start and not start.startswith(_MAGIC):
        if not salvage.read(path).rows:  # ours with a broken first page goes on to recovery
            raise StoreDamaged(f"{path} is not a database; it was left as it is")
    elif len(start) == _HEADER.size and not Path(f"{path}-wal").exists():  # with a WAL the header may be older than the database
        cookie, version, identity = _HEADER.unpack(start)
        if identity == APPLICATION_ID and version > migrations.newest():
            raise StoreDamaged(f"{path} was written by a newer edgekube (format {version}, this one knows {migrations.newest()})")
        if identity != APPLICATION_ID and (identity or cookie) and not salvage.read(path).rows:
            raise StoreDamaged(f"{path} is not a database of edgekube; it was left as it is")


def _set_aside(path: Path) -> Path:
    """Rename the database and its companions to the first free name."""
    number = next(n for n in range(1, 1000) if not Path(f"{path}.damaged-{n}").exists())
    aside = Path(f"{path}.damaged-{number}")
    for companion in _COMPANIONS[1:]:
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{companion}", f"{aside}{companion}")
    path.rename(aside)
    sync_folder(path.parent)
    return aside


def _finish_interrupted(path: Path, history: int) -> None:
    """A salvage that was killed: the damaged file is there, the new one is not."""
    Path(f"{path}.salvaged").unlink(missing_ok=True)
    copies = sorted(path.parent.glob(f"{path.name}.damaged-*[0-9]"), key=lambda found: int(found.name.rsplit("-", 1)[1]))
    if copies and not path.exists():
        _salvage(copies[-1], path, history)


def _salvage(aside: Path, path: Path, history: int, why: str = "an earlier recovery was interrupted") -> None:
    """Build a new database at `path` from what can be read of `aside`. Raises StoreDamaged if that is nothing."""
    source, found = aside, salvage.read(aside)
    for copy in _copies(path) if not found.rows else ():
        source, found = copy, salvage.read(copy)
        if found.rows:
            break
    if not found.rows:
        raise StoreDamaged(f"{path} is damaged and no row of it can be read; it was kept as {aside}")
    rows = [found.rows[revision] for revision in sorted(found.rows)]
    fresh = Path(f"{path}.salvaged")
    slots = SlotLog(fresh, history)
    with contextlib.closing(sqlite3.connect(fresh)) as connection:
        slots.open(connection, upto=_format(source))
        ceiling = max(_number(found.meta.get("ceiling")), rows[-1].revision + _LOST_REVISIONS)
        # every bucket lists again: versions in between may be missing
        volatile = " ".join(sorted({row.key[: row.key.find("/")] for row in rows}))
        slots.commit(rows, [("ceiling", str(ceiling)), ("volatile", volatile)])
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    fresh.rename(path)
    for companion in _COMPANIONS[1:]:
        Path(f"{fresh}{companion}").unlink(missing_ok=True)
    sync_folder(path.parent)
    log.warning("database recovered", extra={"why": why, "rows": len(rows), "source": str(source), "damaged_file": str(aside)})


def _format(path: Path) -> int:
    """Of rows that were salvaged: what the file says of itself, if that can be believed; the next open takes them on from there."""
    with path.open("rb") as file:
        start = file.read(_HEADER.size)
    if len(start) < _HEADER.size or not start.startswith(_MAGIC):
        return migrations.newest()
    _, version, identity = _HEADER.unpack(start)
    return int(version) if identity == APPLICATION_ID and 0 < version <= migrations.newest() else migrations.newest()


def _copies(path: Path) -> Sequence[Path]:
    """Other databases beside it that somebody may have kept, newest first."""
    found = [other for other in path.parent.glob("*.db") if other != path]
    return sorted(found, key=lambda other: other.stat().st_mtime, reverse=True)


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
