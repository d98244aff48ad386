"""An in-process Runtime for kubelet tests: it knows a few commands (`sleep`, `true`, `sh -c "exit 3"`, ...) and does what the test says.

Passes tests/contract/test_runtime.py beside the real one. What a test can do: `images_known` (refs that exist; `pullable` those that can be
pulled), `exit(id, code)`, `commands[...]` (answers of run_command), `refuse[method] = RuntimeFailure(...)`, `down = True`, `calls`.
"""

import asyncio
import itertools
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekube.kubelet.runtime.protocol import (
    ContainerInfo,
    ContainerSpec,
    ContainerStats,
    ImageInfo,
    PodRef,
    Process,
    Resources,
    RuntimeDown,
    RuntimeFailure,
    Sandbox,
    SandboxSpec,
)
from edgekube.lib.clock import Clock, SystemClock

BUSYBOX = ImageInfo(
    id="sha256:" + "b" * 64, tags=("docker.io/library/busybox:test",), digests=(), size=1 << 20, user="", env=("PATH=/bin",),
    entrypoint=(), command=("sh",), working_dir="", stop_signal="", volumes=(),
)  # fmt: skip


def expand(ref: str) -> str:
    """`busybox` -> `docker.io/library/busybox:latest`."""
    first, slash, _ = ref.partition("/")
    if not slash:
        ref = f"docker.io/library/{ref}"
    elif "." not in first and ":" not in first and first != "localhost":
        ref = f"docker.io/{ref}"
    return ref if "@" in ref or ":" in ref.rpartition("/")[2] else f"{ref}:latest"


class FakeProcess:
    """A process whose answer is known at once; `cat` echoes."""

    def __init__(self, code: int, out: bytes, *, echo: bool = False) -> None:
        self.stdout, self.stderr = asyncio.StreamReader(), asyncio.StreamReader()
        self.sizes: list[tuple[int, int]] = []
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._code, self._echo = code, echo
        self.stdout.feed_data(out)
        self.stderr.feed_eof()
        if not echo:
            self.end(code)

    def end(self, code: int) -> None:
        if not self._ended.done():
            self.stdout.feed_eof()
            self._ended.set_result(code)

    async def write(self, data: bytes) -> None:
        if self._echo and not self._ended.done():
            self.stdout.feed_data(data)

    async def close_stdin(self) -> None:
        self.end(self._code)

    async def resize(self, width: int, height: int) -> None:
        self.sizes.append((width, height))

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        self.end(self._code)


@dataclass
class Running:
    """One container."""

    spec: ContainerSpec
    info: ContainerInfo
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.TimerHandle | None = None


