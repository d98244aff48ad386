"""What our containers do: asked once at the start, then told by their pidfds, checked against podman's list every 30 s.

Owns the mirror and the pidfds. A container that ends is settled here: what is left of it is killed, its exit code fetched, OOM looked up,
and whoever listens is told.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekube.kubelet.runtime import info as infos
from edgekube.kubelet.runtime import spec as specs
from edgekube.kubelet.runtime.cgroups import Hierarchy
from edgekube.kubelet.runtime.exits import Exits
from edgekube.kubelet.runtime.info import Ending
from edgekube.kubelet.runtime.mirror import Entry, Mirror
from edgekube.kubelet.runtime.mounts import start_time
from edgekube.kubelet.runtime.protocol import ContainerInfo, RuntimeDown, RuntimeFailure
from edgekube.kubelet.runtime.rest import RestError
from edgekube.kubelet.runtime.service import Service
from edgekube.kubelet.runtime.settings import RuntimeConfig
from edgekube.lib.tasks import TaskScope

log = logging.getLogger(__name__)

_RELIST_SECONDS = 30.0
_KNOWN_SECONDS = 10.0
_KILL_SECONDS = 30.0


class Observer:
    """Before the first list has come through, every question waits and then raises RuntimeDown: an empty answer would be a lie."""

    def __init__(self, *, config: RuntimeConfig, hierarchy: Hierarchy, service: Service) -> None:
        self._config, self._hierarchy, self._service = config, hierarchy, service
        self.mirror = Mirror(config.run_dir / "endings")
        self.exits = Exits(hierarchy, self._process_ended)
        self.synced = asyncio.Event()
        self._notify: Callable[[str, str], None] | None = None
        self._over: Callable[[str], None] = lambda container_id: None
        self._scope = TaskScope("runtime")

    async def run(self, up: asyncio.Event) -> None:
        """Keep the mirror true until cancelled."""
        self._scope = TaskScope("runtime")
        await up.wait()
        try:
            while True:
                with contextlib.suppress(RestError, RuntimeDown):
                    await self.relist()
                    self.synced.set()
                await asyncio.sleep(_RELIST_SECONDS if self.synced.is_set() else 1.0)
        finally:
            self.exits.close()
            await self._scope.close()

    def on_exit(self, notify: Callable[[str, str], None]) -> None:
        """See the Runtime protocol."""
        self._notify = notify
        for entry in self.mirror.entries.values():
            if entry.info.state == "exited":
                self.tell(entry.info)

    def on_over(self, forget: Callable[[str], None]) -> None:
        """Called with the id of a container that is over or gone, for caches."""
        self._over = forget

    async def call(self, method: str, path: str, **options: Any) -> Any:
        try:
            return await self._service.rest.call(method, path, **options)
        except RuntimeDown:
            self._service.suspect()
            raise

    async def known(self) -> None:
        if self.synced.is_set():
            return
        try:
            async with asyncio.timeout(_KNOWN_SECONDS):
                await self.synced.wait()
        except TimeoutError as error:
            raise RuntimeDown("podman has not been asked yet what runs: its service is not up") from error

    async def running(self, container_id: str) -> Entry:
        await self.known()
        entry = self.mirror.entries.get(container_id)
        if entry is None:
            raise RuntimeFailure("ContainerNotFound", f"no such container: {container_id}")
        if entry.info.state != "running":
            raise RuntimeFailure("ContainerNotRunning", f"container {container_id} is not running")
        return entry

    async def bundle(self, entry: Entry) -> Path:
        if entry.bundle is None:
            found = await self.call("GET", f"/containers/{entry.info.id}/json")
            entry.bundle = Path(found["OCIConfigPath"]).parent
        return entry.bundle

    async def refresh(self, container_id: str) -> Entry | None:
        """Ask podman about one container and take it in; watches it if it runs."""
        try:
            found = await self.call("GET", f"/containers/{container_id}/json")
        except RestError:
            return None
        info = infos.from_inspect(found, self.mirror.ending(container_id))
        entry = self._take(info, found["Config"].get("Labels") or {})
        entry.bundle = Path(found["OCIConfigPath"]).parent if found.get("OCIConfigPath") else None
        entry.program = found.get("Path") or ""
        return entry

    def _take(self, info: ContainerInfo, labels: dict[str, str]) -> Entry:
        """Into the mirror. A running one is watched; one that is over for us is told."""
        old = self.mirror.entries.get(info.id)
        if old is not None and old.info.state == "exited":
            return old
        if info.id in self.exits and old is not None:  # the pidfd knows better than a list
            return old
        entry = self.mirror.put(info, labels)
        if info.state == "running" and not self.exits.watch(info.id, info.pid):
            self._process_ended(info.id, False, False)
        elif info.state == "exited":
            self.tell(info)
        return entry

    async def relist(self) -> None:
        self.mirror.removed.clear()
        before = set(self.mirror.entries)
        query = {"all": True, "filters": {"label": [f"{specs.INSTANCE}={self._config.cgroup_root}"]}}
        found = await self.call("GET", "/containers/json", query=query) or ()
        for one in found:
            if one["Id"] not in self.mirror.removed:
                info = infos.from_list(one, self.mirror.ending(one["Id"]))
                self._take(info, one.get("Labels") or {})
        for container_id in before - {one["Id"] for one in found} - set(self._watched_of(before)):
            entry = self.mirror.entries.get(container_id)
            self.drop(container_id)
            if entry is not None:
                log.warning("container vanished", extra={"container": container_id[:12], "pod": entry.info.pod.name})
                self.tell(entry.info)
        self.mirror.sweep()

    def _watched_of(self, ids: set[str]) -> list[str]:
        return [container_id for container_id in ids if container_id in self.exits]

    def _process_ended(self, container_id: str, oom: bool, maybe_oom: bool) -> None:
        self._scope.spawn(self._settle(container_id, oom, maybe_oom), name=f"settle/{container_id[:12]}")

    async def _settle(self, container_id: str, oom: bool, maybe_oom: bool) -> None:
        """The process is gone: fetch its exit code, then tell."""
        entry = self.mirror.entries.get(container_id)
        if entry is None:
            return
        if entry.labels.get(specs.SHARED_PID) == "true":  # no init of its own takes the rest along
            await asyncio.to_thread(self._hierarchy.kill, f"{self._group(entry)}")
        code, at, known = await self._exit_code(container_id)
        oom = oom or (maybe_oom and code == 137)
        self.end(container_id, Ending(code, at.isoformat(), oom), keep=oom or not known)

    def _group(self, entry: Entry) -> str:
        parent = entry.labels.get(specs.CGROUP, "")
        return f"{parent}/libpod-{entry.info.id}"

    async def _exit_code(self, container_id: str) -> tuple[int, datetime, bool]:
        """conmon's exit file if it is there yet, else what podman says; 137 if neither will ever come (conmon was killed)."""
        file = self._config.home / "libpod" / "exits" / container_id
        delay = 0.002
        while delay < 5.0:
            with contextlib.suppress(OSError, ValueError):
                return int(file.read_text()), datetime.fromtimestamp(file.stat().st_mtime, UTC), True
            if delay > 0.02:
                with contextlib.suppress(RestError, RuntimeDown):
                    found = await self._service.rest.call("GET", f"/containers/{container_id}/json")
                    if (outcome := _outcome(found)) is not None:
                        return (*outcome, True)
                    if not start_time(int(found["State"].get("ConmonPid") or 0)):
                        break
            await asyncio.sleep(delay)
            delay *= 2
        if file.parent.is_dir():  # as conmon would have done: without it podman could neither see the end nor remove the container
            file.write_text("137")
        return 137, datetime.now(UTC), False

    async def kill(self, container_id: str, entry: Entry) -> None:
        self.exits.signal(container_id, signal.SIGKILL)
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                await entry.ended.wait()
        except TimeoutError as error:
            raise RuntimeFailure("KillContainerError", f"container {container_id[:12]} did not end 30 s after SIGKILL") from error

    def end(self, container_id: str, ending: Ending, *, keep: bool) -> None:
        """It is over, this way."""
        info = self.mirror.end(container_id, ending, keep=keep)
        self._over(container_id)
        if info is not None:
            self.tell(info)

    def drop(self, container_id: str) -> None:
        """It is gone."""
        self._over(container_id)
        self.mirror.drop(container_id)

    def tell(self, info: ContainerInfo) -> None:
        if self._notify is not None:
            asyncio.get_running_loop().call_soon(self._notify, info.pod.uid, info.id)


def _outcome(found: dict[str, Any]) -> tuple[int, datetime] | None:
    """Exit code and time of an inspected container, None while podman thinks that it runs."""
    if not infos.is_over(str(found["State"]["Status"])):
        return None
    info = infos.from_inspect(found, None)
    return info.exit_code, info.finished_at or datetime.now(UTC)
