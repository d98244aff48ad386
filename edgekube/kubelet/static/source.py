"""The folder of static pods, kept true by inotify: files ending in .yaml, .yml or .json, each one pod.

Reads the folder; writes nothing. Promises: a file that is broken changes nothing (the pod it was before goes on, a new one does not
start) and is told once per content; of two files with the same pod the first by name holds. Nothing wakes while no file changes.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekube.api import meta
from edgekube.api.types import Key, Obj
from edgekube.kubelet.static.manifest import Refused, parse
from edgekube.lib.clock import Clock, rfc3339
from edgekube.lib.inotify import FolderWatch

log = logging.getLogger(__name__)

SUFFIXES = (".yaml", ".yml", ".json")
SETTLE = 0.1  # an editor makes several changes of one
LOOK = 20.0  # where there is no inotify
LIMIT = 10 << 20


@dataclass(slots=True)
class _File:
    data: bytes
    pod: Obj | None


class StaticSource:
    """`pods` are those of the folder now, by name; `changed` is called after each change, `broken(path, why)` for each bad file."""

    def __init__(
        self, *, folder: Path, node_name: str, clock: Clock, changed: Callable[[], None], broken: Callable[[Path, str], None]
    ) -> None:
        self._folder, self._node_name, self._clock = folder, node_name, clock
        self._changed, self._broken = changed, broken
        self._files: dict[Path, _File] = {}
        self.pods: Mapping[Key, Obj] = {}

    async def run(self, ready: asyncio.Event) -> None:
        """Until cancelled; `ready` once the folder has been read. One that can not be read says nothing: what ran from it goes on."""
        while True:
            try:
                await asyncio.to_thread(self._folder.mkdir, mode=0o700, parents=True, exist_ok=True)
                with FolderWatch(self._folder) as watch:
                    while self._folder.is_dir():
                        self._take(*await asyncio.to_thread(self._look))
                        ready.set()
                        await watch.wait(None if watch.works else LOOK)
                        await asyncio.sleep(SETTLE)
            except OSError as error:
                log.warning("folder of static pods not readable", extra={"path": str(self._folder), "error": str(error)})
            await asyncio.sleep(LOOK)

    def _take(self, pods: Mapping[Key, Obj], broken: Mapping[Path, str]) -> None:
        for path, why in broken.items():
            log.warning("static pod refused", extra={"path": str(path), "error": why})
            self._broken(path, why)
        if pods != self.pods:
            self.pods = pods
            self._changed()

    def _look(self) -> tuple[Mapping[Key, Obj], Mapping[Path, str]]:
        """In a thread: the pods of the folder, and what is newly broken."""
        broken: dict[Path, str] = {}
        found: dict[str, Path] = {str(path): path for path in self._folder.iterdir() if path.suffix in SUFFIXES and path.name[0] != "."}
        for path in [path for path in self._files if str(path) not in found]:
            del self._files[path]
        for path in (found[name] for name in sorted(found)):
            if why := self._read(path):
                broken[path] = why
        pods: dict[Key, Obj] = {}
        for path in sorted(self._files):
            pod = self._files[path].pod
            if pod is not None and meta.key_of(pod) in pods:
                log.warning("static pod is there already; the file is not used", extra={"path": str(path), "pod": str(meta.key_of(pod))})
            elif pod is not None:
                pods[meta.key_of(pod)] = pod
        return pods, broken

    def _read(self, path: Path) -> str:
        """Take the file up; why not, or ""."""
        known = self._files.get(path)
        try:
            if not path.is_file():
                return ""
            if path.stat().st_size > LIMIT:
                data, why = b"", f"the file is larger than {LIMIT} bytes"
            else:
                data, why = path.read_bytes(), ""
        except OSError as error:
            data, why = b"", f"can't read the file: {error.strerror}"
        if known is not None and known.data == data:
            return ""
        pod = None if known is None else known.pod
        self._files[path] = _File(data, pod)
        if why:
            return why
        try:
            pod = parse(str(path), data, node_name=self._node_name, seen=rfc3339(self._clock.now()))
        except Refused as error:
            return str(error)
        self._files[path] = _File(data, pod)
        return ""
