"""What an earlier life left behind: containers, sandboxes, addresses, folders, cgroups and logs of pods that nobody knows any more.

Runs once the API has said which pods this node has. Idempotent; what cannot be removed now is tried again.
"""

import asyncio
import logging
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from edgekube.kubelet.context import NodeContext
from edgekube.kubelet.podspec import GRACE_LABEL
from edgekube.kubelet.runtime.protocol import ContainerInfo, RuntimeFailure

log = logging.getLogger(__name__)

GRACE = 30.0  # of containers that do not say
PATIENCE = 10.0


async def remove_orphans(node: NodeContext, known: Collection[str]) -> None:
    """`known` are the uids of this node's pods. Returns when nothing of others is left."""
    while True:
        try:
            if await _sweep(node, known):
                return
        except (RuntimeFailure, OSError) as error:
            log.warning("orphans not removed yet", extra={"error": str(error)})
        await asyncio.sleep(PATIENCE)


async def _sweep(node: NodeContext, known: Collection[str]) -> bool:
    containers = [info for info in await node.runtime.containers() if info.pod.uid not in known]
    uids = {info.pod.uid for info in containers}
    uids |= {box.pod.uid for box in await node.runtime.sandboxes()}
    uids |= set(await node.volumes.known())
    uids |= set(await asyncio.to_thread(node.groups.pods))
    uids -= set(known)
    results = await asyncio.gather(*(_remove(node, uid, [c for c in containers if c.pod.uid == uid]) for uid in uids))
    await asyncio.to_thread(_remove_logs, node.config.pod_logs, known)
    return all(results)


async def remove_pod(node: NodeContext, uid: str) -> bool:
    """All of one pod; whether nothing is left."""
    return await _remove(node, uid, list(await node.runtime.containers(uid)))


async def _remove(node: NodeContext, uid: str, containers: Sequence[ContainerInfo]) -> bool:
    log.info("removing a pod nobody knows", extra={"uid": uid})
    await asyncio.gather(*(node.runtime.stop(info.id, float(info.labels.get(GRACE_LABEL, GRACE))) for info in containers))
    for info in containers:
        await node.runtime.remove(info.id)
    await node.network.detach(uid)
    await node.runtime.remove_sandbox(uid)
    gone = await node.volumes.remove(uid)
    return await asyncio.to_thread(node.groups.remove_pod, uid) and gone


def _remove_logs(folder: Path, known: Collection[str]) -> None:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        uid = path.name.rpartition("_")[2]
        if path.is_dir() and path.name.count("_") == 2 and uid not in known:
            shutil.rmtree(path, ignore_errors=True)


def remove_pod_logs(folder: Path, uid: str) -> None:
    """Of one pod."""
    for path in folder.glob(f"*_{uid}"):
        shutil.rmtree(path, ignore_errors=True)
