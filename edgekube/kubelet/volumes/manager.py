"""The volumes of this node's pods: set up before containers start, updated while they run, removed when they are gone.

`ensure` is idempotent and cheap when nothing changed, so a worker calls it at each pass: that is how ConfigMaps, Secrets, labels and tokens
reach a running pod. Everything that touches the file system runs in a thread. Removal: see mounting.remove_tree.
"""

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from edgekube.api import quantity
from edgekube.api.types import Obj
from edgekube.errors import ApiError
from edgekube.kubelet.objects import PodObjects
from edgekube.kubelet.podspec import described
from edgekube.kubelet.volumes import mounting, payloads, subpath
from edgekube.kubelet.volumes.hostpath import ensure_host_path
from edgekube.kubelet.volumes.payloads import Inputs
from edgekube.kubelet.volumes.protocol import Mounted, VolumeNotReady
from edgekube.kubelet.volumes.tokens import Tokens
from edgekube.kubelet.volumes.writer import BadPath, write_payload

log = logging.getLogger(__name__)

PLUGINS = {"emptyDir": "empty-dir", "configMap": "configmap", "secret": "secret", "downwardAPI": "downward-api", "projected": "projected"}


def kind_of(volume: Obj) -> str:
    """The source's field name; a volume without one is an emptyDir."""
    return next((name for name, value in volume.items() if name != "name" and value is not None), "emptyDir")


class Volumes:
    """See the module."""

    def __init__(self, *, pods_dir: Path, objects: PodObjects, tokens: Tokens, allocatable: Callable[[], Mapping[str, str]]) -> None:
        self._dir, self._objects, self._tokens, self._allocatable = pods_dir, objects, tokens, allocatable

    def pod_dir(self, uid: str) -> Path:
        return self._dir / uid

    async def ensure(self, pod: Obj) -> dict[str, Mounted]:
        """Every volume of the pod, by name. Raises VolumeNotReady naming the volume."""
        found: dict[str, Mounted] = {}
        for volume in pod["spec"].get("volumes") or ():
            try:
                found[volume["name"]] = await self._ensure_one(pod, volume)
            except (VolumeNotReady, BadPath) as error:
                raise VolumeNotReady(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
            except ApiError as error:
                raise VolumeNotReady(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error.message}') from error
            except OSError as error:
                raise VolumeNotReady(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
        return found

    async def _ensure_one(self, pod: Obj, volume: Obj) -> Mounted:
        kind, name = kind_of(volume), volume["name"]
        if kind == "hostPath":
            return Mounted(name, await asyncio.to_thread(ensure_host_path, volume["hostPath"]))
        if kind not in PLUGINS:
            raise VolumeNotReady(_unsupported(pod, volume, kind))
        path = self.pod_dir(pod["metadata"]["uid"]) / "volumes" / f"kubernetes.io~{PLUGINS[kind]}" / name
        group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
        if kind == "emptyDir":
            await asyncio.to_thread(ensure_empty_dir, path, volume.get("emptyDir") or {}, group)
            return Mounted(name, path)
        tokens = {key: await self._tokens.get(pod, *key) for key in payloads.wanted_tokens(volume)}
        inputs = Inputs(find=self._objects.find, tokens=tokens, allocatable=self._allocatable())
        files = payloads.volume_files(pod, volume, inputs) or {}

        def write() -> None:
            if kind in ("secret", "projected"):
                mounting.ensure_tmpfs(path, mode=0o1777)  # what is secret never reaches the disk
            path.mkdir(parents=True, exist_ok=True)
            write_payload(path, files, group=group)

        await asyncio.to_thread(write)
        return Mounted(name, path, read_only=True)

    def next_due(self, uid: str) -> float | None:
        """Monotonic time at which `ensure` has something to do by itself (a token to renew)."""
        return self._tokens.next_due(uid)

    async def bind_subpath(self, pod: Obj, container: str, index: int, mounted: Mounted, path: str) -> Path:
        """Where `path` inside the volume is mounted for this container. Raises SubPathRefused, OSError."""
        target = self.pod_dir(pod["metadata"]["uid"]) / "volume-subpaths" / mounted.name / container / str(index)
        await asyncio.to_thread(subpath.bind_subpath, str(mounted.path), path, target, read_only_volume=mounted.read_only)
        return target

    async def remove(self, uid: str) -> bool:
        """Take the pod's whole folder away; False if it must be tried again."""
        self._tokens.forget(uid)
        try:
            await asyncio.to_thread(mounting.remove_tree, self.pod_dir(uid))
        except (OSError, mounting.StillMounted) as error:
            log.warning("pod folder not removed", extra={"uid": uid, "error": str(error)})
            return False
        return True

    async def known(self) -> list[str]:
        """uids of pods that have a folder."""
        return await asyncio.to_thread(lambda: [path.name for path in self._dir.iterdir()] if self._dir.is_dir() else [])


def _unsupported(pod: Obj, volume: Obj, kind: str) -> str:
    if kind == "persistentVolumeClaim":
        claim = volume[kind].get("claimName")
        return f'persistentvolumeclaim "{claim}": volumes from claims are not supported by this node yet (pod {described(pod)} waits)'
    return f"volumes of type {kind} are not supported by this node (pod {described(pod)} waits)"


def ensure_empty_dir(path: Path, source: Obj, group: int | None) -> None:
    """What the pod has made of its folder since, mode and owner too, is its own."""
    if source.get("medium") == "Memory":
        limit = quantity.value(source["sizeLimit"]) if source.get("sizeLimit") else 0
        mounting.ensure_tmpfs(path, size=limit, mode=0o777)
        if group is not None and os.stat(path).st_gid != group:
            _open_to(path, group)
    elif not path.is_dir():
        made = path.with_name(f".{path.name}")  # appears with its rights, also if we are killed here
        made.mkdir(parents=True, exist_ok=True)
        _open_to(made, group)
        made.rename(path)


def _open_to(path: Path, group: int | None) -> None:
    if group is not None:
        os.chown(path, -1, group)
    path.chmod(0o777 if group is None else stat.S_ISGID | 0o777)
