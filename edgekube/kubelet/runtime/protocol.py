"""The kubelet's door to the container runtime and to the pod network. `podman.py` is the real one; tests/kit has the fake; both pass
tests/contract/runtime.py.

Names: a *sandbox* is what the containers of a pod share (pinned net, ipc, uts namespaces, /dev/shm, host files, cgroup); a *container* is
one attempt of one container of the pod. The runtime labels everything with the pod's uid, so that a restarted kubelet finds it again.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol


class RuntimeFailure(Exception):
    """The runtime refused or could not; `reason` is the word upstream's kubelet shows (CreateContainerError, RunContainerError, ...)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RuntimeDown(RuntimeFailure):
    """The runtime does not answer at all (socket gone, deadline passed): the node is not ready, pods are left alone."""

    def __init__(self, message: str) -> None:
        super().__init__("RuntimeDown", message)


@dataclass(frozen=True, slots=True)
class PodRef:
    """Which pod, for names, labels, logs and events."""

    uid: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What the containers of one pod share. Host namespaces are not pinned but the host's own."""

    pod: PodRef
    hostname: str
    host_network: bool = False
    host_ipc: bool = False
    host_pid: bool = False
    share_process_namespace: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""  # made by the kubelet's cgroup manager before


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A live sandbox. Paths are "" where the host's namespace is used."""

    pod: PodRef
    net: str
    ipc: str
    uts: str
    pid: str
    shm: Path | None
    created_at: datetime
    host_pid: bool = False  # `pid` is "" then; without it "" means a PID namespace for each container


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount of `source` (host path) at `target`; a `source` of "tmpfs" is a tmpfs with `options`."""

    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Resources:
    """As the cgroup wants them; 0 = not set. Memory in bytes, CPU quota and period in microseconds."""

    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    memory_limit: int = 0
    pids_limit: int = 0
    oom_score_adj: int = 0


@dataclass(frozen=True, slots=True)
class Security:
    user: int | None = None
    user_name: str = ""  # from the image, when it is not numeric
    group: int | None = None
    groups: Sequence[int] = ()
    privileged: bool = False
    read_only_root: bool = False
    no_new_privileges: bool = False
    capabilities_add: Sequence[str] = ()
    capabilities_drop: Sequence[str] = ()
    seccomp: str = ""  # "", "unconfined", or the path of a profile; "" is the runtime's default
    apparmor: str = ""
    selinux: Mapping[str, str] = field(default_factory=dict)
    masked_paths: bool = True  # procMount Default


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One attempt of one container, fully resolved: no reference is left to look up."""

    pod: PodRef
    name: str
    attempt: int
    image: str  # image id
    image_ref: str  # as the pod names it
    command: Sequence[str]  # entrypoint; empty: the image's
    args: Sequence[str]  # empty: the image's unless command is set
    env: Sequence[tuple[str, str]]
    working_dir: str
    mounts: Sequence[Mount]
    devices: Sequence[str]
    resources: Resources
    security: Security
    log_path: Path
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    stop_signal: str = ""
    hash: str = ""  # of the container's spec: a change means restart
    labels: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    pid_of: int = 0  # join the process namespace this process is in


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """What the runtime knows of a container. `state`: created, running, exited."""

    id: str
    pod: PodRef
    name: str
    attempt: int
    state: str
    pid: int
    image: str
    image_id: str
    hash: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    exit_code: int
    oom_killed: bool
    message: str  # start error, if any
    log_path: Path
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ImageInfo:
    id: str  # sha256:...
    tags: Sequence[str]
    digests: Sequence[str]
    size: int
    user: str
    env: Sequence[str]
    entrypoint: Sequence[str]
    command: Sequence[str]
    working_dir: str
    stop_signal: str
    volumes: Sequence[str]


