"""Take away everything an installation made on this machine. Each step may find its work done already: an interrupted removal is completed
by running it again. Nothing is deleted below a folder in which something is still mounted.

Order: the server stops first (it would make things again), then containers, processes, namespaces, mounts, links, rules, at last files.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import orjson

from edgekube.api import quantity
from edgekube.app.paths import Paths, paths_of
from edgekube.app.removalfiles import Say, remove_files
from edgekube.config import Settings
from edgekube.kubelet.orphans import remove_pod_logs
from edgekube.kubelet.runtime.cgroups import Hierarchy, PodGroups
from edgekube.kubelet.runtime.protocol import RuntimeDown
from edgekube.kubelet.runtime.rest import RestError
from edgekube.kubelet.runtime.sandbox import Sandboxes
from edgekube.kubelet.runtime.service import Service
from edgekube.kubelet.runtime.settings import RuntimeConfig
from edgekube.lib.files import mounts_below
from edgekube.lib.process import ProgramMissing
from edgekube.netpolicy.table import remove_policies
from edgekube.network.component import remove_network
from edgekube.proxy.backend import Node
from edgekube.proxy.modes import remove_leftovers
from edgekube.store.protocol import StoreDamaged, StoreUnavailable
from edgekube.store.sqlite import open_store

_MNT_DETACH = 2
_VOLUMES = frozenset(("volumes",))


def runtime_config(settings: Settings) -> RuntimeConfig:
    """How the runtime of this installation is configured: the same for running and for removing it."""
    paths = paths_of(settings)
    return RuntimeConfig(
        data_dir=paths.data,
        run_dir=paths.run,
        log_dir=paths.pod_logs,
        link_dir=paths.container_links,
        cgroup_root=paths.cgroup_root(settings.instance),
        socket=settings.container_runtime_socket,
        registries=settings.private_registry,
        log_max_size=quantity.value(settings.container_log_max_size),
        log_max_files=settings.container_log_max_files,
    )


async def remove_all(settings: Settings, *, delete_volumes: bool, say: Say, leave: Say) -> None:
    """Everything but the running process itself. `say` gets one line for each thing removed, `leave` for each that is not."""
    paths, config = paths_of(settings), runtime_config(settings)
    hierarchy = Hierarchy()
    if config.home.exists():
        await _remove_containers(Service(config, hierarchy), say)
    groups = PodGroups(hierarchy, config.cgroup_root)
    if await asyncio.to_thread(groups.pods):
        say("cgroups of pods")
    await asyncio.to_thread(groups.remove_all)
    await asyncio.to_thread(_remove_sandboxes, Sandboxes(config.pods, hierarchy), say)
    await remove_leftovers(Node(instance=settings.instance, pods=settings.cluster_cidrs, services=settings.service_cidrs))
    with contextlib.suppress(ProgramMissing):
        await remove_policies(settings.instance)
    links = await remove_network(settings.instance)
    say(f"{links} links, the nftables table" if links else "the nftables table")
    if paths.is_default:
        uids = await known_pods(paths.database) if await asyncio.to_thread(paths.database.exists) else ()
        await asyncio.to_thread(remove_logs, paths, [*uids, *pods_on_disk(paths)])
    await asyncio.to_thread(_remove_files, settings, paths, delete_volumes, say, leave)


async def _remove_containers(service: Service, say: Say) -> None:
    """Through the service, so that podman's own book-keeping (locks in shared memory) is returned; then the service itself."""
    with contextlib.suppress(RuntimeDown, RestError, ProgramMissing):
        await service.ensure()
        found = await service.rest.call("GET", "/containers/json", query={"all": True})
        for container in found or ():
            with contextlib.suppress(RestError):
                await service.rest.call("DELETE", f"/containers/{container['Id']}", query={"force": True, "timeout": 0})
        say(f"{len(found or ())} containers")
    await service.end()


def _remove_sandboxes(sandboxes: Sandboxes, say: Say) -> None:
    found = list(sandboxes.list())
    for sandbox in found:
        sandboxes.remove(sandbox.pod.uid)
    if found:
        say(f"{len(found)} pod sandboxes")


def _remove_files(settings: Settings, paths: Paths, delete_volumes: bool, say: Say, leave: Say) -> None:
    _unmount_ours(paths)
    remove_files(settings, paths, keep=frozenset() if delete_volumes else _used(paths), say=say, leave=leave)


def _unmount_ours(paths: Paths) -> None:
    """What pods and podman have mounted. Disks that people put there are not ours."""
    libc = ctypes.CDLL(None, use_errno=True)
    pods = paths.data / "pods"  # mounted on itself, so that mounts propagate
    for folder in (paths.run, pods, paths.data / "storage"):
        for point in mounts_below(folder):
            if point != str(folder) or folder == pods:
                libc.umount2(point.encode(), _MNT_DETACH)


def _used(paths: Paths) -> frozenset[str]:
    """What must survive: volumes that hold something."""
    return _VOLUMES if any((paths.data / "volumes").glob("*")) else frozenset()


async def known_pods(database: Path) -> Sequence[str]:
    """uids of the pods in the state, which is read once more before it is deleted; none if it is beyond recovery."""
    try:
        store = await open_store(database)
    except (StoreDamaged, StoreUnavailable, OSError):
        return ()
    try:
        records, _ = store.range("pods/")
        return [orjson.loads(record.value)["metadata"]["uid"] for record in records]
    finally:
        await store.close()


def pods_on_disk(paths: Paths) -> Sequence[str]:
    """uids of the pods that have a folder here: all that an agent knows."""
    folder = paths.data / "pods"
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def remove_logs(paths: Paths, uids: Sequence[str]) -> None:
    """Logs of our pods: of those in the state, also of finished ones, and whatever links of ours point into. Then the links."""
    for uid in uids:
        remove_pod_logs(paths.pod_logs, uid)
    for link in paths.container_links.glob("*.log") if paths.container_links.is_dir() else ():
        target = Path(os.readlink(link)) if link.is_symlink() else None
        if target is not None and target.is_relative_to(paths.pod_logs):
            shutil.rmtree(target.parent.parent, ignore_errors=True)
            link.unlink(missing_ok=True)
    for folder in (paths.container_links, paths.pod_logs):
        with contextlib.suppress(OSError):
            folder.rmdir()
