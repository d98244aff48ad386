"""What a pod needs next: its spec, the containers the runtime shows and the verdicts of the probes in, actions out. Pure.

    no sandbox        -> make one, then the first init container and the sidecars before it, or the main containers
    init containers   -> one after the other; a sidecar counts as done once it has started (its startup probe passed)
    main containers   -> all, once initialized; again by restart policy when ended, when their image changed, or when a probe says so
    nothing to keep   -> the pod is over: `finished`

Upstream: kuberuntime_manager.go computePodActions and computeInitContainerActions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgekube.api.types import Obj
from edgekube.kubelet import podspec
from edgekube.kubelet.restarts import restarts_after, restarts_init, should_restart
from edgekube.kubelet.runtime.protocol import ContainerInfo

LIVENESS, STARTUP, CHANGED, HOOK = "LivenessProbe", "StartupProbe", "ContainerChanged", "PostStartHook"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the probes have said, by container id. A container that is in neither has not been judged."""

    failed_liveness: frozenset[str] = frozenset()
    failed_startup: frozenset[str] = frozenset()
    started: frozenset[str] = frozenset()  # startup probe passed (or none)


@dataclass(frozen=True, slots=True)
class Kill:
    id: str
    name: str
    message: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """In this order: kill, sandbox, start. `finished`: nothing will ever run again, take the pod down."""

    sandbox: bool = False
    kill: Sequence[Kill] = ()
    start_init: Sequence[str] = ()
    start: Sequence[str] = ()
    start_ephemeral: Sequence[str] = ()
    remove: Sequence[str] = ()  # ids of old attempts nobody needs
    finished: bool = False

    @property
    def idle(self) -> bool:
        return not (self.sandbox or self.kill or self.start_init or self.start or self.start_ephemeral or self.remove or self.finished)


def latest(containers: Sequence[ContainerInfo]) -> dict[str, ContainerInfo]:
    """The newest attempt of each container."""
    found: dict[str, ContainerInfo] = {}
    for info in containers:
        known = found.get(info.name)
        if known is None or (info.attempt, info.created_at) > (known.attempt, known.created_at):
            found[info.name] = info
    return found


def latest_ended(containers: Sequence[ContainerInfo]) -> dict[str, ContainerInfo]:
    """The newest attempt of each container that has ended: back-off counts from there, also while a newer one runs and fails its probes."""
    return latest([info for info in containers if info.state == "exited"])


def previous(containers: Sequence[ContainerInfo], name: str) -> ContainerInfo | None:
    """The attempt before the newest, if it still exists."""
    attempts = sorted((c for c in containers if c.name == name), key=lambda c: (c.attempt, c.created_at))
    return attempts[-2] if len(attempts) > 1 else None


@dataclass(slots=True)
class _Draft:
    kill: list[Kill] = field(default_factory=list)
    init: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    over: bool = False


def plan_pod(
    pod: Obj, containers: Sequence[ContainerInfo], verdicts: Verdicts, *, has_sandbox: bool, ended_before: Mapping[str, int] | None = None
) -> Plan:
    """`ended_before`: exit codes of containers that ended and are no longer in the runtime, from the pod's status (after a reboot)."""
    gone = ended_before or {}
    newest = latest(containers)
    if not has_sandbox:
        return _plan_without_sandbox(pod, containers, newest, gone)
    draft = _Draft()
    initialized = _plan_init(pod, newest, verdicts, draft)
    if draft.over:
        return Plan(finished=True)
    keep = 0
    if initialized:
        keep = _plan_main(pod, newest, verdicts, gone, draft)
        if keep == 0 and not draft.start:
            return Plan(finished=True)
    return Plan(
        kill=tuple(draft.kill),
        start_init=tuple(draft.init),
        start=tuple(draft.start),
        start_ephemeral=_ephemeral(pod, newest),
        remove=_stale(containers),
    )


def _plan_without_sandbox(
    pod: Obj, containers: Sequence[ContainerInfo], newest: Mapping[str, ContainerInfo], gone: Mapping[str, int]
) -> Plan:
    """A new pod, or one whose sandbox is lost (reboot): everything starts again, what still runs is killed first."""
    wanted = [c["name"] for c in podspec.containers(pod) if _runs_again(pod, c, newest.get(c["name"]), gone)]
    if not wanted:
        return Plan(finished=True)
    kill = [
        Kill(info.id, info.name, "Pod sandbox changed, it will be killed and re-created.", "")
        for info in containers
        if info.state == "running"
    ]
    inits = podspec.init_containers(pod)
    if inits:
        return Plan(sandbox=True, kill=tuple(kill), start_init=(inits[0]["name"],))
    return Plan(sandbox=True, kill=tuple(kill), start=tuple(wanted), start_ephemeral=_ephemeral(pod, newest))


def _runs_again(pod: Obj, container: Obj, last: ContainerInfo | None, gone: Mapping[str, int]) -> bool:
    if last is None and container["name"] in gone:
        return not podspec.is_deleting(pod) and restarts_after(pod, container, gone[container["name"]])
    if last is not None and last.state == "running":
        return not podspec.is_deleting(pod)
    return should_restart(pod, container, last)


