"""Pod conditions and the phase, worded as upstream (pkg/kubelet/status/generate.go, kubelet_pods.go getPhase). Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgekube.api.types import Obj
from edgekube.kubelet.podspec import containers, init_containers, is_sidecar, listed, restart_policy

Entry = Mapping[str, Any]


def condition(kind: str, ok: bool, reason: str = "", message: str = "") -> Obj:
    found: Obj = {"type": kind, "status": "True" if ok else "False"}
    if reason:
        found["reason"] = reason
    if message:
        found["message"] = message
    return found


def _by_name(statuses: Sequence[Entry]) -> dict[str, Entry]:
    return {entry["name"]: entry for entry in statuses}


def any_main_started(pod: Obj, statuses: Sequence[Entry]) -> bool:
    """Whether a main container runs or has run: then the pod was initialized once."""
    known = _by_name(statuses)
    for container in containers(pod):
        entry = known.get(container["name"])
        if entry is None:
            continue
        state, last = entry.get("state") or {}, entry.get("lastState") or {}
        if "running" in state or "terminated" in state or "terminated" in last:
            return True
    return False


def containers_ready(pod: Obj, statuses: Sequence[Entry], phase: str) -> Obj:
    known = _by_name(statuses)
    wanted = [c for c in init_containers(pod) if is_sidecar(c)] + list(containers(pod))
    unknown = [c["name"] for c in wanted if c["name"] not in known]
    unready = [c["name"] for c in wanted if c["name"] in known and not known[c["name"]].get("ready")]
    if phase == "Succeeded" and not unknown:
        return condition("ContainersReady", False, "PodCompleted")
    if phase == "Failed":
        return condition("ContainersReady", False, "PodFailed")
    messages = [f"containers with unknown status: {listed(unknown)}"] if unknown else []
    messages += [f"containers with unready status: {listed(unready)}"] if unready else []
    if messages:
        return condition("ContainersReady", False, "ContainersNotReady", ", ".join(messages))
    return condition("ContainersReady", True)


def pod_ready(pod: Obj, statuses: Sequence[Entry], phase: str, known: Sequence[Entry]) -> Obj:
    """`known` are the pod's conditions, for the readiness gates."""
    inner = containers_ready(pod, statuses, phase)
    if inner["status"] != "True":
        return inner | {"type": "Ready"}
    found = {entry["type"]: entry for entry in known}
    messages = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        entry = found.get(kind)
        if entry is None:
            messages.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif entry.get("status") != "True":
            messages.append(f'the status of pod readiness gate "{kind}" is not "True", but {entry.get("status")}')
    if messages:
        return condition("Ready", False, "ReadinessGatesNotReady", ", ".join(messages))
    return condition("Ready", True)


def initialized(pod: Obj, statuses: Sequence[Entry], phase: str) -> Obj:
    known = _by_name(statuses)
    inits = init_containers(pod)
    unknown = [c["name"] for c in inits if c["name"] not in known]
    incomplete = [c["name"] for c in inits if c["name"] in known and not known[c["name"]].get("started" if is_sidecar(c) else "ready")]
    if phase == "Succeeded" and not unknown:
        return condition("Initialized", True, "PodCompleted")
    if any_main_started(pod, statuses):
        return condition("Initialized", True)
    messages = [f"containers with unknown status: {listed(unknown)}"] if unknown else []
    messages += [f"containers with incomplete status: {listed(incomplete)}"] if incomplete else []
    if messages:
        return condition("Initialized", False, "ContainersNotInitialized", ", ".join(messages))
    return condition("Initialized", True)


def _init_counts(pod: Obj, known: Mapping[str, Entry]) -> tuple[int, int]:
    """Regular init containers: still pending, failed."""
    pending = failed = 0
    for container in init_containers(pod):
        if is_sidecar(container):
            continue
        entry = known.get(container["name"]) or {}
        state, last = entry.get("state") or {}, entry.get("lastState") or {}
        ended = state.get("terminated") or (last.get("terminated") if "waiting" in state else None)
        if ended is None:
            pending += 1
        elif ended.get("exitCode"):
            failed += 1
    return pending, failed


def _sidecar_counts(pod: Obj, known: Mapping[str, Entry]) -> tuple[int, int, int, int]:
    """Sidecars: pending, unknown, running, waiting."""
    pending = unknown = running = waiting = 0
    for container in init_containers(pod):
        if not is_sidecar(container):
            continue
        entry = known.get(container["name"])
        state = (entry or {}).get("state") or {}
        if entry is None:
            unknown += 1
        elif "running" in state:
            running += 1
            pending += not entry.get("started")
        elif "waiting" in state and not (entry.get("lastState") or {}).get("terminated"):
            pending += 1
            waiting += 1
    return pending, unknown, running, waiting


def pod_phase(pod: Obj, statuses: Sequence[Entry], *, over: bool) -> str:
    """`over`: nothing will be (re)started any more."""
    known = _by_name(statuses)
    pending_init, failed_init = _init_counts(pod, known)
    pending_sidecars, unknown, running, waiting = _sidecar_counts(pod, known)
    stopped = succeeded = 0
    for container in containers(pod):
        entry = known.get(container["name"])
        state = (entry or {}).get("state") or {}
        if entry is None or not state:
            unknown += 1
        elif "running" in state:
            running += 1
        elif "terminated" in state:
            stopped += 1
            succeeded += not state["terminated"].get("exitCode")
        elif (entry.get("lastState") or {}).get("terminated"):
            stopped += 1
        else:
            waiting += 1
    policy = restart_policy(pod)
    if failed_init and policy == "Never":
        return "Failed"
    if pending_init or (pending_sidecars and not any_main_started(pod, statuses)) or waiting or unknown:
        return "Pending"
    if running:
        return "Running"
    if not stopped:
        return "Pending"
    if over:
        return "Succeeded" if stopped == succeeded else "Failed"
    if policy == "Always":
        return "Running"
    if stopped == succeeded:
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"
