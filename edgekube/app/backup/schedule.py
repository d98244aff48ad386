"""Snapshots that happen by themselves, and those that the command asks for: `POST /v1-edgekube/snapshots` {name, seal}.

One at a time. By itself one is made every `--snapshot-interval-hours`, counted from the newest one, only if something durable has changed
since: the card of an idle cluster is not written to. The passphrase of the command stays with the command: it sends the derived key.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekube.apiserver.request import AnyResponse, Request, Response
from edgekube.apiserver.server import Server
from edgekube.app.backup import folder, save
from edgekube.app.backup.content import digest, gather_files
from edgekube.app.backup.save import Saved
from edgekube.app.paths import Paths
from edgekube.config import Settings
from edgekube.errors import BadRequest, ServiceUnavailable
from edgekube.lib import archive
from edgekube.lib.archive import Seal
from edgekube.lib.clock import Clock
from edgekube.store.protocol import Store

log = logging.getLogger(__name__)

PATH = "/v1-edgekube/snapshots"
_FIRST_SECONDS = 600.0  # after a start there is enough to do
_AGAIN_SECONDS = 3600.0  # after one that failed


class Snapshots:
    """Component, and the handler of the address."""

    name = "snapshots"

    def __init__(self, *, store: Store, paths: Paths, settings: Settings, clock: Clock) -> None:
        self._store, self._paths, self._settings, self._clock = store, paths, settings, clock
        self._one = asyncio.Lock()

    def register(self, server: Server) -> None:
        """Answer the command from now on. RBAC lets only cluster administrators through."""
        server.routes.add(PATH, self.handle, methods=("POST",))

    async def run(self, ready: asyncio.Event) -> None:
        ready.set()
        settings = self._settings
        hours = settings.snapshot_interval_hours
        if not hours:
            await asyncio.Event().wait()
        wait = max(_FIRST_SECONDS, await asyncio.to_thread(self._due_in, hours * 3600.0))
        while True:
            await asyncio.sleep(wait)
            wait = hours * 3600.0 if await self._by_itself() else min(_AGAIN_SECONDS, hours * 3600.0)

    def _due_in(self, interval: float) -> float:
        made = [each.created for each in folder.found(folder.folder_of(self._paths.data)) if each.name.startswith(folder.AUTO)]
        newest = made[-1] if made else None
        return interval - max(0.0, self._clock.age(newest)) if newest is not None else 0.0

    async def _by_itself(self) -> bool:
        """Whether all is well: there is one of this state."""
        async with self._one:
            try:
                if await asyncio.to_thread(self._is_saved, self._store.everything().durable):
                    return True
                seal = await asyncio.to_thread(self._own_seal)
                name = folder.free_name(folder.folder_of(self._paths.data), folder.AUTO, self._clock.now())
                saved = await self._save(name, seal)
                gone = await asyncio.to_thread(
                    folder.prune, folder.folder_of(self._paths.data), self._settings.snapshot_keep, only=folder.AUTO
                )
            except OSError as error:
                log.error("snapshot not made", extra={"error": str(error), "path": str(folder.folder_of(self._paths.data))})
                return False
        log.info("snapshot made", extra={"path": str(saved.path), "bytes": saved.size, "objects": saved.objects, "deleted": len(gone)})
        return True

    def _is_saved(self, durable: int) -> bool:
        """Whether the newest one is of this very state."""
        made = [each for each in folder.found(folder.folder_of(self._paths.data)) if each.name.startswith(folder.AUTO) and not each.trouble]
        if not made:
            return False
        newest = made[-1].header
        return bool(newest.get("durable") == durable and newest.get("files") == digest(gather_files(self._paths.data)))

    def _own_seal(self) -> Seal | None:
        settings = self._settings
        file = settings.snapshot_passphrase_file
        return archive.make_seal(read_passphrase(Path(file))) if file else None

    async def _save(self, name: str, seal: Seal | None) -> Saved:
        image = self._store.everything()
        return await save.save_online(self._paths, self._settings, image, name=name, now=self._clock.now(), seal=seal)

    async def handle(self, request: Request) -> AnyResponse:
        """201 with what was made. Raises BadRequest, ServiceUnavailable (the disk)."""
        name, seal = parse(await request.read_body())
        async with self._one:
            home = folder.folder_of(self._paths.data)
            name = name or folder.free_name(home, "", self._clock.now())
            try:
                saved = await self._save(name, seal)
            except FileExistsError as error:
                raise BadRequest(f"{error.filename} exists already") from None
            except OSError as error:
                raise ServiceUnavailable(f"the snapshot could not be written: {(error.strerror or str(error)).lower()}") from None
        log.info("snapshot made", extra={"path": str(saved.path), "bytes": saved.size, "objects": saved.objects})
        return Response(201, json.dumps(saved.told()).encode())


def parse(body: bytes) -> tuple[str, Seal | None]:
    """Name ("": one with the time in it) and seal of a request. Raises BadRequest."""
    try:
        asked: Mapping[str, Any] = json.loads(body or b"{}")
        name, sealed = str(asked.get("name") or ""), asked.get("seal")
        seal = None if sealed is None else Seal(bytes.fromhex(sealed["key"]), sealed["how"])
        if seal is not None and (len(seal.key) != 32 or len(bytes.fromhex(seal.how["prefix"])) != 7):
            raise ValueError("no key")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadRequest(f"no request for a snapshot: {error}") from None
    if name and folder.bad_name(name):
        raise BadRequest(f"{name[:80]!r} is no name for a snapshot: letters, digits, '.', '_' and '-' only")
    return name, seal


def read_passphrase(file: Path) -> bytes:
    """The first line of a file. Raises OSError."""
    found = file.read_bytes().partition(b"\n")[0].rstrip(b"\r")
    if not found:
        raise OSError(22, "it holds no passphrase", str(file))
    return found
