"""One container up: image -> settings -> mounts -> create -> start -> postStart.

Raises StartProblem with what the container's status shows. Idempotent in effect: a container that was created but not started by a kubelet
that died is removed and made again under the same number.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekube.api.catalog import SECRET
from edgekube.api.types import Key, Obj
from edgekube.kubelet import env, hostfiles, lifecycle, podspec, resources, security
from edgekube.kubelet.context import Interruptible, NodeContext
from edgekube.kubelet.images import ImageProblem
from edgekube.kubelet.plan import latest
from edgekube.kubelet.runtime.logs import log_file
from edgekube.kubelet.runtime.protocol import ContainerSpec, ImageInfo, Mount, RuntimeDown, RuntimeFailure, Sandbox
from edgekube.kubelet.security import ConfigRefused
from edgekube.kubelet.volumes.protocol import Mounted
from edgekube.kubelet.volumes.subpath import SubPathRefused

RETRY = 10.0
NOT_ALLOWED = "NotAllowed"
HOOK_LIMIT = 3600.0
PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared"}


class StartProblem(Exception):
    """The container does not run; `reason` and `message` are its waiting state. Try again in `retry` seconds."""

    def __init__(self, reason: str, message: str, retry: float = RETRY) -> None:
        super().__init__(message)
        self.reason, self.message, self.retry = reason, message, retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a pod has ready for its containers."""

    sandbox: Sandbox
    cgroup: str
    pod_ips: Sequence[str]
    volumes: Mapping[str, Mounted]
    files: hostfiles.HostFiles


def termination_file(pods_dir: Path, uid: str, name: str, attempt: int) -> Path:
    return pods_dir / uid / "containers" / name / f"{attempt}"


