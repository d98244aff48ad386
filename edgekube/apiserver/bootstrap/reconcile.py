"""Bring the store to the bootstrap state: create what is missing, add what a default role or binding lost, touch nothing else.

Runs at each start, before the server is ready. All writes of one step are issued together, so that the store commits them as one batch;
with nothing to write it costs a few milliseconds. Objects whose autoupdate annotation is "false" belong to the administrator. Safe to kill
anywhere: every step looks before it writes, and losing a race to somebody else's identical write is success.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgekube.api import catalog
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver.bootstrap import objects as defaults
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.rules import compact, compile_rules, uncovered
from edgekube.client.protocol import Client
from edgekube.errors import AlreadyExists, ApiError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapConfig:
    """What depends on this server's settings."""

    kubernetes_address: str  # ClusterIP of the `kubernetes` Service
    cluster_dns: str
    advertise_addresses: Sequence[str]  # where pods and agents reach this server
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)  # what every node must have alike


@dataclass(frozen=True, slots=True)
class Step:
    """One write that is needed. `replace`: the old object must go first (a binding's role cannot be changed)."""

    kind: Kind
    obj: Obj
    exists: bool
    replace: bool = False


async def ensure_bootstrap(*, client: Client, objects: Objects, config: BootstrapConfig) -> int:
    """Do all of it. `client` must act as system:masters. Returns how many objects were written."""
    first = plan_plain(objects, catalog.NAMESPACE, defaults.namespaces())
    await _apply(client, first)
    rest = [
        *plan_plain(objects, catalog.PRIORITY_CLASS, defaults.priority_classes()),
        *plan_rbac(objects),
        *plan_plain(objects, catalog.SERVICE, [defaults.dns_service(config.cluster_dns)]),
        *plan_kubernetes(objects, config),
        *plan_settings(objects, config.settings),
    ]
    await _apply(client, rest)
    written = len(first) + len(rest)
    if written:
        log.info("cluster bootstrapped", extra={"objects": written})
    return written


async def ensure_kubernetes_service(*, client: Client, objects: Objects, config: BootstrapConfig) -> int:
    """Only the part that must follow this server's address: call it when the address changes."""
    steps = plan_kubernetes(objects, config)
    await _apply(client, steps)
    return len(steps)


def plan_plain(objects: Objects, kind: Kind, wanted: Sequence[Obj]) -> list[Step]:
    """Objects that are only ever created: afterwards they belong to the user."""
    return [Step(kind, obj, exists=False) for obj in wanted if _find(objects, kind, obj) is None]


def plan_settings(objects: Objects, values: Mapping[str, str]) -> list[Step]:
    """The cluster's settings for its agents: exactly these, whatever somebody wrote there."""
    wanted = defaults.cluster_settings(values)
    current = _find(objects, catalog.CONFIG_MAP, wanted)
    if current is None:
        return [Step(catalog.CONFIG_MAP, wanted, exists=False)]
    if (current.get("data") or {}) == wanted["data"]:
        return []
    return [Step(catalog.CONFIG_MAP, current | {"data": wanted["data"]}, exists=True)]


def plan_rbac(objects: Objects) -> list[Step]:
    """Roles and bindings, reconciled."""
    steps: list[Step] = []
    for kind, wanted in (
        (catalog.CLUSTER_ROLE, defaults.cluster_roles()),
        (catalog.ROLE, defaults.roles()),
        (catalog.CLUSTER_ROLE_BINDING, defaults.cluster_role_bindings()),
        (catalog.ROLE_BINDING, defaults.role_bindings()),
    ):
        reconcile = reconcile_role if kind.kind.endswith("Role") else reconcile_binding
        for obj in wanted:
            current = _find(objects, kind, obj)
            if current is None:
                steps.append(Step(kind, obj, exists=False))
            elif (changed := reconcile(current, obj)) is not None:
                steps.append(Step(kind, changed, exists=True, replace=changed.get("roleRef") != current.get("roleRef")))
    return steps