def _plan_init(pod: Obj, newest: Mapping[str, ContainerInfo], verdicts: Verdicts, draft: _Draft) -> bool:
    """Fill in which init containers to start; whether the main containers may run."""
    inits = podspec.init_containers(pod)
    if not inits:
        return True
    mains = [newest[c["name"]] for c in podspec.containers(pod) if c["name"] in newest]
    initialized = any(info.state in ("created", "running") for info in mains)
    done = initialized  # everything before the one at hand has been initialized
    for index in range(len(inits) - 1, -1, -1):
        container = inits[index]
        info = newest.get(container["name"])
        if info is None:
            if done and podspec.is_sidecar(container):
                draft.init.append(container["name"])
            continue
        if done and not podspec.is_sidecar(container):
            continue
        if podspec.is_sidecar(container):
            passed = _plan_sidecar(container, info, verdicts, draft)
        else:
            passed = _plan_one_init(pod, container, info, draft)
        if draft.over:
            draft.init.clear()
            return False
        if passed and not done:
            initialized = _next_after(inits, index, draft) or initialized
        done = True
    if not done:
        draft.init.append(inits[0]["name"])
    draft.init = [c["name"] for c in inits if c["name"] in set(draft.init)]
    return initialized


def _next_after(inits: Sequence[Obj], index: int, draft: _Draft) -> bool:
    """The container at `index` is done for the first time: go on with the next, or everything is initialized."""
    if index == len(inits) - 1:
        return True
    draft.init.append(inits[index + 1]["name"])
    return False


def _plan_sidecar(container: Obj, info: ContainerInfo, verdicts: Verdicts, draft: _Draft) -> bool:
    """Whether it lets the next one go."""
    name = container["name"]
    if info.state != "running":
        draft.init.append(name)
        return False
    if container.get("startupProbe") and info.id not in verdicts.started:
        if info.id in verdicts.failed_startup:
            draft.kill.append(Kill(info.id, name, f"Init container {name} failed startup probe", STARTUP))
            draft.init.append(name)
        return False
    if info.hash and info.hash != podspec.container_hash(container):
        draft.kill.append(Kill(info.id, name, f"Init container {name} definition changed", CHANGED))
        draft.init.append(name)
    elif info.id in verdicts.failed_liveness:
        draft.kill.append(Kill(info.id, name, f"Init container {name} failed liveness probe", LIVENESS))
        draft.init.append(name)
    return True


def _plan_one_init(pod: Obj, container: Obj, info: ContainerInfo, draft: _Draft) -> bool:
    if info.state == "running":
        return False
    if info.state == "created":
        draft.init.append(container["name"])
        return False
    if info.exit_code == 0:
        return True
    if restarts_init(pod, container, info.exit_code):
        draft.init.append(container["name"])
    else:
        draft.over = True
    return False


def _plan_main(pod: Obj, newest: Mapping[str, ContainerInfo], verdicts: Verdicts, gone: Mapping[str, int], draft: _Draft) -> int:
    """Fill in kills and starts of the main containers; how many go on running as they are."""
    keep = 0
    for container in podspec.containers(pod):
        name = container["name"]
        info = newest.get(name)
        if info is None or info.state != "running":
            if _runs_again(pod, container, info, gone):
                draft.start.append(name)
            continue
        why = _why_kill(pod, container, info, verdicts)
        if why is None:
            keep += 1
            continue
        message, reason, again = why
        if again:
            message += ", will be restarted"
            draft.start.append(name)
        draft.kill.append(Kill(info.id, name, message, reason))
    if draft.kill and not draft.start and keep == 0:
        keep = 1  # killed by a probe and not to be restarted: the pod ends once the kill is done
    return keep


def _why_kill(pod: Obj, container: Obj, info: ContainerInfo, verdicts: Verdicts) -> tuple[str, str, bool] | None:
    name = container["name"]
    if info.hash and info.hash != podspec.container_hash(container):
        return f"Container {name} definition changed", CHANGED, True
    again = podspec.restart_policy(pod) != "Never" if not container.get("restartPolicy") else container["restartPolicy"] != "Never"
    if info.id in verdicts.failed_liveness:
        return f"Container {name} failed liveness probe", LIVENESS, again
    if info.id in verdicts.failed_startup:
        return f"Container {name} failed startup probe", STARTUP, again
    return None


def _ephemeral(pod: Obj, newest: Mapping[str, ContainerInfo]) -> Sequence[str]:
    return tuple(c["name"] for c in podspec.ephemeral_containers(pod) if c["name"] not in newest)


def _stale(containers: Sequence[ContainerInfo]) -> Sequence[str]:
    """Ended attempts before the last but one: the last ended one stays for `lastState` and `logs --previous`."""
    stale: list[str] = []
    for name in {info.name for info in containers}:
        attempts = sorted((c for c in containers if c.name == name), key=lambda c: (c.attempt, c.created_at))
        stale += [info.id for info in attempts[:-2] if info.state != "running"]
    return tuple(stale)
