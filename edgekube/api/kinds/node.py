"""Node (pkg/registry/core/node/strategy.go). Heartbeats change nothing that must survive a power cut."""

from collections.abc import Mapping
from typing import Any

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import node_validation
from edgekube.api.kinds.printing import AGE, NAME, NONE, UNKNOWN
from edgekube.api.types import Obj

_ROLE = "node-role.kubernetes.io/"
_BEATS = ("lastHeartbeatTime",)


def default(obj: Obj) -> None:
    """Allocatable is the capacity until the kubelet says otherwise."""
    status = obj.get("status")
    if status and status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def prepare(obj: Obj, old: Obj | None) -> None:
    """Unlike other kinds a node may be created with its status."""
    if old is not None:
        obj["status"] = old.get("status") or {}


def prepare_status(obj: Obj, old: Obj | None) -> None:
    if old is not None:
        obj["spec"] = old.get("spec") or {}


def is_heartbeat(new: Obj, old: Obj) -> bool:
    """Whether only times of conditions moved."""
    return _still(new.get("status") or {}) == _still(old.get("status") or {})


def _still(status: Mapping[str, Any]) -> dict[str, Any]:
    conditions = [{k: v for k, v in entry.items() if k not in _BEATS} for entry in status.get("conditions") or ()]
    return {**status, "conditions": conditions}


def _status(obj: Obj, _now: float) -> str:
    conditions = {entry.get("type"): entry for entry in (obj.get("status") or {}).get("conditions") or ()}
    words = []
    if "Ready" in conditions:
        words.append({"True": "Ready", "False": "NotReady"}.get(conditions["Ready"].get("status", ""), "NotReady"))
    if not words:
        words.append("Unknown")
    if (obj.get("spec") or {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _roles(obj: Obj, _now: float) -> str:
    labels = obj["metadata"].get("labels") or {}
    found = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE) and key != _ROLE}
    if labels.get("kubernetes.io/role"):
        found.add(labels["kubernetes.io/role"])
    return ",".join(sorted(found)) or NONE


def _info(name: str) -> Any:
    return lambda obj, _now: ((obj.get("status") or {}).get("nodeInfo") or {}).get(name) or UNKNOWN


def _version(obj: Obj, _now: float) -> str:
    return str(((obj.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion") or "")


def _address(kind: str) -> Any:
    def find(obj: Obj, _now: float) -> str:
        found = (obj.get("status") or {}).get("addresses") or ()
        return next((str(entry["address"]) for entry in found if entry.get("type") == kind), NONE)

    return find


NODE = Kind(
    group="",
    version="v1",
    kind="Node",
    plural="nodes",
    singular="node",
    short=("no",),
    namespaced=False,
    schema="io.k8s.api.core.v1.Node",
    has_status=True,
    subresources={"proxy": ("create", "delete", "get", "patch", "update")},
    default=default,
    prepare=prepare,
    prepare_status=prepare_status,
    validate=node_validation.check,
    validate_status=node_validation.check,
    ephemeral_status=is_heartbeat,
    selectable={"spec.unschedulable": lambda o: "true" if (o.get("spec") or {}).get("unschedulable") else "false"},
    columns=(
        NAME,
        Column("Status", _status, description="The status of the node"),
        Column("Roles", _roles, description="The roles of the node"),
        AGE,
        Column("Version", _version, description="Kubelet Version"),
        Column("Internal-IP", _address("InternalIP"), priority=1),
        Column("External-IP", _address("ExternalIP"), priority=1),
        Column("OS-Image", _info("osImage"), priority=1),
        Column("Kernel-Version", _info("kernelVersion"), priority=1),
        Column("Container-Runtime", _info("containerRuntimeVersion"), priority=1),
    ),
)
