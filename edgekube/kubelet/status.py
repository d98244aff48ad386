"""What the runtime shows -> the pod's status, worded as upstream. Pure: previous status and `now` come in, a new dict goes out.

Attempts that the runtime no longer has (a reboot clears its memory) live on in the previous status: restart counts never go back.
Upstream: kubelet_pods.go generateAPIPodStatus and convertToAPIContainerStatuses, status_manager.go for times and merging.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from edgekube.api import pods as pod_facts
from edgekube.api.types import Obj
from edgekube.kubelet import conditions, podspec
from edgekube.kubelet.plan import latest, previous
from edgekube.kubelet.restarts import should_restart
from edgekube.kubelet.runtime.protocol import ContainerInfo
from edgekube.lib.clock import rfc3339

UNKNOWN = "ContainerStatusUnknown"
OURS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All a status is made of besides the pod."""

    containers: Sequence[ContainerInfo]
    sandbox: bool
    pod_ips: Sequence[str]
    host_ips: Sequence[str]
    now: datetime
    started: frozenset[str] = frozenset()  # container ids
    ready: frozenset[str] = frozenset()  # container ids
    waiting: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # container name -> why it does not start
    messages: Mapping[str, str] = field(default_factory=dict)  # container id -> termination message
    image_ids: Mapping[str, str] = field(default_factory=dict)  # image id -> as the status names it
    over: bool = False  # nothing will run (again)
    ended: bool = False  # and nothing runs any more
    failure: tuple[str, str] | None = None  # the kubelet ends the pod: reason, message
    disruption: tuple[str, str] | None = None


def pod_status(pod: Obj, seen: Observation) -> Obj:
    """The whole status."""
    old: Obj = pod.get("status") or {}
    inits = [_container_status(pod, c, seen, init=True) for c in podspec.init_containers(pod)]
    mains = [_container_status(pod, c, seen, init=False) for c in podspec.containers(pod)]
    debug = [_container_status(pod, c, seen, init=False) for c in podspec.ephemeral_containers(pod)]
    if seen.ended:
        _settle(pod, inits, mains)
    phase = conditions.pod_phase(pod, [*inits, *mains], over=seen.over)
    if old.get("phase") in ("Failed", "Succeeded"):
        phase = old["phase"]
    elif seen.failure is not None or (seen.ended and phase != "Succeeded"):
        phase = "Failed"
    status: Obj = {"observedGeneration": pod["metadata"].get("generation", 1), "phase": phase}
    status["conditions"] = _conditions(pod, old, seen, [*inits, *mains], phase)
    _explain(status, old, seen)
    _addresses(pod, status, old, seen)
    status["startTime"] = old.get("startTime") or rfc3339(seen.now)
    for name, entries in (("initContainerStatuses", inits), ("containerStatuses", mains), ("ephemeralContainerStatuses", debug)):
        if entries:
            status[name] = entries
    status["qosClass"] = old.get("qosClass") or pod_facts.qos_class(pod)
    for name in ("nominatedNodeName", "resize", "resourceClaimStatuses"):
        if name in old:
            status[name] = old[name]
    return status


def rejected_status(pod: Obj, *, reason: str, message: str, now: datetime) -> Obj:
    """A pod this node does not take."""
    old: Obj = pod.get("status") or {}
    return {
        "observedGeneration": pod["metadata"].get("generation", 1),
        "phase": "Failed",
        "conditions": old.get("conditions") or [],
        "message": message,
        "reason": reason,
        "startTime": old.get("startTime") or rfc3339(now),
        "qosClass": old.get("qosClass") or pod_facts.qos_class(pod),
    }


def _explain(status: Obj, old: Obj, seen: Observation) -> None:
    if seen.failure is not None:
        status["reason"], status["message"] = seen.failure
    elif old.get("phase") == "Failed" == status["phase"]:
        for name in ("reason", "message"):
            if old.get(name):
                status[name] = old[name]


def _addresses(pod: Obj, status: Obj, old: Obj, seen: Observation) -> None:
    if seen.host_ips:
        status["hostIP"] = seen.host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in seen.host_ips]
    ips = seen.host_ips if podspec.host_network(pod) else seen.pod_ips
    if not ips:
        ips = [entry["ip"] for entry in old.get("podIPs") or ()]
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": ip} for ip in ips]


def _conditions(pod: Obj, old: Obj, seen: Observation, statuses: Sequence[Obj], phase: str) -> list[Obj]:
    known = {entry["type"]: entry for entry in old.get("conditions") or ()}
    made = [
        conditions.condition("PodReadyToStartContainers", seen.sandbox and not seen.ended),
        conditions.initialized(pod, statuses, phase),
        conditions.pod_ready(pod, statuses, phase, list(known.values())),
        conditions.containers_ready(pod, statuses, phase),
        conditions.condition("PodScheduled", True),
    ]
    if seen.disruption is not None:
        made.append(conditions.condition("DisruptionTarget", True, *seen.disruption))
    names = {entry["type"] for entry in made}
    generation = pod["metadata"].get("generation", 1)
    stamped = [_stamped(entry, known.get(entry["type"]), generation, seen.now) for entry in made]
    return [entry for name, entry in known.items() if name not in names] + stamped


def _stamped(entry: Obj, old: Obj | None, generation: int, now: datetime) -> Obj:
    same = old is not None and old.get("status") == entry["status"]
    moment = (old or {}).get("lastTransitionTime") if same else None
    return entry | {"lastProbeTime": None, "lastTransitionTime": moment or rfc3339(now), "observedGeneration": generation}


