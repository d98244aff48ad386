"""Static pods and their workers: which run, which wait until an older one of their name has ended, and where their status goes.

`start` once it is known what runs; `sync` whenever something may have changed. A static pod whose file was edited while nobody looked is
found by its name: what is left of the older one goes first, also with no server.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekube.api import meta
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.cache import Cache
from edgekube.client.protocol import Client
from edgekube.kubelet import podspec
from edgekube.kubelet.context import NodeContext
from edgekube.kubelet.orphans import remove_pod
from edgekube.kubelet.runtime.protocol import RuntimeFailure, Sandbox
from edgekube.kubelet.static.manifest import MIRROR, is_static
from edgekube.kubelet.static.mirrors import Mirrors
from edgekube.kubelet.static.source import StaticSource
from edgekube.kubelet.worker import PodWorker

log = logging.getLogger(__name__)

REMEMBERED_WITHIN = 3.0  # how long the start waits for the status that the API, or the disk, has of them
RETRY = 2.0


@dataclass(frozen=True, slots=True)
class Workers:
    """What the kubelet lends us."""

    add: Callable[[Obj], None]
    all: Callable[[], Mapping[str, PodWorker]]
    unclaimed: Callable[[], dict[str, Sandbox]]  # what ran before us and has no worker yet


class StaticPods:
    """See the module."""

    def __init__(self, *, node: NodeContext, client: Client, cache: Cache, workers: Workers) -> None:
        self._node, self._cache, self._workers = node, cache, workers
        self._source = StaticSource(
            folder=node.config.static_dir,
            node_name=node.config.node_name,
            clock=node.clock,
            changed=self.sync,
            broken=self._broken,
        )
        self.mirrors = Mirrors(client=client, cache=cache, node_name=node.config.node_name, pods=lambda: self._source.pods)
        self._read = asyncio.Event()
        self._started = False

    async def run(self) -> None:
        """Follow the folder and the API, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._source.run(self._read), name="static/source")
            group.create_task(self.mirrors.run(self._read), name="static/mirrors")

    async def start(self) -> None:
        """Begin; returns when nothing older is left under the names of our pods."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REMEMBERED_WITHIN):
                await self._cache.wait_synced()
        await self._read.wait()
        self._started = True
        self.sync()
        while older := self._older():
            for uid in older:
                await self._remove(uid)
            self.sync()
            if self._older():
                await asyncio.sleep(RETRY)

    async def _remove(self, uid: str) -> None:
        try:
            if await remove_pod(self._node, uid):
                self._workers.unclaimed().pop(uid, None)
        except (RuntimeFailure, OSError) as error:
            log.warning("older static pod not removed yet", extra={"uid": uid, "error": str(error)})

    def _older(self) -> list[str]:
        """uids that ran before us under the name of a static pod, and are no more it."""
        pods, left = self._source.pods, self._workers.unclaimed()
        return [uid for uid, box in left.items() if (pod := pods.get(_name(box))) is not None and pod["metadata"]["uid"] != uid]

    def sync(self) -> None:
        """Workers for the pods of the folder, an end for those of no file."""
        if not self._started:
            return
        wanted = {pod["metadata"]["uid"]: pod for pod in self._source.pods.values()}
        running = {uid: worker for uid, worker in self._workers.all().items() if is_static(worker.pod)}
        for uid, worker in running.items():
            if uid not in wanted:
                worker.gone()
            elif worker.pod["spec"] != wanted[uid]["spec"]:  # its file gives it a uid of its own
                worker.update(wanted[uid] | {"status": worker.pod["status"]})
        taken = {podspec.key(worker.pod) for worker in running.values()}
        taken |= {_name(self._workers.unclaimed()[uid]) for uid in self._older()}
        for uid, pod in wanted.items():
            if uid not in running and meta.key_of(pod) not in taken:
                self._begin(uid, pod)
        self.mirrors.kick()

    def _begin(self, uid: str, pod: Obj) -> None:
        mirror = self.mirrors.find(pod)
        self._workers.add(pod if mirror is None else pod | {"status": mirror.get("status") or pod["status"]})
        self._node.reporter.mirror(uid, mirror)

    def shows(self, item: Item) -> bool:
        """Whether the pod in the API is a mirror; then its news are taken here."""
        if MIRROR.encode() not in item.raw or MIRROR not in meta.annotations(item.decode()):
            return False
        pod = self._source.pods.get(item.key)
        if pod is not None and pod["metadata"]["uid"] in self._workers.all():
            self._node.reporter.mirror(pod["metadata"]["uid"], self.mirrors.find(pod))
        self.mirrors.kick()
        return True

    def _broken(self, path: Path, why: str) -> None:
        name = self._node.config.node_name
        self._node.events.node({"metadata": {"name": name, "uid": name}}, "StaticPodRefused", f"{path.name}: {why}", warning=True)


def _name(box: Sandbox) -> Key:
    return Key(box.pod.namespace, box.pod.name)
