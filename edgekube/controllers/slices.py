"""Which EndpointSlices a Service should have, pure, with as few changes to the existing ones as possible.

Source of the rules: staging/src/k8s.io/endpointslice/reconciler.go. Endpoints stay in the slice they are in; new ones fill slices that
change anyway, then one unchanged slice that has room for all that is left, then new slices of up to 100.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekube.api.types import Obj
from edgekube.controllers.services import HEADLESS, ServiceFacts, owned_by

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
SERVICE_NAME = "kubernetes.io/service-name"
MAX_ENDPOINTS = 100
_RESERVED = frozenset((MANAGED_BY, SERVICE_NAME, HEADLESS))

PortKey = tuple[tuple[str, int, str, str], ...]
EndpointKey = tuple[tuple[str, ...], str, str, str]


@dataclass(slots=True)
class SlicePlan:
    """Whole objects to create and update, existing ones to delete."""

    create: list[Obj] = field(default_factory=list)
    update: list[Obj] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        return not (self.create or self.update or self.delete)


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints that have the same ports."""

    ports: Sequence[Obj]
    endpoints: Sequence[Obj]


def port_key(ports: Iterable[Mapping[str, Any]]) -> PortKey:
    """Order does not matter."""
    return tuple(sorted((p.get("name") or "", p.get("port") or 0, p.get("protocol") or "", p.get("appProtocol") or "") for p in ports))


def endpoint_key(endpoint: Mapping[str, Any]) -> EndpointKey:
    """What makes it the same endpoint."""
    target = endpoint.get("targetRef") or {}
    addresses = tuple(sorted(endpoint.get("addresses") or ()))
    return addresses, endpoint.get("hostname") or "", target.get("namespace", ""), target.get("name", "")


def same_endpoint(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Nothing that is shown differs."""
    if any((one.get(name) or None) != (two.get(name) or None) for name in ("nodeName", "zone", "conditions", "hints")):
        return False
    first, second = one.get("targetRef") or {}, two.get("targetRef") or {}
    return first.get("uid") == second.get("uid")


def slice_labels(service: ServiceFacts) -> dict[str, str]:
    labels = {name: value for name, value in service.labels.items() if name not in _RESERVED}
    if not service.has_ip:
        labels[HEADLESS] = ""
    return labels | {SERVICE_NAME: service.key.name, MANAGED_BY: MANAGER}


def new_slice(service: ServiceFacts, address_type: str, ports: Sequence[Obj], endpoints: Sequence[Obj] = ()) -> Obj:
    owner = {"apiVersion": "v1", "kind": "Service", "name": service.key.name, "uid": service.uid}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{service.key.name}-",
            "namespace": service.key.namespace,
            "labels": slice_labels(service),
            "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        },
        "addressType": address_type,
        "endpoints": list(endpoints),
        "ports": list(ports),
    }


def plan_slices(service: ServiceFacts, existing: Sequence[Obj], desired: Mapping[str, Sequence[Group]]) -> SlicePlan:
    """`desired` has the groups of each address type the Service supports. `existing` are decoded copies, which may be changed."""
    plan = SlicePlan()
    for obj in existing:
        if obj.get("addressType") not in desired:
            plan.delete.append(obj)
    for address_type, groups in desired.items():
        _plan_type(service, address_type, [obj for obj in existing if obj.get("addressType") == address_type], groups, plan)
    return plan


def _plan_type(service: ServiceFacts, address_type: str, existing: Sequence[Obj], groups: Sequence[Group], plan: SlicePlan) -> None:
    part = SlicePlan()
    ours: dict[PortKey, list[Obj]] = {}
    for obj in existing:
        if owned_by(obj, service.uid):
            ours.setdefault(port_key(obj.get("ports") or ()), []).append(obj)
        else:
            part.delete.append(obj)
    for group in groups:
        _plan_group(service, address_type, ours.pop(port_key(group.ports), []), group, part)
    for unwanted in ours.values():
        part.delete.extend(unwanted)
    if len(existing) == len(part.delete) and not part.create:
        _placeholder(service, address_type, part)
    _reuse(service, part)
    plan.create += part.create
    plan.update += part.update
    plan.delete += part.delete


def _placeholder(service: ServiceFacts, address_type: str, part: SlicePlan) -> None:
    """A Service always has a slice, if only an empty one: so one sees that somebody cares for it."""
    empty = new_slice(service, address_type, ())
    if len(part.delete) == 1 and _is_same_slice(part.delete[0], empty, service):
        part.delete.clear()
    else:
        part.create.append(empty)


def _is_same_slice(obj: Obj, wanted: Obj, service: ServiceFacts) -> bool:
    return (
        owned_by(obj, service.uid)
        and not (obj.get("endpoints") or obj.get("ports"))
        and obj["metadata"].get("labels") == wanted["metadata"]["labels"]
    )


def _reuse(service: ServiceFacts, part: SlicePlan) -> None:
    """Instead of deleting one slice and creating another, rewrite it."""
    for obj in list(part.delete):
        if not part.create:
            return
        if owned_by(obj, service.uid):
            fresh = part.create.pop()
            fresh["metadata"] = obj["metadata"] | {"labels": fresh["metadata"]["labels"]}
            part.update.append(fresh)
            part.delete.remove(obj)


def _plan_group(service: ServiceFacts, address_type: str, existing: Sequence[Obj], group: Group, part: SlicePlan) -> None:
    missing = {endpoint_key(endpoint): endpoint for endpoint in group.endpoints}
    labels = slice_labels(service)
    changed: list[Obj] = []
    unchanged: list[Obj] = []
    for obj in existing:
        if _keep(obj, missing, labels):
            changed.append(obj)
        else:
            unchanged.append(obj)
    emptied = [obj for obj in changed if not obj["endpoints"]]
    changed = [obj for obj in changed if obj["endpoints"]]
    _fill(sorted(changed, key=lambda obj: -len(obj["endpoints"])), missing)
    part.update += changed
    part.delete += emptied
    while missing:
        room = [obj for obj in unchanged if len(obj.get("endpoints") or ()) + len(missing) <= MAX_ENDPOINTS]
        if room:
            target = max(room, key=lambda obj: len(obj.get("endpoints") or ()))
            unchanged.remove(target)
            target["endpoints"] = list(target.get("endpoints") or ())
            part.update.append(target)
        else:
            target = new_slice(service, address_type, group.ports)
            part.create.append(target)
        _fill([target], missing)


def _keep(obj: Obj, missing: dict[EndpointKey, Obj], labels: Mapping[str, str]) -> bool:
    """Take from `missing` what this slice has; drop from it what is not wanted. Tells whether the slice changed."""
    before = obj.get("endpoints") or []
    kept: list[Obj] = []
    changed: bool = obj["metadata"].get("labels") != labels
    for endpoint in before:
        wanted = missing.pop(endpoint_key(endpoint), None)
        if wanted is None:
            changed = True
        else:
            changed = changed or not same_endpoint(wanted, endpoint)
            kept.append(wanted)
    if changed:
        obj["endpoints"] = kept
        obj["metadata"]["labels"] = dict(labels)
    return changed


def _fill(slices: Sequence[Obj], missing: dict[EndpointKey, Obj]) -> None:
    for obj in slices:
        while missing and len(obj["endpoints"]) < MAX_ENDPOINTS:
            key = next(iter(missing))
            obj["endpoints"].append(missing.pop(key))
