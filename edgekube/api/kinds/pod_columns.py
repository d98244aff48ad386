"""Columns of `kubectl get pods`, above all its STATUS (printPod in pkg/printers/internalversion/printers.go)."""

from typing import Any, NamedTuple

from edgekube.api.kind import Column
from edgekube.api.kinds import printing
from edgekube.api.kinds.printing import AGE, NAME, NONE
from edgekube.api.types import Obj


def ready(pod: Obj, _now: float) -> str:
    counted, total = _summary(pod)[1:3]
    return f"{counted}/{total}"


def status(pod: Obj, _now: float) -> str:
    return str(_summary(pod)[0])


def restarts(pod: Obj, now: float) -> str:
    count, last = _summary(pod)[3:5]
    return f"{count} ({printing.since(last, now)} ago)" if count and last else str(count)


class _Init(NamedTuple):
    """What the init containers say: a word while they are not done, and what they and the sidecars among them count."""

    word: str
    ready: int
    restarts: int
    last: str
    side_restarts: int
    side_last: str


def _summary(pod: Obj) -> tuple[str, int, int, int, str]:
    """Status word, ready containers, containers, restarts, time of the newest restart."""
    state, spec = pod.get("status") or {}, pod.get("spec") or {}
    reason = state.get("reason") or state.get("phase") or ""
    for condition in state.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    total = len(spec.get("containers") or ()) + len(sidecars)
    init = _init(state, spec, sidecars)
    reason, counted, count, last = init.word or reason, init.ready, init.restarts, init.last
    if not init.word or _initialized(state):
        reason, more, main_count, main_last = _main(state, reason)
        counted, count, last = counted + more, init.side_restarts + main_count, max(init.side_last, main_last)
    if pod["metadata"].get("deletionTimestamp"):
        if state.get("reason") == "NodeLost":
            reason = "Unknown"
        elif state.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    return reason, counted, total, count, last


def _init(state: Obj, spec: Obj, sidecars: set[str]) -> _Init:
    ready = restarts = side_restarts = 0
    last = side_last = word = ""
    total = len(spec.get("initContainers") or ())
    for index, entry in enumerate(state.get("initContainerStatuses") or ()):
        restarts += entry.get("restartCount", 0)
        last = max(last, _finished(entry))
        is_sidecar = entry.get("name") in sidecars
        if is_sidecar:
            side_restarts += entry.get("restartCount", 0)
            side_last = max(side_last, _finished(entry))
        ended = (entry.get("state") or {}).get("terminated")
        if ended is not None and not ended.get("exitCode"):
            continue
        if is_sidecar and entry.get("started"):
            ready += bool(entry.get("ready"))
            continue
        word = _init_word(entry.get("state") or {}, index, total)
        break
    return _Init(word, ready, restarts, last, side_restarts, side_last)


def _init_word(own: Obj, index: int, total: int) -> str:
    ended, waiting = own.get("terminated"), (own.get("waiting") or {}).get("reason")
    if ended is not None:
        return f"Init:{ended.get('reason') or _ended(ended)}"
    return f"Init:{waiting}" if waiting and waiting != "PodInitializing" else f"Init:{index}/{total}"


def _main(state: Obj, reason: str) -> tuple[str, int, int, str]:
    counted = restarted = 0
    last = ""
    running = False
    for entry in reversed(state.get("containerStatuses") or ()):
        restarted += entry.get("restartCount", 0)
        last = max(last, _finished(entry))
        own = entry.get("state") or {}
        waiting, terminated = own.get("waiting"), own.get("terminated")
        if waiting and waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated is not None:
            reason = terminated.get("reason") or _ended(terminated)
        elif entry.get("ready") and own.get("running") is not None:
            running = True
            counted += 1
    if reason == "Completed" and running:
        reason = "Running" if _condition(state, "Ready") else "NotReady"
    return reason, counted, restarted, last


def _ended(terminated: Obj) -> str:
    return f"Signal:{terminated['signal']}" if terminated.get("signal") else f"ExitCode:{terminated.get('exitCode', 0)}"


def _finished(entry: Obj) -> str:
    return str(((entry.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or "")


def _condition(state: Obj, kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in state.get("conditions") or ())


def _initialized(state: Obj) -> bool:
    return _condition(state, "Initialized")


def _address(pod: Obj, _now: float) -> str:
    addresses = (pod.get("status") or {}).get("podIPs") or ()
    return str(addresses[0].get("ip") or NONE) if addresses else NONE


def _node(pod: Obj, _now: float) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or NONE)


def _nominated(pod: Obj, _now: float) -> str:
    return str((pod.get("status") or {}).get("nominatedNodeName") or NONE)


def _gates(pod: Obj, _now: float) -> str:
    gates: list[Any] = (pod.get("spec") or {}).get("readinessGates") or []
    if not gates:
        return NONE
    state = pod.get("status") or {}
    return f"{sum(_condition(state, gate['conditionType']) for gate in gates)}/{len(gates)}"


COLUMNS = (
    NAME,
    Column("Ready", ready, description="The aggregate readiness state of this pod for accepting traffic."),
    Column("Status", status, description="The aggregate status of the containers in this pod."),
    Column("Restarts", restarts, description="How often the containers in this pod have been restarted, and when the last was."),
    AGE,
    Column("IP", _address, priority=1, description="IP address allocated to the pod."),
    Column("Node", _node, priority=1, description="The node this pod runs on."),
    Column("Nominated Node", _nominated, priority=1, description="The node chosen by preemption."),
    Column("Readiness Gates", _gates, priority=1, description="Readiness gates that are true, of all."),
)
