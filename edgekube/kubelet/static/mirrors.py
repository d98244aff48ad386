"""Mirror pods: what the API shows of static pods. Nobody can change a static pod through them; deleting one only makes it be made again.

Reads this node's pods and its Node; creates and deletes mirror pods. Waits for the API itself: what a node remembers of it is no ground to
write. Upstream: pkg/kubelet/pod/mirror_client.go, kubelet.go tryReconcileMirrorPods.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from edgekube.api import meta
from edgekube.api.catalog import NODE, POD
from edgekube.api.types import Key, Obj
from edgekube.client.cache import Cache
from edgekube.client.protocol import Client
from edgekube.errors import AlreadyExists, ApiError, Conflict, NotFound
from edgekube.kubelet.static.manifest import HASH, MIRROR, is_mirror
from edgekube.lib.backoff import Backoff

log = logging.getLogger(__name__)


class Plan(NamedTuple):
    create: list[Obj]  # static pods without a mirror
    delete: list[Obj]  # mirrors of nothing, of an older version, or being deleted


def plan_mirrors(pods: Mapping[Key, Obj], known: Mapping[Key, Obj]) -> Plan:
    """`known` are this node's pods in the API, by name, also those that are no mirrors."""
    delete = [pod for key, pod in known.items() if is_mirror(pod) and (key not in pods or not mirrors(pod, pods[key]))]
    return Plan([pod for key, pod in pods.items() if key not in known], delete)


def mirrors(mirror: Obj, pod: Obj) -> bool:
    """Whether `mirror` is the one of this version of `pod`, and stays."""
    same = (mirror["metadata"].get("annotations") or {}).get(MIRROR) == pod["metadata"]["annotations"][HASH]
    return same and not meta.is_deleting(mirror)


def mirror_of(pod: Obj, node: Obj) -> Obj:
    """What is created in the API."""
    metadata = {name: value for name, value in pod["metadata"].items() if name not in ("uid", "creationTimestamp")}
    metadata["annotations"] = metadata["annotations"] | {MIRROR: metadata["annotations"][HASH]}
    owner = {"apiVersion": "v1", "kind": "Node", "name": node["metadata"]["name"], "uid": node["metadata"]["uid"], "controller": True}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata | {"ownerReferences": [owner]}, "spec": pod["spec"]}


class Mirrors:
    """`pods` answers the static pods as they are now."""

    def __init__(self, *, client: Client, cache: Cache, node_name: str, pods: Callable[[], Mapping[Key, Obj]]) -> None:
        self._client, self._cache, self._node_name, self._pods = client, cache, node_name, pods
        self._backoff = Backoff(base=0.5, cap=30.0, jitter=0.5)
        self._wake = asyncio.Event()

    def kick(self) -> None:
        """Something of either side changed."""
        self._wake.set()

    def find(self, pod: Obj) -> Obj | None:
        """The mirror of this static pod, if it has one."""
        item = self._cache.get(POD, meta.key_of(pod))
        found = None if item is None or MIRROR.encode() not in item.raw else item.decode()
        return found if found is not None and mirrors(found, pod) else None

    async def run(self, read: asyncio.Event) -> None:
        """Until cancelled. `read`: it is known which static pods there are."""
        await read.wait()
        await self._cache.wait_fresh()
        while True:
            self._wake.clear()
            delay = None
            try:
                await self._sync()
                self._backoff.forget("")
            except ApiError as error:
                delay = self._backoff.delay("")
                level = logging.WARNING if self._backoff.failures("") == 1 else logging.DEBUG
                log.log(level, "mirror pod not written", extra={"error": error.message})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    async def _sync(self) -> None:
        node = self._cache.get(NODE, Key("", self._node_name))
        if node is None:
            return  # its arrival kicks us
        known = {item.key: item.decode() for item in self._cache.list(POD)}
        plan = plan_mirrors(self._pods(), known)
        for mirror in plan.delete:
            about = mirror["metadata"]
            with contextlib.suppress(NotFound, Conflict):
                await self._client.delete(POD, about["name"], about["namespace"], grace_seconds=0, uid=about["uid"])
        for pod in plan.create:
            with contextlib.suppress(AlreadyExists):  # the cache will show it
                await self._client.create(POD, mirror_of(pod, node.decode()), pod["metadata"]["namespace"])
