"""The Node object of this machine: what it is and how it is, worded as upstream (pkg/kubelet/nodestatus). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from edgekube import __version__
from edgekube.api import nodeloss
from edgekube.api.types import Obj
from edgekube.kubelet.config import KubeletConfig
from edgekube.kubelet.machine import Disk, Machine
from edgekube.kubelet.runtime.protocol import ImageInfo
from edgekube.lib.clock import rfc3339

KUBERNETES = "v1.36.0"
VERSION = f"{KUBERNETES}+edgekube{__version__}"
MAX_IMAGES, MAX_NAMES = 50, 5
EDGEKUBE = __version__


@dataclass(frozen=True, slots=True)
class Health:
    """What the conditions say. `troubles`: why the node is not ready; `runtime`: whether the runtime can be asked."""

    troubles: Sequence[str] = ()
    memory: bool = False
    disk: bool = False
    pids: bool = False
    runtime: bool = True


def labels(config: KubeletConfig, machine: Machine) -> dict[str, str]:
    found = {
        "beta.kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "kubernetes.io/hostname": config.node_name,
        "kubernetes.io/os": "linux",
    }
    for entry in config.node_labels:
        name, _, value = entry.partition("=")
        found[name] = value
    return found


def taints(config: KubeletConfig) -> list[Obj]:
    """`key=value:effect` or `key:effect`."""
    found: list[Obj] = []
    for entry in config.node_taints:
        head, _, effect = entry.rpartition(":")
        key, _, value = head.partition("=")
        found.append({"key": key, "effect": effect} | ({"value": value} if value else {}))
    return found


def new_node(config: KubeletConfig, machine: Machine) -> Obj:
    """As it is registered."""
    node: Obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": config.node_name, "labels": labels(config, machine)}, "spec": {}}
    if found := taints(config):
        node["spec"]["taints"] = found
    if config.fence_seconds:
        node["metadata"]["annotations"] = {nodeloss.PROMISE: f"{config.fence_seconds:g}"}
    return node


def capacity(config: KubeletConfig, machine: Machine, disk: Disk) -> dict[str, str]:
    return {
        "cpu": str(machine.cpus),
        "ephemeral-storage": f"{disk.total // 1024}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": f"{machine.memory // 1024}Ki",
        "pods": str(config.max_pods),
    }


def allocatable(config: KubeletConfig, machine: Machine, disk: Disk) -> dict[str, str]:
    """Capacity less what eviction keeps free."""
    found = capacity(config, machine, disk)
    found["ephemeral-storage"] = str(int(disk.total * (1 - config.eviction_disk_fraction)))
    found["memory"] = f"{max(0, machine.memory - config.eviction_memory) // 1024}Ki"
    return found


def addresses(config: KubeletConfig, ips: Sequence[str]) -> list[Obj]:
    return [{"type": "InternalIP", "address": ip} for ip in ips] + [{"type": "Hostname", "address": config.node_name}]


def node_info(machine: Machine, runtime: tuple[str, str]) -> Obj:
    name, version = runtime
    return {
        "machineID": machine.machine_id,
        "systemUUID": machine.system_uuid,
        "bootID": machine.boot_id,
        "kernelVersion": machine.kernel,
        "osImage": machine.os_image,
        "containerRuntimeVersion": f"{name}://{version}",
        "kubeletVersion": VERSION,
        "kubeProxyVersion": VERSION,
        "operatingSystem": "linux",
        "architecture": machine.architecture,
    }


def images(found: Sequence[ImageInfo]) -> list[Obj]:
    """The biggest, as upstream."""
    biggest = sorted(found, key=lambda image: image.size, reverse=True)[:MAX_IMAGES]
    return [{"names": [*image.digests, *image.tags][:MAX_NAMES] or [image.id], "sizeBytes": image.size} for image in biggest]


def conditions(old: Sequence[Mapping[str, str]], health: Health, now: datetime) -> list[Obj]:
    """The kubelet's four; those of others are kept."""
    moment = rfc3339(now)
    known = {entry["type"]: entry for entry in old}
    made = (
        _pressure("MemoryPressure", health.memory, ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                  ("KubeletHasSufficientMemory", "kubelet has sufficient memory available")),
        _pressure("DiskPressure", health.disk, ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                  ("KubeletHasNoDiskPressure", "kubelet has no disk pressure")),
        _pressure("PIDPressure", health.pids, ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                  ("KubeletHasSufficientPID", "kubelet has sufficient PID available")),
        _ready(health.troubles),
    )  # fmt: skip
    names = {entry["type"] for entry in made}
    found = [dict(entry) for entry in old if entry["type"] not in names]
    for entry in made:
        before = known.get(entry["type"])
        same = before is not None and before["status"] == entry["status"]
        changed = before["lastTransitionTime"] if same and before is not None else moment
        found.append(
            {"type": entry["type"], "status": entry["status"], "lastHeartbeatTime": moment, "lastTransitionTime": changed, **entry}
        )
    return found


def is_ready(node: Obj) -> bool:
    """What the Node's Ready condition says."""
    found = (node.get("status") or {}).get("conditions") or ()
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in found)


def _pressure(kind: str, on: bool, bad: tuple[str, str], good: tuple[str, str]) -> Obj:
    reason, message = bad if on else good
    return {"type": kind, "status": "True" if on else "False", "reason": reason, "message": message}


def _ready(troubles: Sequence[str]) -> Obj:
    if not troubles:
        return {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
    message = troubles[0] if len(troubles) == 1 else f"[{', '.join(troubles)}]"
    return {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": message}