def plan_kubernetes(objects: Objects, config: BootstrapConfig) -> list[Step]:
    """The `kubernetes` Service and where it leads."""
    steps = plan_plain(objects, catalog.SERVICE, [defaults.kubernetes_service(config.kubernetes_address, config.port)])
    service = objects.get(catalog.SERVICE, "kubernetes", "default")
    if service is not None:
        current = service.decode()
        ports = defaults.kubernetes_service(config.kubernetes_address, config.port)["spec"]["ports"]
        if current["spec"].get("ports") != ports:
            current["spec"]["ports"] = ports
            steps.append(Step(catalog.SERVICE, current, exists=True))
    for kind, obj, fields in (
        (catalog.ENDPOINTS, defaults.kubernetes_endpoints(config.advertise_addresses, config.port), ("subsets",)),
        (catalog.ENDPOINT_SLICE, defaults.kubernetes_slice(config.advertise_addresses, config.port), ("endpoints", "ports", "addressType")),
    ):
        old = _find(objects, kind, obj)
        if old is None:
            steps.append(Step(kind, obj, exists=False))
        elif any(old.get(name) != obj[name] for name in fields):
            replace = old.get("addressType") != obj.get("addressType")
            merged = old | {name: obj[name] for name in fields}
            steps.append(Step(kind, merged, exists=True, replace=replace))
    return steps


def reconcile_role(current: Obj, wanted: Obj) -> Obj | None:
    """The role with what it lost, or None if it lost nothing. Rules that a user added stay."""
    if _protected(current):
        return None
    changed = _with_metadata(current, wanted)
    if "aggregationRule" in wanted:
        selectors = list((current.get("aggregationRule") or {}).get("clusterRoleSelectors") or ())
        missing_selectors = [one for one in wanted["aggregationRule"]["clusterRoleSelectors"] if one not in selectors]
        if missing_selectors:
            changed["aggregationRule"] = {"clusterRoleSelectors": selectors + missing_selectors}
    else:
        missing = uncovered(compile_rules(wanted.get("rules")), compile_rules(current.get("rules")))
        if missing:
            changed["rules"] = [*(current.get("rules") or ()), *(rule.to_json() for rule in compact(missing))]
    return None if changed == current else changed


def reconcile_binding(current: Obj, wanted: Obj) -> Obj | None:
    """The binding with the subjects it lost; one that leads to another role is replaced whole."""
    if _protected(current):
        return None
    if current.get("roleRef") != wanted["roleRef"]:
        return wanted
    changed = _with_metadata(current, wanted)
    subjects = list(current.get("subjects") or ())
    missing = [subject for subject in wanted["subjects"] if subject not in subjects]
    if missing:
        changed["subjects"] = subjects + missing
    return None if changed == current else changed


def _protected(current: Obj) -> bool:
    return (current["metadata"].get("annotations") or {}).get(defaults.AUTOUPDATE) == "false"


def _with_metadata(current: Obj, wanted: Obj) -> Obj:
    metadata = dict(current["metadata"])
    for part in ("labels", "annotations"):
        metadata[part] = wanted["metadata"][part] | (metadata.get(part) or {})
    return current | {"metadata": metadata}


def _find(objects: Objects, kind: Kind, obj: Obj) -> Obj | None:
    item = objects.get(kind, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
    return None if item is None else item.decode()


async def _apply(client: Client, steps: Sequence[Step]) -> None:
    """All writes together; the first refusal is raised alone, it says enough."""
    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(_write(client, step))
    except ExceptionGroup as group_error:
        first = group_error.exceptions[0]
        if isinstance(first, ApiError):
            raise first from None
        raise


async def _write(client: Client, step: Step) -> None:
    if step.exists and not step.replace:
        await client.update(step.kind, step.obj)
        return
    if step.replace:
        await client.delete(step.kind, step.obj["metadata"]["name"], step.obj["metadata"].get("namespace", ""))
        step.obj["metadata"] = {
            name: value for name, value in step.obj["metadata"].items() if name in ("name", "namespace", "labels", "annotations")
        }
    try:
        await client.create(step.kind, step.obj)
    except AlreadyExists:
        log.debug("already there", extra={"kind": step.kind.kind, "object": step.obj["metadata"]["name"]})
