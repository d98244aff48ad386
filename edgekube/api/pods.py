"""Facts about pods that several components must agree on: what they request, how they rank, whether they are ready.

Source: k8s.io/component-helpers/resource/helpers.go, k8s.io/kubernetes/pkg/api/v1/pod/util.go, pkg/apis/core/v1/helper/qos/qos.go.
CPU is counted in thousandths, everything else in whole units.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekube.api import quantity
from edgekube.api.types import Obj

_COMPUTE = ("cpu", "memory")


def amount(resource: str, text: Any) -> int:
    """One quantity in the unit the resource is counted in."""
    return quantity.milli(text) if resource == "cpu" else quantity.value(text)


def sidecar(container: Mapping[str, Any]) -> bool:
    """An init container that keeps running beside the main ones."""
    return container.get("restartPolicy") == "Always"


def requests(pod: Obj) -> dict[str, int]:
    """What the scheduler must find: the larger of the main containers (with sidecars) and each init step, plus overhead."""
    return _total(pod, "requests")


def limits(pod: Obj) -> dict[str, int]:
    """As `requests`, of limits; overhead counts only where a limit is set."""
    return _total(pod, "limits")


def _total(pod: Obj, which: str) -> dict[str, int]:
    spec = pod["spec"]
    total: dict[str, int] = {}
    for container in spec.get("containers") or ():
        _add(total, _of(container, which))
    beside: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        own = _of(container, which)
        if sidecar(container):
            _add(total, own)
            _add(beside, own)
            own = dict(beside)
        else:
            _add(own, beside)
        _raise(peak, own)
    _raise(total, peak)
    for resource, text in ((spec.get("resources") or {}).get(which) or {}).items():
        total[resource] = amount(resource, text)
    for resource, text in (spec.get("overhead") or {}).items():
        if which == "requests" or total.get(resource):
            total[resource] = total.get(resource, 0) + amount(resource, text)
    return total


def _of(container: Mapping[str, Any], which: str) -> dict[str, int]:
    return {name: amount(name, text) for name, text in ((container.get("resources") or {}).get(which) or {}).items()}


def _add(into: dict[str, int], more: Mapping[str, int]) -> None:
    for name, number in more.items():
        into[name] = into.get(name, 0) + number


def _raise(into: dict[str, int], other: Mapping[str, int]) -> None:
    for name, number in other.items():
        into[name] = max(into.get(name, 0), number)


def qos_class(pod: Obj) -> str:
    """Guaranteed, Burstable or BestEffort, from CPU and memory of all containers, or of the pod where it says its own."""
    spec = pod["spec"]
    own: Mapping[str, Any] = spec.get("resources") or {}
    holders: Sequence[Mapping[str, Any]]
    if own.get("requests") or own.get("limits"):
        holders = (own,)
    else:
        containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
        holders = [container.get("resources") or {} for container in containers]
    requests: dict[str, int] = {}
    limits: dict[str, int] = {}
    guaranteed = True
    for holder in holders:
        _add(requests, _positive(holder.get("requests")))
        bounded = _positive(holder.get("limits"))
        _add(limits, bounded)
        guaranteed = guaranteed and len(bounded) == len(_COMPUTE)
    if not requests and not limits:
        return "BestEffort"
    # Upstream compares the sums: what one container asks below its limit no other can make up for, since requests never exceed limits.
    return "Guaranteed" if guaranteed and requests == limits else "Burstable"


def _positive(amounts: Mapping[str, Any] | None) -> dict[str, int]:
    found = {name: amount(name, text) for name, text in (amounts or {}).items() if name in _COMPUTE}
    return {name: number for name, number in found.items() if number > 0}


def is_ready(pod: Obj) -> bool:
    """The Ready condition is True."""
    conditions: Sequence[Obj] = (pod.get("status") or {}).get("conditions") or ()
    return any(entry.get("type") == "Ready" and entry.get("status") == "True" for entry in conditions)


def is_terminal(pod: Obj) -> bool:
    """Succeeded or Failed: it will never run again."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def running_containers(pod: Obj) -> list[Obj]:
    """The containers that run for as long as the pod does: the main ones and sidecars."""
    spec = pod["spec"]
    return [*(spec.get("containers") or ()), *(c for c in spec.get("initContainers") or () if sidecar(c))]


def host_ports(pod: Obj) -> Iterator[tuple[str, str, int]]:
    """(address, protocol, port) of every port the pod takes on its node; address "0.0.0.0" is all."""
    for container in running_containers(pod):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", port["hostPort"]


def named_ports(pod: Obj) -> tuple[tuple[str, str, int], ...]:
    """(name, protocol, number) of every port that has a name."""
    found = (port for container in running_containers(pod) for port in container.get("ports") or () if port.get("name"))
    return tuple((port["name"], port.get("protocol") or "TCP", port["containerPort"]) for port in found)


def addresses(pod: Obj) -> tuple[str, ...]:
    """The pod's addresses, of each family one; none before it has them."""
    status = pod.get("status") or {}
    listed = tuple(entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip"))
    return listed or ((status["podIP"],) if status.get("podIP") else ())