def _container_status(pod: Obj, container: Obj, seen: Observation, *, init: bool) -> Obj:
    name = container["name"]
    old = podspec.status_of(pod, name)
    newest = latest(seen.containers).get(name)
    status = _unseen(pod, container, old) if newest is None else _seen(container, newest, old, seen, init=init)
    if (why := seen.waiting.get(name)) and (newest is None or should_restart(pod, container, newest)):
        _make_waiting(status, why)
    status["resources"] = container.get("resources") or {}
    if requests := (container.get("resources") or {}).get("requests"):
        status["allocatedResources"] = requests
    if mounts := container.get("volumeMounts"):
        status["volumeMounts"] = [_mount_status(mount) for mount in mounts]
    return status


def _mount_status(mount: Obj) -> Obj:
    found = {"name": mount["name"], "mountPath": mount["mountPath"]}
    return found | {"readOnly": True, "recursiveReadOnly": "Disabled"} if mount.get("readOnly") else found


def _blank(container: Obj) -> Obj:
    return {
        "name": container["name"],
        "state": {},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": container.get("image", ""),
        "imageID": "",
        "started": False,
    }


def _unseen(pod: Obj, container: Obj, old: Obj | None) -> Obj:
    """The runtime has no attempt of it: not yet, or no more."""
    if old is not None and "terminated" in (old.get("state") or {}):
        return {name: value for name, value in old.items() if name not in ("resources", "allocatedResources", "volumeMounts")}
    status = _blank(container)
    reason = "PodInitializing" if podspec.init_containers(pod) else "ContainerCreating"
    status["state"] = {"waiting": {"reason": reason}}
    if old is None:
        return status
    status["restartCount"] = old.get("restartCount", 0)
    status["lastState"] = old.get("lastState") or {}
    if "running" in (old.get("state") or {}) and not status["lastState"].get("terminated"):
        message = "The container could not be located when the pod was deleted.  The container used to be Running"
        status["lastState"] = {"terminated": _lost(message)}
        if not podspec.is_deleting(pod):
            status["restartCount"] += 1
    return status


def _lost(message: str) -> Obj:
    return {"exitCode": 137, "reason": UNKNOWN, "message": message, "startedAt": None, "finishedAt": None}


def _seen(container: Obj, info: ContainerInfo, old: Obj | None, seen: Observation, *, init: bool) -> Obj:
    status = _blank(container)
    status["restartCount"] = info.attempt
    status["image"] = info.image or status["image"]
    status["imageID"] = seen.image_ids.get(info.image_id, info.image_id)
    status["containerID"] = f"podman://{info.id}"
    status["state"] = _state(info, seen)
    before = previous(seen.containers, info.name)
    if before is not None and before.state == "exited":
        status["lastState"] = {"terminated": terminated(before, seen.messages)}
    elif old is not None:
        status["lastState"] = _carried(old, info)
    running = info.state == "running"
    status["started"] = running and info.id in seen.started
    status["ready"] = running and info.id in seen.ready
    if init and not podspec.is_sidecar(container):
        status["ready"] = info.state == "exited" and info.exit_code == 0
    return status


def _carried(old: Obj, info: ContainerInfo) -> Obj:
    """lastState when the attempt before is no longer in the runtime: what the status said then."""
    if old.get("containerID") == f"podman://{info.id}":
        kept: Obj = old.get("lastState") or {}
        return kept
    state = old.get("state") or {}
    if "terminated" in state:
        return {"terminated": state["terminated"]}
    if "running" in state:
        return {"terminated": _lost("The container could not be located when the pod was deleted.  The container used to be Running")}
    kept = old.get("lastState") or {}
    return kept


def _state(info: ContainerInfo, seen: Observation) -> Obj:
    if info.state == "running":
        return {"running": {"startedAt": rfc3339(info.started_at or info.created_at)}}
    if info.state == "exited":
        return {"terminated": terminated(info, seen.messages)}
    return {"waiting": {"reason": "ContainerCreating"}}


def terminated(info: ContainerInfo, messages: Mapping[str, str]) -> Obj:
    """How an attempt ended."""
    reason = "Completed" if info.exit_code == 0 else "Error"
    if info.oom_killed:
        reason = "OOMKilled"
    elif info.message and info.started_at is None:
        reason = "StartError" if info.exit_code == 128 else "ContainerCannotRun"
    ended = info.finished_at or info.created_at
    found: Obj = {
        "exitCode": info.exit_code,
        "reason": reason,
        "startedAt": rfc3339(info.started_at) if info.started_at else "1970-01-01T00:00:00Z",
        "finishedAt": rfc3339(ended),
        "containerID": f"podman://{info.id}",
    }
    message = messages.get(info.id) or info.message
    return found | {"message": message} if message else found


def _make_waiting(status: Obj, why: tuple[str, str]) -> None:
    """The container does not start (again): its last end moves to lastState."""
    if "running" in status["state"]:
        return
    if ended := status["state"].get("terminated"):
        status["lastState"] = {"terminated": ended}
    reason, message = why
    status["state"] = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
    status["ready"] = status["started"] = False


def _settle(pod: Obj, inits: Sequence[Obj], mains: Sequence[Obj]) -> None:
    """The pod is over: once it was initialized, whatever has no end is taken for lost."""
    initialized = not inits or conditions.initialized(pod, [*inits, *mains], "Pending")["status"] == "True"
    begun = [index for index, entry in enumerate(inits) if entry["state"].keys() & {"running", "terminated"} or entry["lastState"]]
    lost = list(mains) if initialized else []
    lost += inits[: begun[-1] + 1] if begun else []
    for entry in lost:
        if "terminated" not in entry["state"]:
            entry["state"] = {"terminated": _lost("The container could not be located when the pod was terminated")}
        entry["started"] = False
        if entry in mains:
            entry["ready"] = False