class Process(Protocol):
    """A process in a container that somebody talks to: exec or attach. Close ends the conversation, not the process."""

    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader  # at EOF from the start with a tty

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, width: int, height: int) -> None: ...

    async def wait(self) -> int:
        """Exit code once it has ended (attach: of the container)."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """Usage so far of one cgroup: a container's or a pod's."""

    cpu_nanoseconds: int
    memory_usage: int
    memory_working_set: int
    memory_rss: int
    pids: int


class Runtime(Protocol):
    """Containers, sandboxes and images of this node. Every call has a deadline of its own and raises RuntimeDown when it passes."""

    async def version(self) -> tuple[str, str]:
        """Name and version, e.g. ("podman", "4.3.1"). Raises RuntimeDown: the kubelet's health check."""

    async def ensure_sandbox(self, spec: SandboxSpec) -> Sandbox:
        """Idempotent: the existing sandbox of this pod if it is whole, else a new one."""

    async def sandboxes(self) -> Sequence[Sandbox]:
        """All live ones, after a restart too."""

    async def remove_sandbox(self, uid: str) -> None:
        """Remove namespaces and shared memory; idempotent. The pod's containers must be gone."""

    async def containers(self, uid: str = "") -> Sequence[ContainerInfo]:
        """All our containers, or one pod's, every attempt that still exists."""

    async def inspect(self, container_id: str) -> ContainerInfo | None: ...

    async def create(self, spec: ContainerSpec, sandbox: Sandbox) -> str:
        """Returns the container id. Raises RuntimeFailure(CreateContainerError)."""

    async def start(self, container_id: str) -> None:
        """Raises RuntimeFailure(RunContainerError or StartError): the container is then `exited` with code 128 or 127/126."""

    async def stop(self, container_id: str, grace: float) -> None:
        """Stop signal, after `grace` seconds SIGKILL. Returns when it has ended; no error if it had."""

    async def remove(self, container_id: str) -> None:
        """Kill and remove; idempotent. The log file stays."""

    async def update(self, container_id: str, resources: Resources) -> None:
        """Change limits in place."""

    def on_exit(self, notify: Callable[[str, str], None]) -> None:
        """Call `notify(pod_uid, container_id)` on the loop when a container ends; also for those found at start."""

    async def run_command(self, container_id: str, argv: Sequence[str], *, timeout: float) -> tuple[int, bytes]:
        """Probe or lifecycle command: exit code and the first 16 KiB of its output. Raises TimeoutError (the command is killed)."""

    async def exec(self, container_id: str, argv: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Process: ...

    async def attach(self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool) -> Process: ...

    async def reopen_log(self, container_id: str) -> None:
        """After the log file was renamed: write to a new one."""

    async def stats(self, container_id: str) -> ContainerStats | None: ...

    async def images(self) -> Sequence[ImageInfo]: ...

    async def image(self, ref: str) -> ImageInfo | None:
        """By reference (short names mean docker.io/library) or id."""

    async def pull(self, ref: str, *, username: str = "", password: str = "") -> ImageInfo:
        """Raises RuntimeFailure(ErrImagePull) with the registry's words."""

    async def load_image(self, path: Path) -> Sequence[str]:
        """Import a docker or OCI archive; returns the names it had."""

    async def remove_image(self, image_id: str) -> None: ...


class PodNetwork(Protocol):
    """Gives a pinned network namespace its address. Implemented by edgekube.network, handed in by edgekube.app."""

    async def attach(self, uid: str, netns: str, wanted: Sequence[str] = ()) -> Sequence[str]:
        """Addresses (first: primary). Idempotent: the same uid gets the same address while attached, across restarts too. `wanted` is
        what the pod had before a reboot: others may still send there, so it gets that again if it is free."""

    async def detach(self, uid: str) -> None:
        """Take the address back; idempotent."""

    def addresses(self, uid: str) -> Sequence[str]: ...

    async def retain(self, uids: Sequence[str]) -> None:
        """Forget every attachment whose pod is not in `uids` (after a restart)."""
