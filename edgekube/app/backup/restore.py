"""A snapshot becomes the state of this machine. On a blank one it is the same cluster; a state that was there is kept until the next
start has succeeded.

Nothing is touched before the file has been read to its end (checksum, seal, every entry) and the new database stands complete beside
the old one. Then everything is exchanged as one step (exchange.py); interrupted, running it again or the next start completes it.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edgekube.app.backup import content, exchange
from edgekube.app.backup.content import File
from edgekube.app.paths import Paths
from edgekube.config import NODE_NAME_FILE, Settings, shared
from edgekube.lib import archive
from edgekube.lib.clock import parse_rfc3339
from edgekube.lib.files import write_atomic
from edgekube.store import migrations, transplant
from edgekube.store.slotlog import Row

ASIDE = ".before-restore-"
_FORMAT = 1
_NEEDED = (("database", int), ("revision", int), ("objects", int), ("node", str), ("created", str))


class Refused(Exception):
    """The restore does not happen; nothing was changed. The message is one line."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `flags`: settings of the cluster that this machine does not have; `kept`: what was set aside."""

    header: dict[str, Any]
    objects: int
    flags: Sequence[str]
    kept: Sequence[Path]


def restore(paths: Paths, settings: Settings, file: Path, *, passphrase: bytes | None, now: datetime) -> Restored:
    """The caller holds the lock of the run directory. Blocks. Raises Refused, OSError."""
    exchange.finish(paths.data)
    if paths.agent.is_dir():
        raise Refused(f"{paths.data} belongs to an agent: a snapshot is the state of a server")
    if in_use(paths.database):
        raise Refused(f"{paths.database} is in use by another process: stop it first")
    try:
        header = _checked(archive.verify(file))
        paths.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = exchange.stage(paths.data)
        objects = _unpack(archive.read(file, passphrase), staged, _first_revision(header, now), header["database"])
        if objects != header["objects"] or not (staged / "pki" / "ca.pem").exists():
            raise archive.Damaged("it is not complete")
    except (archive.Damaged, archive.WrongPassphrase) as error:
        exchange.abandon(paths.data)
        raise Refused(f"{file} can not be restored: {error}") from None
    except OSError:
        exchange.abandon(paths.data)
        raise
    write_atomic(staged / NODE_NAME_FILE, f"{header['node']}\n".encode(), mode=0o644)
    suffix = exchange.free_suffix(paths.data, f"{ASIDE}{now:%Y%m%d-%H%M%S}")  # what an earlier one set aside stays too
    exchange.decide(paths.data, names=("db", *content.FOLDERS, *content.FILES, NODE_NAME_FILE), suffix=suffix)
    exchange.finish(paths.data)
    return Restored(header, objects, missing_flags(header, settings), exchange.kept(paths.data, ASIDE))


def _checked(header: dict[str, Any]) -> dict[str, Any]:
    if header.get("format", 0) > _FORMAT or header.get("database", 0) > migrations.newest():
        raise archive.Damaged(f"it was made by a newer edgekube ({header.get('edgekube', 'unknown')})")
    if not all(isinstance(header.get(name), kind) for name, kind in _NEEDED):
        raise archive.Damaged("its header is not complete")
    return header


def _first_revision(header: dict[str, Any], now: datetime) -> int:
    try:
        elapsed = (now - parse_rfc3339(header["created"])).total_seconds()
    except ValueError:
        raise archive.Damaged("its header is not complete") from None
    return transplant.bumped(header["revision"], elapsed=elapsed)


def _unpack(stream: Iterator[bytes], staged: Path, revision: int, database: int) -> int:
    """Files and database below `staged`; the number of rows."""
    path = staged / "db" / "state.db"
    path.parent.mkdir(mode=0o700)

    def rows() -> Iterator[Row]:
        for entry in content.unpack(stream):
            if isinstance(entry, File):
                _write(staged / entry.name, entry)
            else:
                yield Row(entry.revision, entry.key, entry.create_revision, False, entry.value)

    return transplant.build(path, rows(), revision=revision, database=database)


def _write(path: Path, file: File) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, file.data, mode=file.mode)


def in_use(database: Path) -> bool:
    """Whether a process has the database open, be it one with another run directory."""
    if not database.is_file():
        return False
    connection = sqlite3.connect(database, timeout=0.1, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.DatabaseError:
        return False  # broken: nobody works with it
    finally:
        connection.close()
    return False


def missing_flags(header: dict[str, Any], settings: Settings) -> Sequence[str]:
    """Settings of the cluster that must be given to the server, since they are others than this machine has."""
    have, wanted = shared(settings), header.get("cluster") or {}
    return [f"--{name}={value}" for name, value in wanted.items() if name in have and have[name] != value]
