"""A real PodmanRuntime in folders of its own, and its complete removal afterwards."""

import asyncio
import contextlib
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgekube.kubelet.runtime import mounts
from edgekube.kubelet.runtime.cgroups import Hierarchy, PodGroups
from edgekube.kubelet.runtime.podman import PodmanRuntime
from edgekube.kubelet.runtime.protocol import ContainerSpec, PodRef, Resources, Runtime, Sandbox, SandboxSpec, Security
from edgekube.kubelet.runtime.service import Service
from edgekube.kubelet.runtime.settings import RuntimeConfig
from edgekube.lib.tasks import TaskScope
from tests.kit.processes import command_lines


@dataclass(frozen=True)
class Place:
    """Where one test installation lives."""

    base: Path
    config: RuntimeConfig
    hierarchy: Hierarchy
    groups: PodGroups

    def runtime(self, *, patience: float = 10.0) -> PodmanRuntime:
        service = Service(self.config, self.hierarchy, patience=patience)
        return PodmanRuntime(config=self.config, hierarchy=self.hierarchy, service=service)


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """Folders and a cgroup root; at the end everything in them is killed, unmounted and deleted."""
    name = uuid.uuid4().hex[:8]
    base = Path(f"/tmp/ekt-runtime-{name}")
    base.mkdir()
    hierarchy = Hierarchy(service=f"edgekube-{name}")
    config = RuntimeConfig(
        data_dir=base / "data", run_dir=base / "run", log_dir=base / "log", link_dir=base / "links", cgroup_root=f"kubepods-{name}",
        registries=base / "registries.yaml",
    )
    found = Place(base, config, hierarchy, PodGroups(hierarchy, config.cgroup_root))
    try:
        yield found
    finally:
        wipe(found)


def wipe(found: Place) -> None:
    """Containers through podman (it returns their locks), then processes, groups, mounts, files."""
    service = Service(found.config, found.hierarchy)

    async def containers() -> None:
        await service.ensure()
        for one in await service.rest.call("GET", "/containers/json", query={"all": True}) or ():
            await service.rest.call("DELETE", f"/containers/{one['Id']}", query={"force": True, "timeout": 0, "v": True})
        await service.end()

    if found.config.home.exists():
        with ThreadPoolExecutor(1) as threads:  # a test may stand inside of a loop
            threads.submit(asyncio.run, containers()).result()
    found.groups.remove_all()
    for pid in _processes(str(found.base)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    unmount_below(found.base)
    shutil.rmtree(found.base, ignore_errors=True)


def unmount_below(base: Path) -> None:
    """Everything mounted in `base`."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for target in sorted((line.split()[4] for line in lines if line.split()[4].startswith(str(base))), reverse=True):
        mounts.unmount(target)


def _processes(text: str) -> Iterator[int]:
    for pid, args in command_lines():
        if text in args:
            yield pid


@contextlib.asynccontextmanager
async def running(runtime: PodmanRuntime) -> AsyncIterator[PodmanRuntime]:
    """The component at work; leaving stops it as a shutdown would, containers stay."""
    async with TaskScope("test") as scope:
        ready = asyncio.Event()
        task = scope.spawn(runtime.run(ready), name="runtime")
        started = scope.spawn(ready.wait(), name="ready")
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield runtime
        task.cancel()
        await asyncio.wait({task})


async def make_pod(
    runtime: Runtime,
    name: str,
    *,
    groups: PodGroups | None = None,
    hostname: str = "",
    host_network: bool = False,
    shared_pid: bool = False,
    sysctls: Mapping[str, str] | None = None,
) -> Sandbox:
    """A sandbox."""
    ref = PodRef(uid=f"uid-{name}-{uuid.uuid4().hex[:6]}", namespace="default", name=name)
    parent = ""
    if groups is not None:
        from edgekube.kubelet.runtime.cgroups import Limits

        parent = groups.ensure_pod(ref.uid, "Burstable", Limits(shares=100))
    spec = SandboxSpec(
        pod=ref,
        hostname=hostname or name,
        host_network=host_network,
        share_process_namespace=shared_pid,
        sysctls=sysctls or {},
        cgroup_parent=parent,
    )
    return await runtime.ensure_sandbox(spec)


def container(
    sandbox: Sandbox,
    image: str,
    command: list[str],
    *,
    log_dir: Path,
    name: str = "main",
    attempt: int = 0,
    groups: PodGroups | None = None,
    resources: Resources | None = None,
    security: Security | None = None,
    **more: object,
) -> ContainerSpec:
    """A spec with what every test wants."""
    values: dict[str, object] = {
        "pod": sandbox.pod,
        "name": name,
        "attempt": attempt,
        "image": image,
        "image_ref": "busybox:test",
        "command": command,
        "args": [],
        "env": [],
        "working_dir": "",
        "mounts": [],
        "devices": [],
        "resources": resources or Resources(),
        "security": security or Security(seccomp="unconfined"),
        "log_path": log_dir / f"default_{sandbox.pod.name}_{sandbox.pod.uid}" / name / f"{attempt}.log",
        "hash": "h1",
        "cgroup_parent": groups.path(sandbox.pod.uid, "Burstable") if groups is not None else "",
        **more,
    }
    return ContainerSpec(**values)
