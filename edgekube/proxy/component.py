"""The service proxy of a node: reads Services, EndpointSlices and its own pods (for hostPort), writes one nftables table.

Promises: a change reaches the kernel with the next turn of the loop, in one transaction with whatever else changed; a table that somebody
flushed is back at once; nothing is removed when edgekube stops, and the start replaces the rules in one transaction (no packet is lost,
clients with affinity keep their endpoint). When nftables refuses, the proxy says so once and tries again with back-off.
"""

import asyncio
import logging
from collections import Counter as Tally
from dataclasses import dataclass, replace

from edgekube.api.catalog import ENDPOINT_SLICE, POD, SERVICE
from edgekube.api.item import Item
from edgekube.api.types import Key
from edgekube.client.cache import Cache, Source
from edgekube.client.protocol import Client
from edgekube.lib.backoff import Backoff
from edgekube.lib.metrics import counter, histogram
from edgekube.lib.nft import Nft, NftError, TableWatch
from edgekube.lib.tasks import TaskScope
from edgekube.proxy import conntrack
from edgekube.proxy.model import SERVICE_NAME, Front, Plan, Target, plan_host_ports, plan_service, stale_udp
from edgekube.proxy.ruleset import Frame, Tables, difference, tables_of, whole

log = logging.getLogger(__name__)

