"""Endpoints: the legacy form of EndpointSlices, one object of the Service's name.

Reads services, pods, endpoints; writes endpoints and Events.
Promises: an Endpoints object exists exactly for each Service with a selector; those of Services without one belong to who made them.
"""

from collections.abc import Hashable, Iterable, Sequence

from edgekube.api.catalog import ENDPOINTS, POD, SERVICE
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.derived import Derived
from edgekube.client.recorder import WARNING
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.replicaset import is_namespace_terminating
from edgekube.controllers.services import (
    HEADLESS,
    TRIGGER,
    ServiceFacts,
    TriggerTimes,
    add_selector_index,
    pod_services,
    selected,
    service_facts,
)
from edgekube.controllers.subsets import plan_subsets, truncate
from edgekube.errors import ApiError, NotFound

OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"


class EndpointsController(Base):
    name = "endpoint-controller"
    primary = SERVICE

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._services = Derived(self.cache, SERVICE, service_facts)
        self._triggers = TriggerTimes()
        add_selector_index(self.cache)

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(POD, self._of_pod), Maps(ENDPOINTS, self._of_endpoints))

    def _of_pod(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        return pod_services(self.cache, self._services, (old, new))

    def _of_endpoints(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """Of the Service's name; also one left over from a Service that is gone, which the first list shows."""
        item = new or old
        if item is not None:
            yield item.key

    async def reconcile(self, key: Key) -> Result:
        item = self.cache.get(SERVICE, key)
        existing = self.cache.get(ENDPOINTS, key)
        if item is None:
            self._triggers.forget(key)
            if existing is not None and existing.labels.get(MANAGED_BY) == MANAGER and not existing.deleting:
                await self._delete(existing)
            return DONE
        service = self._services(item)
        if service.selector is None or service.deleting:
            return DONE
        pods = [self.pods(pod) for pod in selected(self.cache, service)]
        subsets, truncated = truncate(plan_subsets(service, pods))
        trigger = self._triggers.compute(service, pods)
        current = existing.decode() if existing is not None and not existing.deleting else None
        wanted = plan_endpoints(service, current, subsets, truncated, trigger)
        if wanted is not None:
            await self._write(item, current, wanted)
        return DONE

    async def _delete(self, item: Item) -> None:
        try:
            await self.client.delete(ENDPOINTS, item.name, item.namespace, uid=item.uid)
        except NotFound:
            return

    async def _write(self, service: Item, current: Obj | None, wanted: Obj) -> None:
        try:
            if current is None:
                await self.client.create(ENDPOINTS, wanted, service.namespace)
            else:
                await self.client.update(ENDPOINTS, wanted)
        except ApiError as error:
            if is_namespace_terminating(error):
                return
            ref = {"kind": "Endpoints", "apiVersion": "v1", "namespace": service.namespace, "name": service.name}
            if current is None:
                reason, text = "FailedToCreateEndpoint", f"Failed to create endpoint for service {service.key}: {error.message}"
            else:
                reason, text = "FailedToUpdateEndpoint", f"Failed to update endpoint {service.key}: {error.message}"
            self.events.event(ref, WARNING, reason, text)
            raise


def plan_endpoints(service: ServiceFacts, current: Obj | None, subsets: list[Obj], truncated: bool, trigger: str) -> Obj | None:
    """The object to write, None when the current one says it all."""
    labels = dict(service.labels) | {MANAGED_BY: MANAGER}
    if not service.has_ip:
        labels[HEADLESS] = ""
    else:
        labels.pop(HEADLESS, None)
    metadata: Obj = dict(current["metadata"]) if current else {"name": service.key.name, "namespace": service.key.namespace}
    annotations = dict(metadata.get("annotations") or {})
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    else:
        annotations.pop(OVER_CAPACITY, None)
    if current is not None:
        same = (current.get("subsets") or []) == subsets and (metadata.get("labels") or {}) == labels
        if same and annotations == (metadata.get("annotations") or {}):
            return None
    if trigger:
        annotations[TRIGGER] = trigger
    else:
        annotations.pop(TRIGGER, None)
    metadata |= {"labels": labels, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}
