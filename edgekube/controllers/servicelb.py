"""LoadBalancer Services without pods: shows the addresses of the nodes that carry each one; the nodes' proxies do the rest in the kernel.

Reads services, nodes, pods (host ports), endpointslices; writes services/status and Events. Carries Services without a class and those of
class `edgekube.io/node-lb`; others are left alone. Promises: what one Service gets depends only on older ones, and a port that becomes
free is given on at once.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence

from edgekube.api.catalog import ENDPOINT_SLICE, NODE, POD, SERVICE
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.derived import Derived
from edgekube.client.protocol import PatchType
from edgekube.client.recorder import NORMAL, WARNING, reference
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.loadbalancers import CONFLICT, Balancer, Carrier, Distribution, Port, balancer_of, carrier_of, plan_status
from edgekube.controllers.slices import SERVICE_NAME
from edgekube.errors import NotFound
from edgekube.lib.clock import rfc3339

_PORT, _NODE_PORT, _HOST_PORT, _OF = "lb-port", "node-port", "host-port", "of-service"


class ServiceLbController(Base):
    name = "service-controller"
    primary = SERVICE
    workers = 1  # what one Service gets is another's question

    def __init__(self, tools: Tools, *, listens: Mapping[str, Mapping[Port, str]]) -> None:
        """`listens`: ports that edgekube itself has on a node ("": on every node), with who has them."""
        super().__init__(tools)
        self._listens = listens
        self._balancers = Derived(self.cache, SERVICE, _balancer)
        self._carriers = Derived(self.cache, NODE, lambda item: self._with_listens(carrier_of(item.decode())))
        self.cache.add_index(SERVICE, _PORT, lambda item: _names(balancer.ports) if (balancer := _balancer(item)) else ())
        self.cache.add_index(SERVICE, _NODE_PORT, _node_ports)
        self.cache.add_index(POD, _HOST_PORT, _host_ports)
        self.cache.add_label_index(ENDPOINT_SLICE, SERVICE_NAME)

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(SERVICE, self._of_service), Maps(NODE, self._of_node), Maps(POD, self._of_pod), Maps(ENDPOINT_SLICE, self._of_slice))

    def _with_listens(self, carrier: Carrier) -> Carrier:
        more = {**self._listens.get("", {}), **self._listens.get(carrier.name, {}), **carrier.listens}
        return Carrier(carrier.name, carrier.addresses, carrier.ready, carrier.enabled, carrier.pool, more)

    # what wakes it

    def _of_service(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """Services that share a port with this one, before or after; and those that share one with them."""
        first = {port for item in (old, new) if item is not None and (balancer := _balancer(item)) for port in balancer.ports}
        ports = {(proto, number) for item in (old, new) if item is not None for proto, number in _split(_node_ports(item))}
        if old is not None and new is not None and _balancer(old) == _balancer(new) and _node_ports(old) == _node_ports(new):
            return ()
        return self._sharing(first | ports)

    def _sharing(self, ports: Iterable[Port]) -> set[Key]:
        found: set[Key] = set()
        seen, waiting = set(), list(ports)
        while waiting:
            port = waiting.pop()
            if port in seen:
                continue
            seen.add(port)
            for rival in self._rivals(port):
                if rival.key not in found:
                    found.add(rival.key)
                    waiting += rival.ports
        return found

    def _of_node(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """Heartbeats change nothing."""
        before = carrier_of(old.decode()) if old is not None else None
        after = carrier_of(new.decode()) if new is not None else None
        if before == after:
            return ()
        return {item.key for name in self.cache.index_values(SERVICE, _PORT) for item in self.cache.by_index(SERVICE, _PORT, name)}

    def _of_pod(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        before = set(_host_ports(old)) if old is not None else set()
        after = set(_host_ports(new)) if new is not None else set()
        ports = {(protocol, int(number)) for _, protocol, number in (name.split("|") for name in before ^ after)}
        return self._sharing(ports)

    def _of_slice(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """Only for those that want traffic where their endpoints are."""
        for item in (old, new):
            if item is not None and (name := item.labels.get(SERVICE_NAME)):
                service = self.cache.get(SERVICE, Key(item.namespace, name))
                balancer = self._balancers(service) if service is not None else None
                if balancer is not None and balancer.local:
                    yield from self._sharing(balancer.ports)

    # what it does

    async def reconcile(self, key: Key) -> Result:
        item = self.cache.get(SERVICE, key)
        if item is None:
            return DONE
        balancer = self._balancers(item)
        if balancer is None and CONFLICT.encode() not in item.raw:
            return DONE
        outcome = self._distribution().outcome(balancer) if balancer is not None else None
        service = item.decode()
        status = plan_status(service, outcome, rfc3339(self.clock.now()))
        if status is None:
            return DONE
        patch = {"metadata": {"uid": item.uid, "resourceVersion": str(item.revision)}, "status": status}
        try:
            await self.client.patch(SERVICE, key.name, key.namespace, patch, patch_type=PatchType.MERGE, subresource="status")
        except NotFound:
            return DONE
        self._tell(service, status)
        return DONE

    def _tell(self, service: Obj, status: Obj) -> None:
        ref = reference(service, SERVICE)
        ingress = status["loadBalancer"]["ingress"] or []
        before = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        for condition in status["conditions"] or ():
            if condition["type"] == CONFLICT:
                self.events.event(ref, WARNING, "PortConflict", condition["message"])
        if ingress and ingress != before:
            shown = ", ".join(entry["ip"] for entry in ingress)
            self.events.event(ref, NORMAL, "EnsuredLoadBalancer", f"Ensured load balancer on {shown}")

    def _distribution(self) -> Distribution:
        carriers = [self._carriers(item) for item in self.cache.list(NODE)]
        return Distribution(carriers=carriers, here=self._here, rivals=self._rivals, holder=self._holder)

    def _here(self, key: Key) -> frozenset[str]:
        """Nodes with a ready endpoint of the Service."""
        slices = [item for item in self.cache.by_index(ENDPOINT_SLICE, SERVICE_NAME, key.name) if item.namespace == key.namespace]
        endpoints = [endpoint for item in slices for endpoint in item.decode().get("endpoints") or ()]
        return frozenset(e.get("nodeName") or "" for e in endpoints if (e.get("conditions") or {}).get("ready") is not False)

    def _rivals(self, port: Port) -> Iterable[Balancer]:
        found = (self._balancers(item) for item in self.cache.by_index(SERVICE, _PORT, _name(port)))
        return [balancer for balancer in found if balancer is not None]

    def _holder(self, node: str, port: Port, asking: Key) -> str:
        for item in self.cache.by_index(POD, _HOST_PORT, f"{node}|{_name(port)}"):
            return f"pod {item.key} (its hostPort)"
        for item in self.cache.by_index(SERVICE, _NODE_PORT, _name(port)):
            if item.key != asking:
                return f"Service {item.key} (its nodePort)"
        return ""


def _balancer(item: Item) -> Balancer | None:
    return balancer_of(item.decode()) if b'"LoadBalancer"' in item.raw else None


def _name(port: Port) -> str:
    return f"{port[0]}|{port[1]}"


def _names(ports: Iterable[Port]) -> tuple[str, ...]:
    return tuple(_name(port) for port in ports)


def _split(names: Iterable[str]) -> list[Port]:
    return [(protocol, int(number)) for protocol, _, number in (name.partition("|") for name in names)]


def _node_ports(item: Item) -> tuple[str, ...]:
    if b'"nodePort":' not in item.raw:
        return ()
    ports = (item.decode().get("spec") or {}).get("ports") or ()
    return tuple(_name((port.get("protocol") or "TCP", port["nodePort"])) for port in ports if port.get("nodePort"))


def _host_ports(item: Item) -> tuple[str, ...]:
    """node|protocol|port of what a pod that has not ended takes from its node."""
    if b'"hostPort":' not in item.raw or item.fields.get("status.phase") in ("Succeeded", "Failed"):
        return ()
    spec = item.decode().get("spec") or {}
    node = spec.get("nodeName")
    if not node:
        return ()
    ports = (port for container in spec.get("containers") or () for port in container.get("ports") or ())
    return tuple(f"{node}|{_name((port.get('protocol') or 'TCP', port['hostPort']))}" for port in ports if port.get("hostPort"))
