"""The service proxy of a node: reads Services, EndpointSlices, its own Node and its own pods (for hostPort), drives one backend.

Promises: a change reaches the kernel with the next turn of the loop, in one transaction with whatever else changed; rules that somebody
else changed are back at once; nothing is removed when edgekube stops, and the start replaces the rules in one transaction (no packet is
lost, clients with affinity keep their endpoint). When the kernel refuses, the proxy says so once and tries again with back-off.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekube.api.catalog import ENDPOINT_SLICE, NODE, POD, SERVICE
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.cache import Cache, Source
from edgekube.client.protocol import Client
from edgekube.client.recorder import WARNING, Recorder
from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import Clock, SystemClock
from edgekube.lib.metrics import counter, histogram
from edgekube.lib.receipt import NoNotes, Notes
from edgekube.lib.tasks import TaskScope
from edgekube.proxy import conntrack
from edgekube.proxy.backend import Backend, BackendError, Node
from edgekube.proxy.book import Book
from edgekube.proxy.choice import Place
from edgekube.proxy.health import HealthServers, ProxyHealth
from edgekube.proxy.model import Endpoint, Front, Target, Targets, changes, stale_udp
from edgekube.proxy.modes import ChosenBackend
from edgekube.proxy.services import SERVICE_NAME, ServicePlan, plan_host_ports, plan_service

log = logging.getLogger(__name__)

_SYNCS = histogram(
    "kubeproxy_sync_proxy_rules_duration_seconds", "Time of one change of the rules", buckets=(0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0)
)
_PODS = "pod:"
API = Key("default", "kubernetes")
_CHUNK = 50  # Services planned in one turn of the loop
_FAILURES = counter("kubeproxy_sync_failures", "Changes that the kernel refused")
_ZONE = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """The ranges have one entry per address family. `mode` "": the best this kernel can do. `health_port` 0: no /healthz."""

    node_name: str
    instance: str
    cluster_cidrs: tuple[str, ...]
    service_cidrs: tuple[str, ...]
    mode: str = ""
    health_port: int = 0
    run_dir: Path | None = None
    receipt: Notes = field(default_factory=NoNotes, compare=False)

    @property
    def node(self) -> Node:
        return Node(instance=self.instance, pods=self.cluster_cidrs, services=self.service_cidrs, receipt=self.receipt)


class Proxy:
    """See the module."""

    name = "proxy"

    def __init__(self, *, config: ProxyConfig, client: Client, backend: Backend | None = None, clock: Clock | None = None) -> None:
        self._config, self._client, self._clock = config, client, clock or SystemClock()
        self._backend: Backend = backend or ChosenBackend(
            config.node, wanted=config.mode, run_dir=config.run_dir, passed=self._passed_over
        )
        self._place = Place(config.node_name)
        self._api: frozenset[tuple[str, int]] = frozenset()  # where the API server itself listens
        mine = Source(POD, fields=f"spec.nodeName={config.node_name}")
        own = Source(NODE, fields=f"metadata.name={config.node_name}")
        self._cache = Cache(client=client, sources=(SERVICE, ENDPOINT_SLICE, mine, own))
        self._cache.add_index(ENDPOINT_SLICE, "service", _service_of)
        self._cache.on_change(SERVICE, self._service_changed)
        self._cache.on_change(ENDPOINT_SLICE, self._slice_changed)
        self._cache.on_change(POD, self._pod_changed)
        self._cache.on_change(NODE, self._node_changed)
        self._health = ProxyHealth(self._clock)
        self._servers = HealthServers(proxy=self._health, port=config.health_port)
        self._book = Book()
        self._stale: dict[Front, frozenset[Endpoint]] = {}
        self._dirty: set[Key] = set()
        self._wake = asyncio.Event()
        self._whole = True
        self._scope = TaskScope("proxy")

    async def run(self, ready: asyncio.Event) -> None:
        backoff = Backoff(base=0.5, cap=30, jitter=0.2)
        async with self._scope, asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._cache.run(), name="proxy/cache"), group.create_task(self._servers.run(), name="proxy/health")]
            await self._cache.wait_synced()
            self._backend.watch(self._disturbed)
            try:
                while True:
                    self._wake.clear()
                    try:
                        with _SYNCS.time():
                            await self._sync()
                        backoff.forget("sync")
                        ready.set()
                        await self._wake.wait()
                    except BackendError as error:
                        await self._failed(error, backoff)
            finally:
                self._backend.close()
                for task in tasks:
                    task.cancel()

    def _passed_over(self, wanted: str, used: str, why: str) -> None:
        """People who look at the node are told."""
        recorder = Recorder(client=self._client, component="edgekube", clock=self._clock, host=self._config.node_name)
        node: Obj = {"kind": "Node", "name": self._config.node_name, "uid": self._config.node_name, "apiVersion": "v1"}
        recorder.event(node, WARNING, "ProxyModeNotPossible", f"Services go through {used}: this kernel can not do {wanted} ({why})")
        self._scope.spawn(recorder.run(), name="events")

    async def _failed(self, error: BackendError, backoff: Backoff) -> None:
        _FAILURES.inc()
        self._whole = True
        delay = backoff.delay("sync")
        log.warning("service rules refused", extra={"error": str(error), "retry_seconds": round(delay, 1)})
        if backoff.failures("sync") > 1:
            await asyncio.sleep(delay)

    def _service_changed(self, old: Item | None, new: Item | None) -> None:
        item = new or old
        if item is not None:
            self._touch(item.key)

    def _slice_changed(self, old: Item | None, new: Item | None) -> None:
        for item in (old, new):
            if item is not None and (name := item.labels.get(SERVICE_NAME)):
                self._touch(Key(item.namespace, name))
                if Key(item.namespace, name) == API:
                    self._api_moved()

    def _api_moved(self) -> None:
        """No Service may stand in for the API server: who may set `externalIPs` could cut nodes off from it otherwise."""
        slices = self._cache.by_index(ENDPOINT_SLICE, "service", str(API))
        found = frozenset(address for item in slices for address in listening(item.decode()))
        if found != self._api:
            self._api = found
            for item in self._cache.list(SERVICE):
                self._touch(item.key)

    def _pod_changed(self, old: Item | None, new: Item | None) -> None:
        item = new or old
        if item is not None and (b'"hostPort":' in item.raw or _pod_key(item.key) in self._book):
            self._touch(_pod_key(item.key))

    def _node_changed(self, _old: Item | None, new: Item | None) -> None:
        """Heartbeats say nothing new; a node that moved looks at every Service again."""
        if new is None:
            return
        node = new.decode()
        self._health.see_node(node)
        place = place_of(node)
        if place != self._place:
            self._place = place
            for item in self._cache.list(SERVICE):
                self._touch(item.key)

    def _touch(self, key: Key) -> None:
        self._dirty.add(key)
        self._health.queued()
        self._wake.set()

    def _disturbed(self) -> None:
        log.warning("somebody changed our service rules; writing them again", extra={"backend": self._backend.name})
        self._whole = True
        self._wake.set()

    async def _sync(self) -> None:
        dirty, self._dirty = self._dirty, set()
        old, new = await self._adopt(list(dirty))
        self._stale |= stale_udp(old, new)
        if self._whole:
            self._whole = False  # before: a disturbance meanwhile sets it again
            await self._backend.replace(self._book.all())
        elif old or new:
            await self._backend.apply(old, new)
        if not self._dirty:
            self._health.done()
        if self._stale:
            stale, self._stale = self._stale, {}
            self._scope.spawn(conntrack.forget(stale), name="conntrack")

    async def _adopt(self, keys: Sequence[Key]) -> tuple[Targets, Targets]:
        """Plan again, into the book; returns what differs of what holds. Many at once leave the loop to others in between."""
        old: dict[Front, Target] = {}
        fronts: set[Front] = set()
        for start in range(0, len(keys), _CHUNK):
            if start:
                await asyncio.sleep(0)
            plans = {key: self._plan(key) for key in keys[start : start + _CHUNK]}
            touched = {front for key, (_, plan) in plans.items() for front in (*self._book.fronts(key), *plan.targets)} - fronts
            old |= self._book.get(touched)
            fronts |= touched
            for key, (since, plan) in plans.items():
                self._book.put(key, since, plan.targets)
                self._servers.put(key, plan.health)
        return changes(old, self._book.get(fronts))

    def _plan(self, key: Key) -> tuple[str, ServicePlan]:
        """And since when its claims count."""
        if key.namespace.startswith(_PODS):
            pod = self._cache.get(POD, Key(key.namespace.removeprefix(_PODS), key.name))
            if pod is None:
                return "", ServicePlan()
            obj = pod.decode()
            return obj["metadata"].get("creationTimestamp") or "", plan_host_ports(obj)
        service = self._cache.get(SERVICE, key)
        if service is None:
            return "", ServicePlan()
        obj = service.decode()
        slices = (item.decode() for item in self._cache.by_index(ENDPOINT_SLICE, "service", str(key)))
        plan = plan_service(obj, slices, self._place)
        if any((front.address, front.port) in self._api for front in plan.targets):
            plan = replace(plan, targets={f: t for f, t in plan.targets.items() if (f.address, f.port) not in self._api})
        return obj["metadata"].get("creationTimestamp") or "", plan


def place_of(node: Obj) -> Place:
    """Where this node is, from its object."""
    metadata = node["metadata"]
    addresses = ((node.get("status") or {}).get("addresses")) or ()
    own = tuple(entry["address"] for entry in addresses if entry.get("type") in ("InternalIP", "ExternalIP"))
    return Place(metadata["name"], (metadata.get("labels") or {}).get(_ZONE, ""), own)


def listening(slice_: Obj) -> Iterator[tuple[str, int]]:
    """Addresses and ports behind a slice."""
    for endpoint in slice_.get("endpoints") or ():
        for address in endpoint["addresses"]:
            yield from ((address, port["port"]) for port in slice_.get("ports") or () if port.get("port"))


def _pod_key(key: Key) -> Key:
    """Pods and Services share the book: a namespace can not contain the mark."""
    return Key(_PODS + key.namespace, key.name)


def _service_of(item: Item) -> tuple[str, ...]:
    name = item.labels.get(SERVICE_NAME)
    return (f"{item.namespace}/{name}",) if name else ()
