"""The real Runtime: containers by podman's REST socket, everything around them by ourselves.

    create, start, remove, update   REST (rest.py), described by spec.py
    stop, exits                     pidfd: signals go to the process, its end wakes the loop (exits.py); then the exit code is fetched
    containers, inspect             from memory (mirror.py), checked against podman's list every 30 s
    run_command                     the OCI runtime itself (oci.py)
    exec, attach                    hijacked connections (streams.py)
    sandboxes, images, stats        sandbox.py, images.py, stats.py

Why so little podman: its list of 50 containers costs 23 ms, its event file is polled at 250 ms, its exec 86 ms of CPU; ours cost nothing,
1 ms and 6 ms. Before the first list has come through, every question waits and then raises RuntimeDown: an empty answer would be a lie.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekube.kubelet.runtime import info as infos
from edgekube.kubelet.runtime import mounts, userdata
from edgekube.kubelet.runtime import spec as specs
from edgekube.kubelet.runtime.cgroups import Hierarchy
from edgekube.kubelet.runtime.images import Images
from edgekube.kubelet.runtime.info import Ending
from edgekube.kubelet.runtime.mounts import own_capability
from edgekube.kubelet.runtime.observer import Observer
from edgekube.kubelet.runtime.protocol import (
    ContainerInfo,
    ContainerSpec,
    ContainerStats,
    ImageInfo,
    Process,
    Resources,
    RuntimeDown,
    RuntimeFailure,
    Sandbox,
    SandboxSpec,
)
from edgekube.kubelet.runtime.rest import RestError
from edgekube.kubelet.runtime.sandbox import Sandboxes
from edgekube.kubelet.runtime.service import Service
from edgekube.kubelet.runtime.settings import RuntimeConfig
from edgekube.kubelet.runtime.stats import read_stats
from edgekube.kubelet.runtime.talk import Conversations

_FIRST_SECONDS = 20.0
_START_SECONDS = 120.0
_PARALLEL_STARTS = 4
_CAP_SYS_RESOURCE = 24


class PodmanRuntime:
    """See the module's docstring; a component of its own: `run` keeps podman's service and the mirror alive."""

    name = "runtime"

    def __init__(self, *, config: RuntimeConfig, hierarchy: Hierarchy, service: Service) -> None:
        self._config, self._hierarchy, self._service = config, hierarchy, service
        self._rest = service.rest
        self._sandboxes = Sandboxes(config.pods, hierarchy)
        self._images = Images(self._rest, config)
        self._observer = Observer(config=config, hierarchy=hierarchy, service=service)
        self._talk = Conversations(config=config, service=service, observer=self._observer)
        self._host = _host(config, hierarchy)
        self._starts = asyncio.Semaphore(_PARALLEL_STARTS)
        self._version = ""

    async def run(self, ready: asyncio.Event) -> None:
        """Ready after the first list, or after 20 s without: the node then says that its runtime is down."""
        await asyncio.to_thread(self._sandboxes.prepare)
        await asyncio.to_thread(mounts.share, self._config.volumes)
        up = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._service.run(up), name="runtime/service")
                group.create_task(self._observer.run(up), name="runtime/observer")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FIRST_SECONDS):
                        await self._observer.synced.wait()
                ready.set()
        finally:
            self._rest.close()

    async def version(self) -> tuple[str, str]:
        try:
            await self._service.ping()
            if not self._version:
                self._version = str((await self._observer.call("GET", "/version"))["Version"])
        except (RuntimeDown, RestError) as error:
            self._service.suspect()
            raise RuntimeDown(str(error)) from error
        return ("podman", self._version)

    # sandboxes

    async def ensure_sandbox(self, spec: SandboxSpec) -> Sandbox:
        return await asyncio.to_thread(self._sandboxes.ensure, spec)

    async def sandboxes(self) -> Sequence[Sandbox]:
        return await asyncio.to_thread(lambda: list(self._sandboxes.list()))

    async def remove_sandbox(self, uid: str) -> None:
        await asyncio.to_thread(self._sandboxes.remove, uid)

    # containers

    async def containers(self, uid: str = "") -> Sequence[ContainerInfo]:
        await self._observer.known()
        return self._observer.mirror.of_pod(uid)

    async def inspect(self, container_id: str) -> ContainerInfo | None:
        await self._observer.known()
        entry = self._observer.mirror.entries.get(container_id)
        return entry.info if entry else None

    async def create(self, spec: ContainerSpec, sandbox: Sandbox) -> str:
        await self._observer.known()
        host_net = not sandbox.net
        body = specs.plan_create(
            spec,
            sandbox,
            self._host,
            hostname=self._sandboxes.hostname(spec.pod.uid),
            hostname_file=None if host_net else self._sandboxes.hostname_file(spec.pod.uid),
        )
        if not spec.stop_signal:
            body["labels"][specs.STOP_SIGNAL] = await self._images.stop_signal(spec.image)
        spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            answer = await self._create(body)
        except RestError as error:
            raise RuntimeFailure("CreateContainerError", str(error)) from error
        entry = await self._observer.refresh(answer["Id"])
        if entry is None:
            raise RuntimeFailure("CreateContainerError", "the container vanished right after it was created")
        self._link(entry.info)
        return entry.info.id

    async def start(self, container_id: str) -> None:
        await self._observer.known()
        async with self._starts:
            try:
                await asyncio.to_thread(userdata.keep_in_memory, container_id, storage=self._config.storage, memory=self._config.userdata)
            except OSError as error:
                raise RuntimeFailure("RunContainerError", f"its configuration can not be kept in memory: {error}") from error
            try:
                await self._observer.call("POST", f"/containers/{container_id}/start", timeout=_START_SECONDS)
            except RestError as error:
                if error.status == 404:
                    raise RuntimeFailure("RunContainerError", f"no such container: {container_id}") from error
                raise self._start_failed(container_id, str(error)) from error
            await self._observer.refresh(container_id)

    async def stop(self, container_id: str, grace: float) -> None:
        await self._observer.known()
        entry = self._observer.mirror.entries.get(container_id)
        if entry is None or entry.info.state != "running":
            return
        if grace > 0:
            self._observer.exits.signal(container_id, _signal_number(entry.labels.get(specs.STOP_SIGNAL, "")))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await entry.ended.wait()
                    return
        await self._observer.kill(container_id, entry)

    async def remove(self, container_id: str) -> None:
        await self._observer.known()
        entry = self._observer.mirror.entries.get(container_id)
        if entry is not None and entry.info.state == "running":
            await self._observer.kill(container_id, entry)
        try:
            query = {"force": True, "v": True, "timeout": 0}
            await self._observer.call("DELETE", f"/containers/{container_id}", query=query, timeout=60.0)
        except RestError as error:
            if error.status != 404:
                raise RuntimeFailure("RemoveContainerError", f"failed to remove container {container_id[:12]}: {error}") from error
        if entry is not None:
            self._link_path(entry.info).unlink(missing_ok=True)
        await asyncio.to_thread(userdata.forget, container_id, memory=self._config.userdata)
        self._observer.drop(container_id)

    async def update(self, container_id: str, resources: Resources) -> None:
        body = specs.plan_resources(resources, self._host)
        try:
            await self._observer.call("POST", f"/containers/{container_id}/update", body=body)
        except RestError as error:
            raise RuntimeFailure("ResizeContainerError", f"failed to update container {container_id[:12]}: {error}") from error

    def on_exit(self, notify: Callable[[str, str], None]) -> None:
        self._observer.on_exit(notify)

    # talking to containers

    async def run_command(self, container_id: str, argv: Sequence[str], *, timeout: float) -> tuple[int, bytes]:
        return await self._talk.run_command(container_id, argv, timeout=timeout)

    async def exec(self, container_id: str, argv: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Process:
        return await self._talk.exec(container_id, argv, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr)

    async def attach(self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool) -> Process:
        return await self._talk.attach(container_id, stdin=stdin, stdout=stdout, stderr=stderr)

    async def reopen_log(self, container_id: str) -> None:
        await self._talk.reopen_log(container_id)

    async def stats(self, container_id: str) -> ContainerStats | None:
        group = self._observer.exits.group(container_id)
        return read_stats(self._hierarchy, group) if group else None

    # images

    async def images(self) -> Sequence[ImageInfo]:
        return await self._images.list()

    async def image(self, ref: str) -> ImageInfo | None:
        return await self._images.get(ref)

    async def pull(self, ref: str, *, username: str = "", password: str = "") -> ImageInfo:
        return await self._images.pull(ref, username=username, password=password)

    async def load_image(self, path: Path) -> Sequence[str]:
        return await self._images.load(path)

    async def remove_image(self, image_id: str) -> None:
        await self._images.remove(image_id)

    # inside

    async def _create(self, body: dict[str, Any]) -> Any:
        try:
            return await self._observer.call("POST", "/containers/create", body=body, timeout=60.0)
        except RestError as error:
            if "already in use" not in str(error):
                raise
        # A crash came between creating and remembering: take that one's place unless it has run.
        found = await self._observer.call("GET", f"/containers/{body['name']}/json")
        if found["State"]["Status"] not in ("created", "configured", "initialized"):
            raise RuntimeFailure("CreateContainerError", f"a container named {body['name']} exists and has run")
        await self._observer.call("DELETE", f"/containers/{found['Id']}", query={"force": True, "v": True}, timeout=60.0)
        self._observer.mirror.drop(found["Id"])
        return await self._observer.call("POST", "/containers/create", body=body, timeout=60.0)

    def _start_failed(self, container_id: str, text: str) -> RuntimeFailure:
        entry = self._observer.mirror.entries.get(container_id)
        message = infos.start_message(text, entry.program if entry else "")
        self._observer.end(container_id, Ending(128, datetime.now(UTC).isoformat(), message=message), keep=True)
        return RuntimeFailure("RunContainerError", message)

    def _link_path(self, info: ContainerInfo) -> Path:
        return self._config.link_dir / f"{info.pod.name}_{info.pod.namespace}_{info.name}-{info.id}.log"

    def _link(self, info: ContainerInfo) -> None:
        with contextlib.suppress(FileExistsError):
            self._config.link_dir.mkdir(parents=True, exist_ok=True)
            self._link_path(info).symlink_to(info.log_path)


def _signal_number(text: str) -> int:
    """`SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`; SIGTERM for anything else."""
    name = text.upper().removeprefix("SIG")
    if name.isdigit():
        return int(name)
    base, _, offset = name.partition("+")
    try:
        return int(signal.Signals[f"SIG{base}"]) + int(offset or 0)
    except (KeyError, ValueError):
        return signal.SIGTERM


def _host(config: RuntimeConfig, hierarchy: Hierarchy) -> specs.Host:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    return specs.Host(
        instance=config.cgroup_root,
        memory=hierarchy.has("memory"),
        swap=hierarchy.swap(),
        cpu=hierarchy.has("cpu"),
        pids=hierarchy.has("pids"),
        cgroup_namespaces=hierarchy.v2,
        lowest_oom_score=-1000 if own_capability(_CAP_SYS_RESOURCE) else own,
    )