class Starter:
    """See the module."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node

    async def start(self, pod: Obj, container: Obj, attempt: int, prepared: Prepared, gate: Interruptible) -> str:
        """The id of the running container. Raises StartProblem, RuntimeDown."""
        node, name = self._node, container["name"]
        try:
            with gate.interruptible():
                image = await node.images.ensure(pod, container, self._pull_secrets(pod))
        except ImageProblem as problem:
            node.events.container(pod, name, "Failed", f"Error: {problem.reason}", warning=True)
            raise StartProblem(problem.reason, problem.message, problem.retry) from problem
        try:
            with gate.interruptible():
                await node.objects.ready(pod)
            spec = await self._spec(pod, container, attempt, image, prepared)
        except TimeoutError as error:
            raise self._failed(
                pod, name, "CreateContainerConfigError", "failed to sync configmap cache: timed out waiting for the condition"
            ) from error
        except (ConfigRefused, SubPathRefused, OSError) as error:
            raise self._failed(pod, name, "CreateContainerConfigError", str(error)) from error
        if (why := node.may_run(pod)) is not None:  # the image may have taken long
            raise StartProblem(NOT_ALLOWED, why)
        return await self._run(pod, container, spec, prepared, gate)

    def _failed(self, pod: Obj, name: str, reason: str, message: str, retry: float = RETRY) -> StartProblem:
        self._node.events.container(pod, name, "Failed", f"Error: {message}", warning=True)
        return StartProblem(reason, message, retry)

    def _pull_secrets(self, pod: Obj) -> list[Obj]:
        namespace = pod["metadata"]["namespace"]
        names = [entry.get("name") or "" for entry in pod["spec"].get("imagePullSecrets") or ()]
        found = [self._node.objects.find(SECRET, Key(namespace, name)) for name in names]
        return [secret for secret in found if secret is not None]

    async def _run(self, pod: Obj, container: Obj, spec: ContainerSpec, prepared: Prepared, gate: Interruptible) -> str:
        node, name = self._node, spec.name
        try:
            container_id = await node.runtime.create(spec, prepared.sandbox)
        except RuntimeDown:
            raise
        except RuntimeFailure as error:
            raise self._failed(pod, name, error.reason, str(error)) from error
        node.events.container(pod, name, "Created", "Container created")
        try:
            await node.runtime.start(container_id)
        except RuntimeDown:
            raise
        except RuntimeFailure as error:
            raise self._failed(pod, name, "RunContainerError", str(error), 0.0) from error
        node.events.container(pod, name, "Started", "Container started")
        handler = (container.get("lifecycle") or {}).get("postStart")
        if handler:
            await self._post_start(pod, container, handler, container_id, prepared, gate)
        return container_id

    async def _post_start(self, pod: Obj, container: Obj, handler: Obj, container_id: str, prepared: Prepared, gate: Interruptible) -> None:
        node = self._node
        ips = node.host_ips() if podspec.host_network(pod) else prepared.pod_ips
        try:
            with gate.interruptible():
                await lifecycle.run_handler(pod, container, handler, container_id, runtime=node.runtime, pod_ips=ips, timeout=HOOK_LIMIT)
        except (lifecycle.HookFailed, TimeoutError) as error:
            node.events.container(pod, container["name"], "FailedPostStartHook", f"PostStartHook failed: {error}", warning=True)
            node.events.container(pod, container["name"], "Killing", "FailedPostStartHook")
            await node.runtime.stop(container_id, podspec.grace_period(pod))
            raise StartProblem("PostStartHookError", str(error), 0.0) from error

    # settings

    async def _spec(self, pod: Obj, container: Obj, attempt: int, image: ImageInfo, prepared: Prepared) -> ContainerSpec:
        node, config, ref = self._node, self._node.config, podspec.ref(pod)
        security.verify_non_root(pod, container, image)
        variables = env.environment(pod, container, self._env_sources(pod, prepared))
        values = dict(variables)
        context = security.security(pod, container, seccomp_dir=config.data_dir / "seccomp")
        return ContainerSpec(
            pod=ref,
            name=container["name"],
            attempt=attempt,
            image=image.id,
            image_ref=_shown(container.get("image") or "", image),
            command=[env.expand(part, values.get) for part in container.get("command") or ()],
            args=[env.expand(part, values.get) for part in container.get("args") or ()],
            env=variables,
            working_dir=container.get("workingDir") or "",
            mounts=await self._mounts(pod, container, attempt, prepared, values),
            devices=(),
            resources=resources.container_resources(pod, container, node_memory=node.memory),
            security=context,
            log_path=log_file(config.pod_logs, ref.namespace, ref.name, ref.uid, container["name"], attempt),
            tty=bool(container.get("tty")),
            stdin=bool(container.get("stdin")),
            stdin_once=bool(container.get("stdinOnce")),
            stop_signal=(container.get("lifecycle") or {}).get("stopSignal") or "",
            hash=podspec.container_hash(container),
            labels={podspec.GRACE_LABEL: f"{podspec.grace_period(pod):g}"},
            cgroup_parent=prepared.cgroup,
            pid_of=await self._target(pod, container),
        )

    async def _target(self, pod: Obj, container: Obj) -> int:
        """A process of the container that an ephemeral one looks into; 0: none is named."""
        name = container.get("targetContainerName")
        if not name:
            return 0
        found = latest(await self._node.runtime.containers(pod["metadata"]["uid"])).get(name)
        if found is None or found.state != "running":
            raise ConfigRefused(f"unable to find target container {name}")
        return found.pid

    def _env_sources(self, pod: Obj, prepared: Prepared) -> env.EnvSources:
        node, namespace = self._node, pod["metadata"]["namespace"]
        host = node.host_ips()
        links = pod["spec"].get("enableServiceLinks") is not False
        return env.EnvSources(
            config_map=node.objects.config_map,
            secret=node.objects.secret,
            services=env.service_variables(namespace, node.services(namespace), links=links),
            pod_ips=host if podspec.host_network(pod) else prepared.pod_ips,
            host_ips=host,
            node_name=node.config.node_name,
            allocatable=node.allocatable(),
        )

    async def _mounts(self, pod: Obj, container: Obj, attempt: int, prepared: Prepared, values: Mapping[str, str]) -> list[Mount]:
        found: list[Mount] = []
        for index, mount in enumerate(container.get("volumeMounts") or ()):
            found.append(await self._volume_mount(pod, container, index, mount, prepared, values))
        taken = {mount.target.rstrip("/") for mount in found}
        read_only = bool(security.merged(pod, container).get("readOnlyRootFilesystem"))
        if "/etc/hosts" not in taken:
            found.append(Mount(str(prepared.files.hosts), "/etc/hosts", read_only=read_only))
        if "/etc/resolv.conf" not in taken:
            found.append(Mount(str(prepared.files.resolver), "/etc/resolv.conf", read_only=read_only))
        path = container.get("terminationMessagePath") or "/dev/termination-log"
        file = termination_file(self._node.config.pods_dir, pod["metadata"]["uid"], container["name"], attempt)
        await asyncio.to_thread(_touch, file)
        found.append(Mount(str(file), path))
        return found

    async def _volume_mount(self, pod: Obj, container: Obj, index: int, mount: Obj, prepared: Prepared, values: Mapping[str, str]) -> Mount:
        volume = prepared.volumes.get(mount["name"])
        if volume is None:
            raise ConfigRefused(f'cannot find volume "{mount["name"]}" to mount into container "{container["name"]}"')
        path = mount.get("subPath") or ""
        if mount.get("subPathExpr"):
            path = env.expand(mount["subPathExpr"], values.get)
            if "$(" in path:
                raise ConfigRefused(f'cannot expand subPathExpr "{mount["subPathExpr"]}": a variable is not defined')
        source = await self._node.volumes.bind_subpath(pod, container["name"], index, volume, path) if path else volume.path
        read_only = bool(mount.get("readOnly")) or volume.read_only
        target = mount["mountPath"] if mount["mountPath"].startswith("/") else "/" + mount["mountPath"]
        return Mount(str(source), target, read_only=read_only, propagation=PROPAGATION.get(mount.get("mountPropagation") or "", "rprivate"))


def _touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    file.chmod(0o666)


def _shown(image: str, info: ImageInfo) -> str:
    """The name the status shows: the tag the runtime knows this reference by."""
    for tag in info.tags:
        if tag == image or tag.endswith("/" + image) or tag.endswith(f"/{image}:latest"):
            return tag
    return image
