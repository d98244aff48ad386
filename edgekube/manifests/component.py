"""Keeps the cluster as the folder says: at the start, and within seconds of each change of a file. See the package for what is promised.

    look -> dry run of changed files -> record what will be ours -> apply, namespaces first -> delete what no file declares -> record

Reads the folder; writes the objects it declares, the record and Events about it. Nothing wakes or is written while no file changes.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import orjson

from edgekube.api.types import Obj
from edgekube.client.protocol import Client
from edgekube.client.recorder import WARNING, Recorder
from edgekube.errors import ApiError, BadRequest, Forbidden, Invalid
from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import Clock
from edgekube.lib.inotify import FILES, ITSELF, FolderWatch
from edgekube.manifests import cluster
from edgekube.manifests.cluster import Unknown, marked
from edgekube.manifests.files import File, Ref, folders, read_folder
from edgekube.manifests.plan import Plan, Record, plan_sync, record_of, union
from edgekube.manifests.record import NAME, NAMESPACE, Records

log = logging.getLogger(__name__)

SETTLE, SETTLE_MOST = 0.5, 2.0
LOOK = 20.0  # where there is no inotify, or no folder
_REFUSED = (Invalid, BadRequest, Forbidden)
_TERMINATING = "because it is being terminated"  # a namespace: it will be made again


class ManifestsFolder:
    """Component; `client` may do anything."""

    name = "manifests"

    def __init__(self, *, folder: Path, client: Client, clock: Clock) -> None:
        self._folder, self._client = folder, client
        self._recorder = Recorder(client=client, component=self.name, clock=clock)
        self._records = Records(client)
        self._record: Record = {}
        self._files: Mapping[str, File] = {}
        self._refused: dict[str, File] = {}  # files that the API refused, as they were
        self._applied: dict[Ref, bytes] = {}
        self._told: dict[str, str] = {}
        self._backoff = Backoff(base=1.0, cap=30.0)

    async def run(self, ready: asyncio.Event) -> None:
        """Until cancelled."""
        ready.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run(), name="manifests/events")
            await self._begin()
            while True:
                try:
                    await self._follow()
                except OSError as error:
                    if await asyncio.to_thread(self._folder.is_dir):
                        log.debug("folder changed while it was read", extra={"path": str(self._folder), "error": str(error)})
                        await asyncio.sleep(SETTLE)
                        continue
                    self._tell("", f"{self._folder} can not be read: nothing is changed until it can: {(error.strerror or '').lower()}")
                await asyncio.sleep(LOOK)

    async def _begin(self) -> None:
        while True:
            try:
                self._record = await self._records.load()
                break
            except (ApiError, ValueError) as error:
                log.warning("record of manifests not readable yet", extra={"error": str(error)})
                await asyncio.sleep(self._backoff.delay(""))
        if not self._record:  # else a folder that is missing is no wish to delete everything
            await asyncio.to_thread(self._folder.mkdir, mode=0o700, parents=True, exist_ok=True)

    async def _follow(self) -> None:
        """Until the folder is gone, or another one stands in its place. Raises OSError."""
        with FolderWatch(self._folder, FILES | ITSELF) as watch:
            inode = (await asyncio.to_thread(self._folder.stat)).st_ino
            while (await asyncio.to_thread(self._folder.stat)).st_ino == inode:
                for folder in await asyncio.to_thread(lambda: list(folders(self._folder))):
                    watch.also(folder)
                files = await asyncio.to_thread(read_folder, self._folder, self._files)
                done = await self._sync(files)
                pause = None if done else self._backoff.delay("")
                if done:
                    self._backoff.forget("")
                await watch.wait(min(filter(None, (pause, None if watch.works else LOOK)), default=None))
                await watch.quiet(SETTLE, at_most=SETTLE_MOST)

    async def _sync(self, files: Mapping[str, File]) -> bool:
        """False: something waits for what is not there yet. Never raises ApiError."""
        self._files = files
        try:
            plan, checked = await self._checked(files)
            await self._records.save(union(self._record, record_of(plan, checked, self._record, plan.prune)))
            waiting = await self._apply(plan)
            left = await self._prune(plan, waiting)
            self._record = record_of(plan, checked, self._record, left)
            await self._records.save(self._record)
        except ApiError as error:
            log.warning("manifests not applied yet", extra={"error": error.message})
            return False
        for name in [name for name in self._told if name and name not in plan.troubles and name not in waiting]:
            del self._told[name]
        for name, trouble in {**waiting, **plan.troubles}.items():
            self._tell(name, trouble)
        return not waiting and not left

    async def _checked(self, files: Mapping[str, File]) -> tuple[Plan, Mapping[str, File]]:
        """The plan, once every file that is new has been through a dry run: one that is refused counts as broken, whole."""
        self._refused = {name: file for name, file in self._refused.items() if name in files and files[name].sha256 == file.sha256}
        checked = {**files, **self._refused}
        plan = plan_sync(checked, self._record)
        for ref, name, obj in plan.apply:
            known = self._record.get(name)
            if name in self._refused or (known is not None and known.sha256 == checked[name].sha256):
                continue
            try:
                await cluster.apply(self._client, ref, marked(obj, name), dry_run=True)
            except _REFUSED as error:
                if _TERMINATING in error.message:
                    continue
                text = orjson.dumps(list(checked[name].objects.values())).decode()
                self._refused[name] = replace(checked[name], objects={}, problem=f"{ref}: {error.message}", text=text)
            except (ApiError, Unknown) as error:
                log.debug("manifest not checked yet", extra={"object": str(ref), "error": str(error)})
        checked = {**files, **self._refused}
        return plan_sync(checked, self._record), checked

    async def _apply(self, plan: Plan) -> dict[str, str]:
        """What each file still waits for."""
        waiting: dict[str, str] = {}
        count = 0
        for ref, name, obj in plan.apply:
            wanted = marked(obj, name)
            data = orjson.dumps(wanted)
            if self._applied.get(ref) == data:
                continue
            try:
                await cluster.apply(self._client, ref, wanted)
            except (ApiError, Unknown) as error:
                why = f"{ref}: {error}"
                waiting[name] = f"{waiting[name]}; {why}" if name in waiting else why
                continue
            self._applied[ref] = data
            count += 1
        again = "Namespace" if waiting else ""  # it may be what is waited for: gone, or on its way out
        self._applied = {ref: data for ref, data in self._applied.items() if ref in plan.owners and ref.kind != again}
        if count:
            log.info("manifests applied", extra={"objects": count, "waiting": len(waiting)})
        return waiting

    async def _prune(self, plan: Plan, waiting: dict[str, str]) -> list[Ref]:
        """What could not be deleted yet."""
        left: list[Ref] = []
        for ref in plan.prune:
            name = next(name for name, entry in self._record.items() if ref in entry.refs)
            try:
                why = await cluster.prune(self._client, ref)
            except Forbidden as error:
                why = error.message
            except (ApiError, Unknown) as error:
                waiting[name] = f"{ref} is not deleted yet: {error}"
                left.append(ref)
                continue
            if why:
                self._event(name, "ManifestPruneSkipped", f"{ref} is declared no more by {name}, but kept: {why}")
                log.warning("object kept that no manifest declares", extra={"object": str(ref), "path": name, "why": why})
            else:
                log.info("object deleted that no manifest declares", extra={"object": str(ref), "path": name})
        return left

    def _tell(self, name: str, trouble: str) -> None:
        """Once for each trouble."""
        if self._told.get(name) != trouble:
            self._told[name] = trouble
            log.warning("manifest not applied", extra={"path": name or str(self._folder), "error": trouble})
            self._event(name, "ManifestRefused", f"{name}: {trouble}" if name else trouble)

    def _event(self, _name: str, reason: str, message: str) -> None:
        ref: Obj = {"kind": "ConfigMap", "apiVersion": "v1", "namespace": NAMESPACE, "name": NAME}
        self._recorder.event(ref, WARNING, reason, message)