class FakeRuntime:
    """See the module's docstring."""

    name = "runtime"

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.down = False
        self.refuse: dict[str, Exception] = {}
        self.calls: list[tuple[str, str]] = []
        self.attached: list[tuple[str, FakeProcess]] = []
        self.commands: dict[tuple[str, ...], tuple[int, bytes]] = {}
        self.images_known: dict[str, ImageInfo] = {"docker.io/library/busybox:test": BUSYBOX}
        self.pullable: dict[str, ImageInfo] = {}
        self.ignores_term: set[str] = set()  # container names that end only by SIGKILL
        self.ran: dict[str, Running] = {}
        self._boxes: dict[str, Sandbox] = {}
        self._notify: Callable[[str, str], None] = lambda uid, cid: None
        self._ids = itertools.count(1)

    async def run(self, ready: asyncio.Event) -> None:
        ready.set()
        await asyncio.Event().wait()

    def _call(self, method: str, what: str = "") -> None:
        self.calls.append((method, what))
        if self.down:
            raise RuntimeDown("the fake runtime is down")
        if method in self.refuse:
            raise self.refuse[method]

    async def version(self) -> tuple[str, str]:
        self._call("version")
        return ("fake", "1.0")

    async def ensure_sandbox(self, spec: SandboxSpec) -> Sandbox:
        self._call("ensure_sandbox", spec.pod.uid)
        if spec.pod.uid not in self._boxes:
            base = f"/fake/{spec.pod.uid}"
            self._boxes[spec.pod.uid] = Sandbox(
                pod=spec.pod,
                net="" if spec.host_network else f"{base}/net",
                ipc="" if spec.host_ipc else f"{base}/ipc",
                uts="" if spec.host_network else f"{base}/uts",
                pid=f"{base}/pid" if spec.share_process_namespace and not spec.host_pid else "",
                shm=None if spec.host_ipc else Path(base, "shm"),
                created_at=self.clock.now(),
                host_pid=spec.host_pid,
            )
        return self._boxes[spec.pod.uid]

    async def sandboxes(self) -> Sequence[Sandbox]:
        self._call("sandboxes")
        return list(self._boxes.values())

    async def remove_sandbox(self, uid: str) -> None:
        self._call("remove_sandbox", uid)
        self._boxes.pop(uid, None)

    async def containers(self, uid: str = "") -> Sequence[ContainerInfo]:
        self._call("containers", uid)
        return [one.info for one in self.ran.values() if not uid or one.info.pod.uid == uid]

    async def inspect(self, container_id: str) -> ContainerInfo | None:
        self._call("inspect", container_id)
        found = self.ran.get(container_id)
        return found.info if found else None

    async def create(self, spec: ContainerSpec, sandbox: Sandbox) -> str:
        self._call("create", spec.name)
        image = next((one for one in self.images_known.values() if one.id == spec.image), None)
        if image is None:
            raise RuntimeFailure("CreateContainerError", f"{spec.image}: image not known")
        number = next(self._ids)
        container_id = f"{number:064x}"
        spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        info = ContainerInfo(
            id=container_id, pod=spec.pod, name=spec.name, attempt=spec.attempt, state="created", pid=0, image=spec.image_ref,
            image_id=spec.image, hash=spec.hash, created_at=self.clock.now(), started_at=None, finished_at=None, exit_code=0,
            oom_killed=False, message="", log_path=spec.log_path, labels=dict(spec.labels),
        )  # fmt: skip
        self.ran[container_id] = Running(spec, info)
        return container_id

    def _one(self, container_id: str) -> Running:
        if container_id not in self.ran:
            raise RuntimeFailure("ContainerNotFound", f"no container {container_id}")
        return self.ran[container_id]

    async def start(self, container_id: str) -> None:
        self._call("start", container_id)
        one = self._one(container_id)
        if one.info.state != "created":
            return
        image = next((image for image in self.images_known.values() if image.id == one.spec.image), BUSYBOX)
        command = [*one.spec.command, *one.spec.args] if one.spec.command else [*image.entrypoint, *(one.spec.args or image.command)]
        now = self.clock.now()
        if command and not re.fullmatch(r"(/bin/)?(sh|sleep|true|false|echo|cat|httpd|nc|env|id)", command[0]):
            text = f'exec: "{command[0]}": executable file not found in $PATH'
            one.info = replace(one.info, state="exited", exit_code=128, message=text, finished_at=now)
            one.ended.set()
            raise RuntimeFailure("RunContainerError", text)
        one.info = replace(one.info, state="running", pid=4_000_000 + int(container_id, 16), started_at=now)
        loop = asyncio.get_running_loop()
        code, lasts, out = _behaviour(command)
        if out:
            with one.spec.log_path.open("ab") as log:
                log.write(f"{now:%Y-%m-%dT%H:%M:%S.%f}000+00:00 stdout F ".encode() + out + b"\n")
        if lasts is not None:
            one.timer = loop.call_later(lasts, self.exit, container_id, code)

    def exit(self, container_id: str, code: int, *, oom: bool = False) -> None:
        """The container ends by itself."""
        one = self.ran.get(container_id)
        if one is None or one.info.state != "running":
            return
        if one.timer is not None:
            one.timer.cancel()
        one.info = replace(one.info, state="exited", pid=0, exit_code=code, oom_killed=oom, finished_at=self.clock.now())
        for process in [process for attached, process in self.attached if attached == container_id]:
            process.end(code)
        one.ended.set()
        asyncio.get_running_loop().call_soon(self._notify, one.info.pod.uid, container_id)

    async def stop(self, container_id: str, grace: float) -> None:
        self._call("stop", container_id)
        one = self.ran.get(container_id)
        if one is None or one.info.state != "running":
            return
        if one.info.name in self.ignores_term and grace > 0:
            try:
                async with asyncio.timeout(grace):
                    await one.ended.wait()
            except TimeoutError:
                pass
            else:
                return
        killed = one.info.name in self.ignores_term or grace <= 0
        self.exit(container_id, 128 + (signal.SIGKILL if killed else signal.SIGTERM))

    async def remove(self, container_id: str) -> None:
        self._call("remove", container_id)
        self.exit(container_id, 137)
        self.ran.pop(container_id, None)

    async def update(self, container_id: str, resources: Resources) -> None:
        self._call("update", container_id)
        one = self._one(container_id)
        one.spec = replace(one.spec, resources=resources)

    def on_exit(self, notify: Callable[[str, str], None]) -> None:
        self._notify = notify

    def _answer(self, argv: Sequence[str]) -> tuple[int, bytes]:
        if tuple(argv) in self.commands:
            return self.commands[tuple(argv)]
        code, _, out = _behaviour(argv)
        return code, out + b"\n" if out else b""

    async def run_command(self, container_id: str, argv: Sequence[str], *, timeout: float) -> tuple[int, bytes]:
        self._call("run_command", container_id)
        if self._one(container_id).info.state != "running":
            raise RuntimeFailure("ContainerNotRunning", f"container {container_id} is not running")
        lasts = _behaviour(argv)[1] if tuple(argv) not in self.commands else 0
        if lasts is None or lasts > timeout:
            await asyncio.sleep(timeout)
            raise TimeoutError(f"command timed out after {timeout:g} s")
        await asyncio.sleep(lasts)
        return self._answer(argv)

    async def exec(self, container_id: str, argv: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Process:
        self._call("exec", container_id)
        if self._one(container_id).info.state != "running":
            raise RuntimeFailure("ContainerNotRunning", f"container {container_id} is not running")
        return FakeProcess(*self._answer(argv), echo=list(argv) == ["cat"] and stdin)

    async def attach(self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool) -> Process:
        self._call("attach", container_id)
        self._one(container_id)
        process = FakeProcess(0, b"", echo=True)
        self.attached.append((container_id, process))
        return process

    async def reopen_log(self, container_id: str) -> None:
        self._call("reopen_log", container_id)
        self._one(container_id).spec.log_path.touch()

    async def stats(self, container_id: str) -> ContainerStats | None:
        one = self.ran.get(container_id)
        return ContainerStats(1_000_000, 1 << 20, 1 << 20, 1 << 20, 1) if one and one.info.state == "running" else None

    async def images(self) -> Sequence[ImageInfo]:
        self._call("images")
        return list({image.id: image for image in self.images_known.values()}.values())

    async def image(self, ref: str) -> ImageInfo | None:
        self._call("image", ref)
        bare = ref.removeprefix("sha256:")
        by_id = next((one for one in self.images_known.values() if bare and one.id.removeprefix("sha256:").startswith(bare)), None)
        return self.images_known.get(ref) or self.images_known.get(expand(ref)) or by_id

    async def pull(self, ref: str, *, username: str = "", password: str = "") -> ImageInfo:
        self._call("pull", ref)
        name = expand(ref)
        found = self.pullable.get(name) or self.pullable.get(ref)
        if found is None:
            raise RuntimeFailure("ErrImagePull", f'failed to pull image "{ref}": {name}: not found')
        self.images_known[name] = found
        return found

    async def load_image(self, path: Path) -> Sequence[str]:
        self._call("load_image", str(path))
        if not await asyncio.to_thread(path.exists):
            raise RuntimeFailure("ImageLoadError", f"{path}: no such file")
        self.images_known["docker.io/library/busybox:test"] = BUSYBOX
        return ["docker.io/library/busybox:test"]

    async def remove_image(self, image_id: str) -> None:
        self._call("remove_image", image_id)
        if any(one.spec.image == image_id for one in self.ran.values()):
            raise RuntimeFailure("ImageInUse", f"image {image_id} is in use by a container")
        self.images_known = {ref: one for ref, one in self.images_known.items() if one.id != image_id}


def _behaviour(command: Sequence[str]) -> tuple[int, float | None, bytes]:
    """Exit code, seconds it lasts (None: until stopped) and output of a known command."""
    program = command[0].removeprefix("/bin/") if command else "sh"
    if program in ("true", "false"):
        return int(program == "false"), 0.0, b""
    if program == "sleep":
        return 0, None if command[1] in ("inf", "infinity") else float(command[1]), b""
    if program == "echo":
        return 0, 0.0, " ".join(command[1:]).encode()
    if program == "sh" and len(command) > 2:
        return _script(command[2])
    return (0, 0.0, b"") if program == "sh" else (0, None, b"")


def _script(text: str) -> tuple[int, float | None, bytes]:
    code, lasts = 0, 0.0
    out: list[bytes] = []
    for part in filter(None, (piece.strip() for piece in re.split(r";|&&|\n", text))):
        word, _, rest = part.partition(" ")
        if word == "exit":
            return int(rest or 0), lasts, b"\n".join(out)
        if word in ("sleep", "while", "wait"):
            if word != "sleep" or rest in ("inf", "infinity"):
                return 0, None, b"\n".join(out)
            lasts += float(rest)
        elif word == "echo":
            out.append(rest.strip("'\"").encode())
    return code, lasts, b"\n".join(out)


def pod_ref(name: str = "web", namespace: str = "default") -> PodRef:
    return PodRef(uid=f"uid-{namespace}-{name}", namespace=namespace, name=name)


def _check(runtime: FakeRuntime) -> Any:
    """For the type checker only: the fake is a Runtime."""
    from edgekube.kubelet.runtime.protocol import Runtime

    checked: Runtime = runtime
    return checked