_SYNCS = histogram(
    "kubeproxy_sync_proxy_rules_duration_seconds", "Time of one change of the rules", buckets=(0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0)
)
_PODS = "pod:"
_FAILURES = counter("kubeproxy_sync_failures", "Changes that nftables refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    node_name: str
    instance: str
    cluster_cidr: str
    service_cidr: str

    @property
    def table(self) -> str:
        return f"edgekube_{self.instance}"


class Proxy:
    """See the module."""

    name = "proxy"

    def __init__(self, *, config: ProxyConfig, client: Client) -> None:
        self._config = config
        self._frame = Frame(table=config.table, pods=config.cluster_cidr, services=config.service_cidr)
        mine = Source(POD, fields=f"spec.nodeName={config.node_name}")
        self._cache = Cache(client=client, sources=(SERVICE, ENDPOINT_SLICE, mine))
        self._cache.add_index(ENDPOINT_SLICE, "service", _service_of)
        self._cache.on_change(SERVICE, self._service_changed)
        self._cache.on_change(ENDPOINT_SLICE, self._slice_changed)
        self._cache.on_change(POD, self._pod_changed)
        self._nft = Nft()
        self._plans: dict[Key, dict[Front, Target]] = {}
        self._pods: Tally[str] = Tally()
        self._counts: frozenset[str] = frozenset()
        self._dirty: set[Key] = set()
        self._wake = asyncio.Event()
        self._whole = True
        self._scope = TaskScope("proxy")

    async def run(self, ready: asyncio.Event) -> None:
        watch = TableWatch(self._config.table, self._flushed)
        backoff = Backoff(base=0.5, cap=30, jitter=0.2)
        async with self._scope, asyncio.TaskGroup() as group:
            watcher = group.create_task(self._cache.run(), name="proxy/cache")
            await self._cache.wait_synced()
            watch.start()
            try:
                while True:
                    self._wake.clear()
                    try:
                        with _SYNCS.time():
                            await self._sync(watch)
                        backoff.forget("sync")
                        ready.set()
                        await self._wake.wait()
                    except NftError as error:
                        await self._failed(error, backoff)
            finally:
                watch.close()
                watcher.cancel()
                self._nft.close()

    async def _failed(self, error: NftError, backoff: Backoff) -> None:
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

    def _pod_changed(self, old: Item | None, new: Item | None) -> None:
        item = new or old
        if item is not None and (b'"hostPort":' in item.raw or _pod_key(item.key) in self._plans):
            self._touch(_pod_key(item.key))

    def _touch(self, key: Key) -> None:
        self._dirty.add(key)
        self._wake.set()

    def _flushed(self) -> None:
        log.warning("somebody changed our nftables table; writing it again", extra={"table": self._config.table})
        self._whole = True
        self._wake.set()

    async def _sync(self, watch: TableWatch) -> None:
        dirty, self._dirty = self._dirty, set()
        before = {key: self._plans.get(key, {}) for key in dirty}
        after = {key: self._plan(key) for key in dirty}
        involved = {address for plans in (before, after) for address in _addresses(_joined(plans))}
        old = replace(self._tables(before, involved), counts=self._counts)
        self._adopt(before, after)
        new = self._tables(after, involved)
        try:
            with watch.own_change():
                if self._whole:
                    self._whole = False  # before: a flush meanwhile sets it again
                    await self._write_whole()
                elif commands := difference(self._frame, old, new):
                    await self._nft.apply(commands)
                    self._counts |= new.counts
        except NftError:
            self._dirty |= dirty
            raise
        stale = stale_udp(_joined(before), _joined(after))
        if stale:
            self._scope.spawn(conntrack.forget(conntrack.stale_flows(stale)), name="conntrack")

    def _plan(self, key: Key) -> dict[Front, Target]:
        if key.namespace.startswith(_PODS):
            pod = self._cache.get(POD, Key(key.namespace.removeprefix(_PODS), key.name))
            return plan_host_ports(pod.decode()) if pod is not None else {}
        service = self._cache.get(SERVICE, key)
        if service is None:
            return {}
        slices = (item.decode() for item in self._cache.by_index(ENDPOINT_SLICE, "service", str(key)))
        return plan_service(service.decode(), slices, self._config.node_name)

    def _adopt(self, before: dict[Key, dict[Front, Target]], after: dict[Key, dict[Front, Target]]) -> None:
        for key, targets in after.items():
            self._pods.subtract(_addresses(before[key]))
            self._pods.update(_addresses(targets))
            if targets:
                self._plans[key] = targets
            else:
                self._plans.pop(key, None)

    def _tables(self, plans: dict[Key, dict[Front, Target]], involved: set[str]) -> Tables:
        """The part of the tables these Services need, as things stand: an address that another Service uses counts as there."""
        return tables_of(Plan(_joined(plans), frozenset(address for address in involved if self._pods[address] > 0)))

    async def _write_whole(self) -> None:
        wanted = tables_of(Plan(_joined(self._plans), frozenset(+self._pods)))
        chains, sets = await self._nft.names(self._config.table)
        table = self._config.table
        stale_chains = [name for name in chains if name[:2] in ("a_", "e_") and name not in wanted.affinity]
        stale_sets = [name for name in sets if name.startswith("c_") and name not in wanted.sets]
        leftovers = [f"delete chain ip {table} {name}" for name in sorted(stale_chains)]
        leftovers += [f"delete set ip {table} {name}" for name in stale_sets]
        try:
            await self._nft.apply_whole(whole(self._frame, wanted, leftovers=leftovers))
        except NftError:  # an older version's table may have another shape
            await self._nft.apply_whole(f"add table ip {table}\ndelete table ip {table}\n" + whole(self._frame, wanted))
        self._counts = wanted.counts


def _pod_key(key: Key) -> Key:
    """Pods and Services share the table of plans: a namespace can not contain the mark."""
    return Key(_PODS + key.namespace, key.name)


def _service_of(item: Item) -> tuple[str, ...]:
    name = item.labels.get(SERVICE_NAME)
    return (f"{item.namespace}/{name}",) if name else ()


def _joined(plans: dict[Key, dict[Front, Target]]) -> dict[Front, Target]:
    return {front: target for targets in plans.values() for front, target in targets.items()}


def _addresses(targets: dict[Front, Target]) -> set[str]:
    return {endpoint.address for target in targets.values() for endpoint in target.endpoints}


async def remove_rules(instance: str) -> None:
    """For uninstall: our table, whole."""
    nft = Nft()
    try:
        await nft.delete_table(f"edgekube_{instance}")
    finally:
        nft.close()
