"""One pass over one pod: observe, plan, act. worker.py decides when to pass again and when to take the pod down.

Everything here may be interrupted between steps and run again: each step looks at what is there first.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekube.api import pods as pod_facts
from edgekube.api.types import Obj
from edgekube.kubelet import hostfiles, podspec, resources, security
from edgekube.kubelet.context import Interruptible, NodeContext
from edgekube.kubelet.hostfiles import HostFiles
from edgekube.kubelet.killer import Killer
from edgekube.kubelet.messages import termination_message
from edgekube.kubelet.plan import Plan, latest, latest_ended, plan_pod
from edgekube.kubelet.restarts import CrashLoop
from edgekube.kubelet.runtime.cgroups import Limits
from edgekube.kubelet.runtime.protocol import ContainerInfo, RuntimeDown, RuntimeFailure, Sandbox, SandboxSpec
from edgekube.kubelet.starter import NOT_ALLOWED, Prepared, Starter, StartProblem, termination_file
from edgekube.kubelet.status import Observation
from edgekube.kubelet.volumes.protocol import Mounted, VolumeNotReady

log = logging.getLogger(__name__)

FIRST_RETRY, LAST_RETRY = 1.0, 60.0


class PodSync:
    """What is known of one pod between passes: its sandbox, why containers wait, when to look again."""

    def __init__(self, node: NodeContext, gate: Interruptible, sandbox: Sandbox | None) -> None:
        self._node, self._gate = node, gate
        self._starter, self.killer = Starter(node), Killer(node)
        self.sandbox = sandbox
        self.containers: Sequence[ContainerInfo] = ()
        self.waiting: dict[str, tuple[str, str]] = {}
        self._loop = CrashLoop()
        self._ended: dict[str, float] = {}  # container id -> monotonic time of its end
        self._messages: dict[str, str] = {}
        self._image_names: Mapping[str, str] = {}
        self._blocked: dict[str, float] = {}  # container name -> not before (monotonic)
        self._told: dict[str, str] = {}  # container name -> id whose back-off was told in an event
        self._retry = FIRST_RETRY
        self.due: float | None = None  # monotonic; when the next pass is needed whatever happens

    # observe

    async def observe(self, pod: Obj) -> None:
        """Look at the containers; keep what cannot be asked again later. Raises RuntimeDown."""
        node, uid = self._node, pod["metadata"]["uid"]
        self.containers = await node.runtime.containers(uid)
        newest = latest(self.containers)
        address = self.address(pod)
        now = node.clock.monotonic()
        for info in self.containers:
            container = podspec.find_container(pod, info.name)
            if info.state == "exited" and info.id not in self._ended:
                age = node.clock.age(info.finished_at, foreign=True) if info.finished_at else 0.0
                self._ended[info.id] = now - max(0.0, age)
                if container is not None:
                    file = termination_file(node.config.pods_dir, uid, info.name, info.attempt)
                    self._messages[info.id] = await asyncio.to_thread(termination_message, container, info, file)
            elif info.state == "running" and container is not None and newest[info.name] is info:
                self.waiting.pop(info.name, None)
                node.probes.watch(pod, container, info, address, old=podspec.status_of(pod, info.name))
        self._image_names = await node.images.names({info.image_id for info in self.containers if info.image_id})

    def address(self, pod: Obj) -> str:
        ips = self._node.host_ips() if podspec.host_network(pod) else self.pod_ips(pod)
        return ips[0] if ips else "127.0.0.1"

    def pod_ips(self, pod: Obj) -> Sequence[str]:
        return self._node.host_ips() if podspec.host_network(pod) else self._node.network.addresses(pod["metadata"]["uid"])

    def observation(
        self,
        pod: Obj,
        *,
        over: bool = False,
        ended: bool = False,
        failure: tuple[str, str] | None = None,
        disruption: tuple[str, str] | None = None,
    ) -> Observation:
        node, uid = self._node, pod["metadata"]["uid"]
        return Observation(
            containers=self.containers,
            sandbox=self.sandbox is not None,
            pod_ips=self.pod_ips(pod) if self.sandbox is not None else (),
            host_ips=node.host_ips(),
            now=node.clock.now(),
            started=node.probes.verdicts(uid).started,
            ready=node.probes.ready(uid),
            waiting={} if over else self.waiting,
            messages=self._messages,
            image_ids=self._image_names,
            over=over,
            ended=ended,
            failure=failure,
            disruption=disruption,
        )

    # act

    def plan(self, pod: Obj) -> Plan:
        uid = pod["metadata"]["uid"]
        before = _ended_before(pod)
        return plan_pod(pod, self.containers, self._node.probes.verdicts(uid), has_sandbox=self.sandbox is not None, ended_before=before)

    async def act(self, pod: Obj, plan: Plan) -> bool:
        """Carry the plan out; whether something was done, so that another look is due. Raises RuntimeDown."""
        ended, acted = latest_ended(self.containers), False  # what is killed now counts the next time
        if plan.kill:
            kills = []
            for kill in plan.kill:
                info = next(c for c in self.containers if c.id == kill.id)
                kills.append(self.killer.kill_container(pod, info, message=kill.message, reason=kill.reason))
            await asyncio.gather(*kills)
            acted = True
        for stale in plan.remove:
            await self._remove_attempt(stale)
            acted = True
        names = [*plan.start_ephemeral, *plan.start_init, *plan.start]
        names = [name for name in names if not self._must_wait(pod, name, ended.get(name))]
        if not names and not (plan.sandbox and self.sandbox is None):
            return acted
        if (why := self._node.may_run(pod)) is not None:
            self.waiting |= dict.fromkeys(names, (NOT_ALLOWED, why))
            return acted
        prepared = await self._prepare(pod)
        if prepared is None:
            return acted
        for name in names:
            started = await self._start(pod, name, ended.get(name), prepared)
            acted = acted or started
            if not started and name in plan.start_init and not podspec.is_sidecar(_container(pod, name)):
                break
        return acted or plan.sandbox

    async def _remove_attempt(self, container_id: str) -> None:
        """An old attempt with its log: nobody can ask for it any more."""
        info = next(one for one in self.containers if one.id == container_id)
        await self._node.runtime.remove(container_id)
        await asyncio.to_thread(_unlink_logs, info.log_path)
        self._ended.pop(container_id, None)
        self._messages.pop(container_id, None)

    def _must_wait(self, pod: Obj, name: str, last: ContainerInfo | None) -> bool:
        """In back-off after a crash, or after a failed start."""
        now = self._node.clock.monotonic()
        if self._blocked.get(name, 0.0) > now:
            self.look_at(self._blocked[name])
            return True
        if last is None or podspec.find_container(pod, name) in podspec.ephemeral_containers(pod):
            return False
        left = self._loop.remaining(name, self._ended[last.id], now)
        if left <= 0:
            return False
        delay = podspec.seconds_text(self._loop.delay(name))
        message = f"back-off {delay} restarting failed container={name} pod={podspec.described(pod)}"
        self.waiting[name] = ("CrashLoopBackOff", message)
        if self._told.get(name) != last.id:
            self._told[name] = last.id
            text = f"Back-off restarting failed container {name} in pod {podspec.described(pod)}"
            self._node.events.container(pod, name, "BackOff", text, warning=True)
        self.look_at(now + left)
        return True

    async def _start(self, pod: Obj, name: str, last: ContainerInfo | None, prepared: Prepared) -> bool:
        container, now = _container(pod, name), self._node.clock.monotonic()
        if last is not None:
            self._loop.restarted(name, self._ended[last.id], now)
        attempt = await self._attempt(pod, name)
        try:
            await self._starter.start(pod, container, attempt, prepared, self._gate)
        except StartProblem as problem:
            self.waiting[name] = (problem.reason, problem.message)
            if problem.retry > 0:
                self._blocked[name] = now + problem.retry
                self.look_at(self._blocked[name])
            return problem.retry <= 0
        self.waiting.pop(name, None)
        self._blocked.pop(name, None)
        return True

    async def _attempt(self, pod: Obj, name: str) -> int:
        """The number of the next attempt; what was made but never started is removed first."""
        uid = pod["metadata"]["uid"]
        existing = [info for info in await self._node.runtime.containers(uid) if info.name == name]
        for info in [info for info in existing if info.state == "created"]:
            await self._node.runtime.remove(info.id)
            existing.remove(info)
        if existing:
            return max(info.attempt for info in existing) + 1
        status = podspec.status_of(pod, name)
        if status is None:
            return 0
        count: int = status.get("restartCount") or 0
        return count + 1 if status.get("containerID") else count

    def unblock(self, *, everything: bool = False) -> None:
        """Something that containers waited for may have changed: try at once what failed for want of it."""
        for name in [name for name, why in self.waiting.items() if everything or why[0] in ("CreateContainerConfigError", NOT_ALLOWED)]:
            self._blocked.pop(name, None)
        self._retry = FIRST_RETRY

    def look_at(self, moment: float) -> None:
        self.due = moment if self.due is None else min(self.due, moment)

    # prepare

    async def _prepare(self, pod: Obj) -> Prepared | None:
        """Cgroup, volumes, sandbox, address, host files. None: not now, `due` says when."""
        node, uid = self._node, pod["metadata"]["uid"]
        try:
            cgroup = await asyncio.to_thread(node.groups.ensure_pod, uid, pod_facts.qos_class(pod), pod_limits(pod))
            volumes = await self.refresh_volumes(pod)
            if volumes is None:
                return None
            if self.sandbox is None:
                self.sandbox = await node.runtime.ensure_sandbox(_sandbox_spec(pod, cgroup))
            ips: Sequence[str] = ()
            if self.sandbox.net:
                with self._gate.interruptible():
                    ips = await self._attach(pod, self.sandbox.net)
            files = await asyncio.to_thread(self._write_files, pod, ips)
        except RuntimeDown:
            raise
        except (RuntimeFailure, OSError) as error:
            node.events.pod(pod, "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}", warning=True)
            self._later()
            return None
        self._retry = FIRST_RETRY
        return Prepared(sandbox=self.sandbox, cgroup=cgroup, pod_ips=ips, volumes=volumes, files=files)

    async def _attach(self, pod: Obj, netns: str) -> Sequence[str]:
        before = [entry["ip"] for entry in (pod.get("status") or {}).get("podIPs") or ()]
        try:
            return await self._node.network.attach(pod["metadata"]["uid"], netns, before)
        except Exception as error:  # whatever the kernel or the address pool refused: the pod waits and says why
            raise RuntimeFailure("NetworkNotReady", f"failed to set up the network of the pod: {error}") from error

    async def refresh_volumes(self, pod: Obj) -> Mapping[str, Mounted] | None:
        """Set up or bring up to date. None: a volume is not ready (told in an event), `due` says when to try again."""
        node = self._node
        try:
            with self._gate.interruptible():
                await node.objects.ready(pod)
                volumes = await node.volumes.ensure(pod)
        except (VolumeNotReady, TimeoutError) as error:
            text = str(error) or "timed out waiting for the objects that volumes refer to"
            node.events.pod(pod, "FailedMount", text, warning=True)
            self._later()
            return None
        due = node.volumes.next_due(pod["metadata"]["uid"])
        if due is not None:
            self.look_at(due)
        return volumes

    def _later(self) -> None:
        self.look_at(self._node.clock.monotonic() + self._retry)
        self._retry = min(LAST_RETRY, self._retry * 2)

    def _write_files(self, pod: Obj, ips: Sequence[str]) -> HostFiles:
        config = self._node.config
        host = hostfiles.parse_resolver(_read(config.resolv_conf))
        resolver = hostfiles.pod_resolver(pod, host=host, cluster_dns=config.cluster_dns, domain=config.cluster_domain)
        own = _read("/etc/hosts") if podspec.host_network(pod) else ""
        hosts = hostfiles.hosts_text(pod, ips=ips, domain=config.cluster_domain, host_file=own)
        return hostfiles.write_host_files(config.pods_dir / pod["metadata"]["uid"], hosts=hosts, resolver=resolver.text)


def _read(path: object) -> str:
    try:
        with open(str(path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _unlink_logs(path: Path) -> None:
    for one in path.parent.glob(path.name + "*"):
        one.unlink(missing_ok=True)


def _container(pod: Obj, name: str) -> Obj:
    found = podspec.find_container(pod, name)
    if found is None:
        raise KeyError(name)
    return found


def _ended_before(pod: Obj) -> dict[str, int]:
    """Exit codes the status remembers; what was running and is no longer in the runtime counts as killed."""
    status = pod.get("status") or {}
    found: dict[str, int] = {}
    for entry in [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]:
        ended = (entry.get("state") or {}).get("terminated")
        if ended is not None:
            found[entry["name"]] = int(ended.get("exitCode") or 0)
        elif "running" in (entry.get("state") or {}):
            found[entry["name"]] = 137
    return found


def pod_limits(pod: Obj) -> Limits:
    found = resources.pod_resources(pod)
    return Limits(shares=found.cpu_shares, quota=found.cpu_quota, memory=found.memory_limit)


def _sandbox_spec(pod: Obj, cgroup: str) -> SandboxSpec:
    spec = pod["spec"]
    return SandboxSpec(
        pod=podspec.ref(pod),
        hostname=hostfiles.hostname(pod),
        host_network=bool(spec.get("hostNetwork")),
        host_ipc=bool(spec.get("hostIPC")),
        host_pid=bool(spec.get("hostPID")),
        share_process_namespace=bool(spec.get("shareProcessNamespace")),
        sysctls=security.sysctls(pod),
        cgroup_parent=cgroup,
    )
