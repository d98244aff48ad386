"""EndpointSlice mirroring: Endpoints that people write for Services without a selector, as slices, which is all that proxies read.

Reads services, endpoints, endpointslices; writes endpointslices and Events. One slice for each address family and set of ports of an
Endpoints object. Left alone: Endpoints labelled to be skipped, leader election records, and those of Services with a selector.
"""

import ipaddress
from collections.abc import Hashable, Iterable, Mapping, Sequence

from edgekube.api.catalog import ENDPOINT_SLICE, ENDPOINTS, SERVICE
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.recorder import WARNING, reference
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.replicaset import is_namespace_terminating
from edgekube.controllers.services import TRIGGER
from edgekube.controllers.slices import MANAGED_BY, SERVICE_NAME, SlicePlan, port_key, same_endpoint
from edgekube.errors import ApiError, NotFound

MANAGER = "endpointslicemirroring-controller.k8s.io"
MOST = 1000  # addresses of one subset that are mirrored
_SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_OF = "mirror-of"


class MirroringController(Base):
    name = "endpointslicemirroring-controller"
    primary = ENDPOINTS

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self.cache.add_index(ENDPOINT_SLICE, _OF, _mirror_of)

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(SERVICE, _same_name), Maps(ENDPOINT_SLICE, _of_slice))

    async def reconcile(self, key: Key) -> Result:
        existing = [item.decode() for item in self.cache.by_index(ENDPOINT_SLICE, _OF, str(key)) if not item.deleting]
        endpoints, service = self.cache.get(ENDPOINTS, key), self.cache.get(SERVICE, key)
        wanted = endpoints.decode() if endpoints is not None and not endpoints.deleting else None
        if wanted is None or service is None or not should_mirror(wanted, service.decode()):
            wanted = None
        plan = plan_mirror(wanted, existing) if wanted is not None else SlicePlan(delete=existing)
        try:
            await self._act(plan)
        except ApiError as error:
            if is_namespace_terminating(error):
                return DONE
            if wanted is not None:
                text = f"Error updating Endpoint Slices for Endpoints {key}: {error.message}"
                self.events.event(reference(wanted, ENDPOINTS), WARNING, "FailedToUpdateEndpointSlices", text)
            raise
        return DONE

    async def _act(self, plan: SlicePlan) -> None:
        for obj in plan.create:
            await self.client.create(ENDPOINT_SLICE, obj, obj["metadata"]["namespace"])
        for obj in plan.update:
            await self.client.update(ENDPOINT_SLICE, obj)
        for obj in plan.delete:
            about = obj["metadata"]
            try:
                await self.client.delete(ENDPOINT_SLICE, about["name"], about["namespace"], uid=about["uid"])
            except NotFound:
                continue


def _same_name(old: Item | None, new: Item | None) -> Iterable[Hashable]:
    item = new or old
    if item is not None:
        yield item.key


def _of_slice(old: Item | None, new: Item | None) -> Iterable[Hashable]:
    item = new or old
    if item is not None and item.labels.get(MANAGED_BY) == MANAGER and SERVICE_NAME in item.labels:
        yield Key(item.namespace, item.labels[SERVICE_NAME])


def _mirror_of(item: Item) -> Iterable[str]:
    return (str(key) for key in _of_slice(None, item))


def should_mirror(endpoints: Obj, service: Obj) -> bool:
    about = endpoints["metadata"]
    if (about.get("labels") or {}).get(_SKIP) == "true" or _LEADER in (about.get("annotations") or {}):
        return False
    return not (service.get("spec") or {}).get("selector")


def plan_mirror(endpoints: Obj, existing: Sequence[Obj]) -> SlicePlan:
    """`existing` are decoded copies, which may be changed."""
    plan = SlicePlan()
    left: dict[object, list[Obj]] = {}
    for obj in existing:
        left.setdefault((obj.get("addressType"), port_key(obj.get("ports") or ())), []).append(obj)
    for key, wanted in _desired(endpoints).items():
        known = left.pop(key, [])
        plan.delete += known[1:]
        if not known:
            plan.create.append(wanted)
        elif not _same(known[0], wanted):
            plan.update.append(_onto(known[0], wanted))
    unwanted = [obj for group in left.values() for obj in group]
    while unwanted and plan.create:  # a slice that would go becomes one that would come
        fitting = next((obj for obj in unwanted if obj.get("addressType") == plan.create[0]["addressType"]), None)
        if fitting is None:
            break
        unwanted.remove(fitting)
        plan.update.append(_onto(fitting, plan.create.pop(0)))
    plan.delete += unwanted
    return plan


def _desired(endpoints: Obj) -> dict[object, Obj]:
    """A slice for each address family and set of ports. The same address in two subsets of the same ports is one endpoint."""
    found: dict[object, dict[str, Obj]] = {}
    ports_of: dict[object, list[Obj]] = {}
    for subset in endpoints.get("subsets") or ():
        ports = [_port(port) for port in subset.get("ports") or ()]
        addresses = [(entry, True) for entry in subset.get("addresses") or ()]
        addresses += [(entry, False) for entry in subset.get("notReadyAddresses") or ()]
        for entry, ready in addresses[:MOST]:
            address = str(ipaddress.ip_address(entry["ip"]))
            key = ("IPv6" if ":" in address else "IPv4", port_key(ports))
            ports_of.setdefault(key, ports)
            found.setdefault(key, {}).setdefault(address, _endpoint(entry, address, ready))
    return {key: _slice(endpoints, str(key[0]), ports_of[key], list(found[key].values())) for key in found if isinstance(key, tuple)}


def _port(port: Mapping[str, object]) -> Obj:
    made: Obj = {"name": port.get("name") or "", "port": port.get("port"), "protocol": port.get("protocol") or "TCP"}
    return made | ({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {})


def _endpoint(entry: Mapping[str, object], address: str, ready: bool) -> Obj:
    made: Obj = {"addresses": [address], "conditions": {"ready": ready}}
    return made | {name: entry[name] for name in ("hostname", "nodeName", "targetRef") if entry.get(name)}


def _slice(endpoints: Obj, address_type: str, ports: list[Obj], made: list[Obj]) -> Obj:
    about = endpoints["metadata"]
    annotations = {name: text for name, text in (about.get("annotations") or {}).items() if name not in (TRIGGER, _APPLIED)}
    owner = {"apiVersion": "v1", "kind": "Endpoints", "name": about["name"], "uid": about["uid"], "controller": True}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{about['name']}-",
            "namespace": about["namespace"],
            "labels": {**(about.get("labels") or {}), SERVICE_NAME: about["name"], MANAGED_BY: MANAGER},
            "annotations": annotations,
            "ownerReferences": [owner | {"blockOwnerDeletion": True}],
        },
        "addressType": address_type,
        "endpoints": made,
        "ports": ports,
    }


def _same(one: Obj, wanted: Obj) -> bool:
    for name in ("labels", "annotations"):
        if (one["metadata"].get(name) or {}) != wanted["metadata"][name]:
            return False
    here = {entry["addresses"][0]: entry for entry in one.get("endpoints") or ()}
    there = {entry["addresses"][0]: entry for entry in wanted["endpoints"]}
    if here.keys() != there.keys():
        return False
    return all(same_endpoint(here[a], there[a]) and here[a].get("hostname") == there[a].get("hostname") for a in here)


def _onto(known: Obj, wanted: Obj) -> Obj:
    """The known slice with everything wanted: name, uid and version stay."""
    about = known["metadata"] | {name: wanted["metadata"][name] for name in ("labels", "annotations", "ownerReferences")}
    return {**wanted, "metadata": about}
