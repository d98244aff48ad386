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
import logging
import os
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekube.kubelet.runtime import info as infos
from edgekube.kubelet.runtime import spec as specs
from edgekube.kubelet.runtime.cgroups import Hierarchy
from edgekube.kubelet.runtime.exits import Exits
from edgekube.kubelet.runtime.images import Images
from edgekube.kubelet.runtime.info import Ending
from edgekube.kubelet.runtime.mirror import Entry, Mirror
from edgekube.kubelet.runtime.mounts import own_capability
from edgekube.kubelet.runtime.oci import OciExec
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
from edgekube.kubelet.runtime.streams import HijackedProcess
from edgekube.lib.tasks import TaskScope

log = logging.getLogger(__name__)

_RELIST_SECONDS = 30.0
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
        self._images = Images(self._rest, config.service_socket)
        self._mirror = Mirror(config.run_dir / "endings")
        self._exits = Exits(hierarchy, self._process_ended)
        self._oci = OciExec(config.run_dir, service.enter_prefix)
        self._host = _host(config, hierarchy)
        self._notify: Callable[[str, str], None] | None = None
        self._starts = asyncio.Semaphore(_PARALLEL_STARTS)
        self._synced = asyncio.Event()
        self._scope = TaskScope("runtime")
        self._version = ""

    async def run(self, ready: asyncio.Event) -> None:
        """Ready after the first list, or after 20 s without: the node then says that its runtime is down."""
        await asyncio.to_thread(self._sandboxes.prepare)
        self._scope = TaskScope("runtime")
        up = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._service.run(up), name="runtime/service")
                group.create_task(self._relist_forever(up), name="runtime/relist")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FIRST_SECONDS):
                        await self._synced.wait()
                ready.set()
        finally:
            self._exits.close()
            await self._scope.close()
            self._rest.close()

    async def version(self) -> tuple[str, str]:
        try:
            await self._service.ping()
            if not self._version:
                self._version = str((await self._call("GET", "/version"))["Version"])
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
        await self._known()
        return self._mirror.of_pod(uid)

    async def inspect(self, container_id: str) -> ContainerInfo | None:
        await self._known()
        entry = self._mirror.entries.get(container_id)
        return entry.info if entry else None

    async def create(self, spec: ContainerSpec, sandbox: Sandbox) -> str:
        await self._known()
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
        entry = await self._refresh(answer["Id"])
        if entry is None:
            raise RuntimeFailure("CreateContainerError", "the container vanished right after it was created")
        self._link(entry.info)
        return entry.info.id

    async def start(self, container_id: str) -> None:
        await self._known()
        async with self._starts:
            try:
                await self._call("POST", f"/containers/{container_id}/start", timeout=_START_SECONDS)
            except RestError as error:
                if error.status == 404:
                    raise RuntimeFailure("RunContainerError", f"no such container: {container_id}") from error
                raise self._start_failed(container_id, str(error)) from error
            await self._refresh(container_id)

    async def stop(self, container_id: str, grace: float) -> None:
        await self._known()
        entry = self._mirror.entries.get(container_id)
        if entry is None or entry.info.state != "running":
            return
        if grace > 0:
            self._exits.signal(container_id, _signal_number(entry.labels.get(specs.STOP_SIGNAL, "")))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await entry.ended.wait()
                    return
        await self._kill(container_id, entry)

    async def remove(self, container_id: str) -> None:
        await self._known()
        entry = self._mirror.entries.get(container_id)
        if entry is not None and entry.info.state == "running":
            await self._kill(container_id, entry)
        try:
            query = {"force": True, "v": True, "timeout": 0}
            await self._call("DELETE", f"/containers/{container_id}", query=query, timeout=60.0)
        except RestError as error:
            if error.status != 404:
                raise RuntimeFailure("RemoveContainerError", f"failed to remove container {container_id[:12]}: {error}") from error
        if entry is not None:
            self._link_path(entry.info).unlink(missing_ok=True)
        self._oci.forget(container_id)
        self._mirror.drop(container_id)

    async def update(self, container_id: str, resources: Resources) -> None:
        body = specs.plan_resources(resources, self._host)
        try:
            await self._call("POST", f"/containers/{container_id}/update", body=body)
        except RestError as error:
            raise RuntimeFailure("ResizeContainerError", f"failed to update container {container_id[:12]}: {error}") from error

    def on_exit(self, notify: Callable[[str, str], None]) -> None:
        self._notify = notify
        for entry in self._mirror.entries.values():
            if entry.info.state == "exited":
                self._tell(entry.info)

    # talking to containers

    async def run_command(self, container_id: str, argv: Sequence[str], *, timeout: float) -> tuple[int, bytes]:
        entry = await self._running(container_id)
        bundle = await self._bundle(entry)
        return await self._oci.run(container_id, argv, runtime=self._service.oci_runtime, config=bundle / "config.json", timeout=timeout)

    async def exec(self, container_id: str, argv: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Process:
        await self._running(container_id)
        body: dict[str, Any] = {
            "AttachStdin": stdin,
            "AttachStdout": stdout or tty,
            "AttachStderr": stderr and not tty,
            "Tty": tty,
            "Cmd": list(argv),
        }
        if tty:
            body["Env"] = ["TERM=xterm"]
        try:
            session = (await self._call("POST", f"/containers/{container_id}/exec", body=body))["Id"]
            stream = await self._rest.hijack(f"/exec/{session}/start", body={"Detach": False, "Tty": tty}, timeout=60.0)
        except RestError as error:
            raise RuntimeFailure("ExecError", f"failed to exec in container: {error}") from error

        async def resize(width: int, height: int) -> None:
            with contextlib.suppress(RestError, RuntimeDown):  # ended meanwhile
                await self._call("POST", f"/exec/{session}/resize", query={"w": width, "h": height})

        return HijackedProcess(stream, tty=tty, resize=resize, exit_code=lambda: self._exec_code(session))

    async def attach(self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool) -> Process:
        entry = await self._running(container_id)
        tty = entry.labels.get(specs.TTY) == "true"
        query = {"stream": True, "stdin": stdin, "stdout": stdout or tty, "stderr": stderr and not tty}
        try:
            stream = await self._rest.hijack(f"/containers/{container_id}/attach", query=query)
        except RestError as error:
            raise RuntimeFailure("AttachError", f"failed to attach to container: {error}") from error

        async def resize(width: int, height: int) -> None:
            with contextlib.suppress(RestError, RuntimeDown):
                await self._call("POST", f"/containers/{container_id}/resize", query={"w": width, "h": height})

        async def exit_code() -> int:
            await entry.ended.wait()
            return entry.info.exit_code

        return HijackedProcess(stream, tty=tty, resize=resize, exit_code=exit_code)

    async def reopen_log(self, container_id: str) -> None:
        entry = await self._running(container_id)
        bundle = await self._bundle(entry)
        try:
            door = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(door, b"2 0 0\n")
            finally:
                os.close(door)
        except OSError as error:
            raise RuntimeFailure("ReopenLogError", f"conmon does not listen: {error}") from error

    async def stats(self, container_id: str) -> ContainerStats | None:
        group = self._exits.group(container_id)
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

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            return await self._rest.call(method, path, **options)
        except RuntimeDown:
            self._service.suspect()
            raise

    async def _known(self) -> None:
        if self._synced.is_set():
            return
        try:
            async with asyncio.timeout(10.0):
                await self._synced.wait()
        except TimeoutError as error:
            raise RuntimeDown("podman has not been asked yet what runs: its service is not up") from error

    async def _running(self, container_id: str) -> Entry:
        await self._known()
        entry = self._mirror.entries.get(container_id)
        if entry is None:
            raise RuntimeFailure("ContainerNotFound", f"no such container: {container_id}")
        if entry.info.state != "running":
            raise RuntimeFailure("ContainerNotRunning", f"container {container_id} is not running")
        return entry

    async def _bundle(self, entry: Entry) -> Path:
        if entry.bundle is None:
            found = await self._call("GET", f"/containers/{entry.info.id}/json")
            entry.bundle = Path(found["OCIConfigPath"]).parent
        return entry.bundle

    async def _create(self, body: dict[str, Any]) -> Any:
        try:
            return await self._call("POST", "/containers/create", body=body, timeout=60.0)
        except RestError as error:
            if "already in use" not in str(error):
                raise
        # A crash came between creating and remembering: take that one's place unless it has run.
        found = await self._call("GET", f"/containers/{body['name']}/json")
        if found["State"]["Status"] not in ("created", "configured", "initialized"):
            raise RuntimeFailure("CreateContainerError", f"a container named {body['name']} exists and has run")
        await self._call("DELETE", f"/containers/{found['Id']}", query={"force": True, "v": True}, timeout=60.0)
        self._mirror.drop(found["Id"])
        return await self._call("POST", "/containers/create", body=body, timeout=60.0)

    async def _refresh(self, container_id: str) -> Entry | None:
        """Ask podman about one container and take it in; watches it if it runs."""
        try:
            found = await self._call("GET", f"/containers/{container_id}/json")
        except RestError:
            return None
        info = infos.from_inspect(found, self._mirror.ending(container_id))
        entry = self._take(info, found["Config"].get("Labels") or {})
        entry.bundle = Path(found["OCIConfigPath"]).parent if found.get("OCIConfigPath") else None
        return entry

    def _take(self, info: ContainerInfo, labels: dict[str, str]) -> Entry:
        """Into the mirror. A running one is watched; one that is over for us is told."""
        old = self._mirror.entries.get(info.id)
        if old is not None and old.info.state == "exited":
            return old
        if info.id in self._exits and old is not None:  # the pidfd knows better than a list
            return old
        entry = self._mirror.put(info, labels)
        if info.state == "running" and not self._exits.watch(info.id, info.pid):
            self._process_ended(info.id, False, False)
        elif info.state == "exited":
            self._tell(info)
        return entry

    async def _relist_forever(self, up: asyncio.Event) -> None:
        await up.wait()
        while True:
            with contextlib.suppress(RestError, RuntimeDown):
                await self._relist()
                self._synced.set()
            await asyncio.sleep(_RELIST_SECONDS if self._synced.is_set() else 1.0)

    async def _relist(self) -> None:
        self._mirror.removed.clear()
        before = set(self._mirror.entries)
        query = {"all": True, "filters": {"label": [f"{specs.INSTANCE}={self._host.instance}"]}}
        found = await self._call("GET", "/containers/json", query=query) or ()
        for one in found:
            if one["Id"] not in self._mirror.removed:
                info = infos.from_list(one, self._mirror.ending(one["Id"]))
                self._take(info, one.get("Labels") or {})
        for container_id in before - {one["Id"] for one in found} - set(self._exits_of(before)):
            entry = self._mirror.entries.get(container_id)
            self._mirror.drop(container_id)
            if entry is not None:
                log.warning("container vanished", extra={"container": container_id[:12], "pod": entry.info.pod.name})
                self._tell(entry.info)
        self._mirror.sweep()

    def _exits_of(self, ids: set[str]) -> list[str]:
        return [container_id for container_id in ids if container_id in self._exits]

    def _process_ended(self, container_id: str, oom: bool, maybe_oom: bool) -> None:
        self._scope.spawn(self._settle(container_id, oom, maybe_oom), name=f"settle/{container_id[:12]}")

    async def _settle(self, container_id: str, oom: bool, maybe_oom: bool) -> None:
        """The process is gone: fetch its exit code, then tell."""
        entry = self._mirror.entries.get(container_id)
        if entry is None:
            return
        if entry.labels.get(specs.SHARED_PID) == "true":  # no init of its own takes the rest along
            await asyncio.to_thread(self._hierarchy.kill, f"{self._group(entry)}")
        code, at, known = await self._exit_code(container_id)
        oom = oom or (maybe_oom and code == 137)
        info = self._mirror.end(container_id, Ending(code, at.isoformat(), oom), keep=oom or not known)
        self._oci.forget(container_id)
        if info is not None:
            self._tell(info)

    def _group(self, entry: Entry) -> str:
        parent = entry.labels.get(specs.CGROUP, "")
        return f"{parent}/libpod-{entry.info.id}"

    async def _exit_code(self, container_id: str) -> tuple[int, datetime, bool]:
        """conmon's exit file if it is there yet, else what podman says; 137 after 10 s of neither (conmon itself was killed)."""
        file = self._config.home / "libpod" / "exits" / container_id
        delay = 0.002
        while delay < 5.0:
            with contextlib.suppress(OSError, ValueError):
                return int(file.read_text()), datetime.fromtimestamp(file.stat().st_mtime, UTC), True
            if delay > 0.02:
                with contextlib.suppress(RestError, RuntimeDown):
                    found = infos_state(await self._rest.call("GET", f"/containers/{container_id}/json"))
                    if found is not None:
                        return (*found, True)
            await asyncio.sleep(delay)
            delay *= 2
        return 137, datetime.now(UTC), False

    def _start_failed(self, container_id: str, text: str) -> RuntimeFailure:
        message = infos.start_message(text)
        info = self._mirror.end(container_id, Ending(128, datetime.now(UTC).isoformat(), message=message), keep=True)
        if info is not None:
            self._tell(info)
        return RuntimeFailure("RunContainerError", message)

    async def _kill(self, container_id: str, entry: Entry) -> None:
        self._exits.signal(container_id, signal.SIGKILL)
        try:
            async with asyncio.timeout(30.0):
                await entry.ended.wait()
        except TimeoutError as error:
            raise RuntimeFailure("KillContainerError", f"container {container_id[:12]} did not end 30 s after SIGKILL") from error

    async def _exec_code(self, session: str) -> int:
        delay = 0.005
        while delay < 5.0:
            try:
                found = await self._call("GET", f"/exec/{session}/json")
            except RestError as error:
                if error.status == 404:
                    break
                raise
            if not found.get("Running"):
                return int(found.get("ExitCode") or 0)
            await asyncio.sleep(delay)
            delay *= 2
        return 255

    def _tell(self, info: ContainerInfo) -> None:
        if self._notify is not None:
            asyncio.get_running_loop().call_soon(self._notify, info.pod.uid, info.id)

    def _link_path(self, info: ContainerInfo) -> Path:
        return self._config.link_dir / f"{info.pod.name}_{info.pod.namespace}_{info.name}-{info.id}.log"

    def _link(self, info: ContainerInfo) -> None:
        with contextlib.suppress(FileExistsError):
            self._config.link_dir.mkdir(parents=True, exist_ok=True)
            self._link_path(info).symlink_to(info.log_path)


def infos_state(found: dict[str, Any]) -> tuple[int, datetime] | None:
    """Exit code and time of an inspected container, None while podman thinks that it runs."""
    if not infos.is_over(str(found["State"]["Status"])):
        return None
    info = infos.from_inspect(found, None)
    return info.exit_code, info.finished_at or datetime.now(UTC)


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
