"""EndpointSlice: for each Service with a selector, the pods behind it and whether they take traffic. At once, without batching.

Reads services, pods, nodes, endpointslices; writes endpointslices and Events. Promises: a pod that becomes ready or not is one slice
update away; slices that others made are left alone.
"""

import asyncio
from collections.abc import Hashable, Iterable, Sequence

from edgekube.api.catalog import ENDPOINT_SLICE, NODE, POD, SERVICE
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.derived import Derived
from edgekube.client.recorder import NORMAL, WARNING
from edgekube.controllers import topology
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.pods import PodFacts
from edgekube.controllers.replicaset import is_namespace_terminating
from edgekube.controllers.services import (
    TRIGGER,
    ServiceFacts,
    TriggerTimes,
    add_selector_index,
    belongs,
    family,
    hostname,
    pod_services,
    port_number,
    selected,
    service_facts,
)
from edgekube.controllers.slices import MANAGED_BY, MANAGER, SERVICE_NAME, Group, SlicePlan, plan_slices, port_key
from edgekube.controllers.topology import node_share, wants_hints
from edgekube.errors import ApiError, NotFound

ZONE = "topology.kubernetes.io/zone"
OF_SERVICE = "managed-for-service"
BY_TOPOLOGY = "by-topology"


class EndpointSliceController(Base):
    name = "endpointslice-controller"
    primary = SERVICE

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._services = Derived(self.cache, SERVICE, service_facts)
        self._triggers = TriggerTimes()
        add_selector_index(self.cache)
        self.cache.add_index(ENDPOINT_SLICE, OF_SERVICE, _service_of)
        self.cache.add_index(SERVICE, BY_TOPOLOGY, _wants_topology)
        self._shares = Derived(self.cache, NODE, lambda node: node_share(node.decode()))
        self.cache.add_field_index(POD, "spec.nodeName")

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(POD, self._of_pod), Maps(ENDPOINT_SLICE, self._of_slice), Maps(NODE, self._of_node))

    def _of_pod(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        return pod_services(self.cache, self._services, (old, new))

    def _of_slice(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        item = new or old
        if item is not None and item.labels.get(MANAGED_BY) == MANAGER and SERVICE_NAME in item.labels:
            yield Key(item.namespace, item.labels[SERVICE_NAME])

    def _of_node(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """A node that came, or moved to another zone; for hints by topology also one whose share changed."""
        shared = self.cache.by_index(SERVICE, BY_TOPOLOGY, BY_TOPOLOGY)
        if shared:
            before, after = (node_share(node.decode()) if node is not None else None for node in (old, new))
            if before != after:
                yield from (service.key for service in shared)
        if new is not None and (old is None or old.labels.get(ZONE) != new.labels.get(ZONE)):
            yield from pod_services(self.cache, self._services, self.cache.by_index(POD, "spec.nodeName", new.name))

    async def reconcile(self, key: Key) -> Result:
        item = self.cache.get(SERVICE, key)
        if item is None:
            self._triggers.forget(key)
            return DONE  # its slices go with their owner
        service = self._services(item)
        if service.selector is None or service.deleting:
            return DONE
        pods = [self.pods(pod) for pod in selected(self.cache, service)]
        existing = [s.decode() for s in self.cache.by_index(ENDPOINT_SLICE, OF_SERVICE, str(key)) if not s.deleting]
        desired = {kind: self._groups(service, pods, kind) for kind in service.families}
        news = [self._hint(service, kind, desired[kind], existing) for kind in desired]
        plan = plan_slices(service, existing, desired)
        trigger = self._triggers.compute(service, pods)
        if not plan.nothing:
            await self._act(item, plan, trigger)
            for severity, reason, text in filter(None, news):
                self.events.event(_reference(item), severity, reason, text)
        return DONE

    def _hint(self, service: ServiceFacts, kind: str, groups: Sequence[Group], existing: Iterable[Obj]) -> tuple[str, str, str] | None:
        """Zone hints for endpoints of one family, where the Service wants them; what to tell about that."""
        before = _hinted_zones(existing, kind)
        if not service.topology:
            was = bool(before) and not service.distribution
            return (WARNING, "TopologyAwareHintsDisabled", f"{topology.DISABLED}, addressType: {kind}") if was else None
        endpoints = [endpoint for group in groups for endpoint in group.endpoints]
        share = topology.ratios(self._shares(node) for node in self.cache.list(NODE))
        hints = topology.plan_hints(endpoints, share, before)
        for endpoint in endpoints:
            endpoint.pop("hints", None)
            if endpoint["conditions"]["ready"] and (zone := hints.zones.get(endpoint["addresses"][0])):
                endpoint["hints"] = {"forZones": [{"name": zone}]}
        if hints.why_not:
            return (WARNING, "TopologyAwareHintsDisabled", f"{hints.why_not}, addressType: {kind}")
        return None if before else (NORMAL, "TopologyAwareHintsEnabled", f"{topology.ENABLED}, addressType: {kind}")

    def _groups(self, service: ServiceFacts, pods: Iterable[PodFacts], address_type: str) -> list[Group]:
        """Endpoints of one address family, by what ports they have."""
        ports_of: dict[object, list[Obj]] = {}
        found: dict[object, list[Obj]] = {}
        for pod in pods:
            addresses = [ip for ip in pod.ips if family(ip) == address_type]
            if not addresses or not belongs(pod, include_terminating=True):
                continue
            node = self.cache.get(NODE, Key("", pod.node)) if pod.node else None
            if pod.node and node is None and not service.publish_unready:
                continue  # its node is gone, or not seen yet: that wakes us again
            ports = slice_ports(service, pod)
            key = port_key(ports)
            ports_of.setdefault(key, ports)
            found.setdefault(key, []).append(endpoint(service, pod, addresses[:1], node.labels.get(ZONE, "") if node else ""))
        return [Group(ports_of[key], endpoints) for key, endpoints in found.items()]

    async def _act(self, service: Item, plan: SlicePlan, trigger: str) -> None:
        for obj in (*plan.create, *plan.update):
            annotations = obj["metadata"].setdefault("annotations", {})
            if trigger:
                annotations[TRIGGER] = trigger
            else:
                annotations.pop(TRIGGER, None)
        work = [self._create(obj) for obj in plan.create]
        work += [self._update(obj) for obj in plan.update]
        work += [self._delete(obj) for obj in plan.delete]
        errors = [found for found in await asyncio.gather(*work, return_exceptions=True) if found is not None]
        if errors:
            text = f"Error updating Endpoint Slices for Service {service.key}: {errors[0]}"
            self.events.event(_reference(service), WARNING, "FailedToUpdateEndpointSlices", text)
            raise errors[0]

    async def _create(self, obj: Obj) -> None:
        try:
            await self.client.create(ENDPOINT_SLICE, obj, obj["metadata"]["namespace"])
        except ApiError as error:
            if not is_namespace_terminating(error):
                raise

    async def _update(self, obj: Obj) -> None:
        await self.client.update(ENDPOINT_SLICE, obj)

    async def _delete(self, obj: Obj) -> None:
        about = obj["metadata"]
        try:
            await self.client.delete(ENDPOINT_SLICE, about["name"], about["namespace"], uid=about["uid"])
        except NotFound:
            return


def _reference(service: Item) -> Obj:
    return {"kind": "Service", "apiVersion": "v1", "namespace": service.namespace, "name": service.name, "uid": service.uid}


def _wants_topology(item: Item) -> Iterable[str]:
    if b"service.kubernetes.io/topology-" in item.raw and wants_hints(item.decode()["metadata"].get("annotations") or {}):
        yield BY_TOPOLOGY


def _hinted_zones(slices: Iterable[Obj], kind: str) -> dict[str, str]:
    """First address -> the zone it is for, as the slices say now."""
    found: dict[str, str] = {}
    for obj in slices:
        if obj.get("addressType") == kind:
            for endpoint in obj.get("endpoints") or ():
                for zone in (endpoint.get("hints") or {}).get("forZones") or ():
                    found[endpoint["addresses"][0]] = zone["name"]
    return found


def _service_of(item: Item) -> Iterable[str]:
    if item.labels.get(MANAGED_BY) == MANAGER and SERVICE_NAME in item.labels:
        yield f"{item.namespace}/{item.labels[SERVICE_NAME]}"


def slice_ports(service: ServiceFacts, pod: PodFacts) -> list[Obj]:
    """The Service's ports as this pod has them; a port that it does not have is left out."""
    ports: list[Obj] = []
    for port in service.ports:
        number = port_number(pod, port)
        if number is not None:
            entry: Obj = {"name": port.get("name") or "", "protocol": port.get("protocol", "TCP"), "port": number}
            if port.get("appProtocol"):
                entry["appProtocol"] = port["appProtocol"]
            ports.append(entry)
    return ports


def endpoint(service: ServiceFacts, pod: PodFacts, addresses: Sequence[str], zone: str) -> Obj:
    """The pod as an endpoint. One that is ending is never ready, but may still serve."""
    ready = service.publish_unready or (pod.ready and not pod.deleting)
    found: Obj = {
        "addresses": list(addresses),
        "conditions": {"ready": ready, "serving": pod.ready, "terminating": pod.deleting},
        "targetRef": {"kind": "Pod", "namespace": pod.key.namespace, "name": pod.key.name, "uid": pod.uid},
    }
    if pod.node:
        found["nodeName"] = pod.node
    if zone:
        found["zone"] = zone
    name = hostname(pod, service)
    if name:
        found["hostname"] = name
    hints = _hints(service, pod, zone) if ready else {}
    if hints:
        found["hints"] = hints
    return found


def _hints(service: ServiceFacts, pod: PodFacts, zone: str) -> Obj:
    if service.distribution not in ("PreferClose", "PreferSameZone", "PreferSameNode"):
        return {}
    hints: Obj = {"forZones": [{"name": zone}]} if zone else {}
    if service.distribution == "PreferSameNode" and pod.node:
        hints["forNodes"] = [{"name": pod.node}]
    return hints
