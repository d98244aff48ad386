"""The network component of a node: prepares the host, attaches and detaches pods, and keeps the ways to all other nodes.

Reads: all Nodes (pod ranges, addresses) and this host's addresses. Writes: links, addresses, routes, neighbours and FDB entries of this
host. Promises: the same pod keeps its address while it is attached, also across restarts of edgekube; nothing is torn down when edgekube
stops; what somebody takes apart (a link, a route, an address on `lo`, the link of a pod) is whole again within a second, and what is not
wanted on our own links goes; while nothing happens, nothing runs. Implements the kubelet's PodNetwork.

Level-triggered: whatever wakes it (a Node, an address, an rtnetlink event), one pass compares everything that is wanted with everything
there is. A pass costs some 2 ms with 100 nodes, all of it in the network thread.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekube.api.catalog import NODE
from edgekube.api.item import Item
from edgekube.client.cache import Cache
from edgekube.client.protocol import Client
from edgekube.lib.backoff import Backoff
from edgekube.network import kernel, links
from edgekube.network.addresses import HostAddresses
from edgekube.network.events import Expectation
from edgekube.network.ipam import Pools
from edgekube.network.links import Attachment, LinkRefused, PodLink
from edgekube.network.model import OverlayConfig, Peer, Wanted, family
from edgekube.network.plan import Overlay, overlay_mtu, peer_of, plan_node, plan_overlay, plan_pod
from edgekube.network.rtnl import Message
from edgekube.network.thread import NetThread
from edgekube.network.watch import LINK, NEIGH, V4_ADDR, V4_ROUTE, V6_ADDR, V6_ROUTE, RtnlWatch

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.02  # a burst of events is one pass
WORST_PACE_SECONDS = 1.0  # between passes while somebody takes apart whatever we make
QUIET_SECONDS = 0.5  # after which a change is a new one


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """`service_cidrs` and `dns`: up to one for each family. `sandboxes`: where pods' namespaces are pinned, as <uid>/net."""

    node_name: str
    service_cidrs: Sequence[str]
    dns: Sequence[str]
    overlay: OverlayConfig
    sandboxes: Path | None = None


class NodeNetwork:
    """See the module. One per node."""

    name = "network"

    def __init__(self, *, config: NetworkConfig, client: Client, addresses: HostAddresses) -> None:
        self._config, self._addresses = config, addresses
        self._cache = Cache(client=client, sources=(NODE,))
        self._cache.on_change(NODE, self._node_changed)
        addresses.on_change(lambda _old, _new: self._wake.set())
        self._thread = NetThread()
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._own = Peer(config.node_name, (), ())
        self._own_known = asyncio.Event()
        self._peers: dict[str, Peer] = {}
        self._pools: Pools | None = None
        self._pool_known = asyncio.Event()
        self._attached: dict[str, Attachment] = {}
        self._netns: dict[str, str] = {}
        self._expected = Expectation()
        self._watch: RtnlWatch | None = None
        self._neighbours: RtnlWatch | None = None
        self._backoff = Backoff(base=0.2, cap=5.0)
        self._pace = Backoff(base=GATHER_SECONDS, cap=WORST_PACE_SECONDS)
        self.overlay = Overlay()

    async def run(self, ready: asyncio.Event) -> None:
        """Find what is attached, then follow Nodes and the kernel.

        Ready before the own range is known: the kubelet registers the Node that gets one. It adopts pods whose addresses it asks for,
        though.
        """
        try:
            self._addresses.start()
            await self._adopt()
            ready.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._cache.run(), name="network/cache")
                await self._own_known.wait()
                await self._cache.wait_synced()
                self._start_watching()
                await self._prepare()
                await self._follow()
        finally:
            for watch in (self._watch, self._neighbours):
                if watch is not None:
                    watch.close()
            await self._thread.close()

    # what wakes it

    def _node_changed(self, old: Item | None, new: Item | None) -> None:
        if new is None:
            if old is not None and self._peers.pop(old.key.name, None) is not None:
                self._wake.set()
            return
        peer = peer_of(new.decode())
        if peer.name == self._config.node_name:
            if peer.ranges and peer != self._own:
                self._own = peer
                self._own_known.set()
                self._wake.set()
        elif self._peers.get(peer.name) != peer:
            self._peers[peer.name] = peer
            self._wake.set()

    def _start_watching(self) -> None:
        self._watch = RtnlWatch((LINK, V4_ADDR, V4_ROUTE, V6_ADDR, V6_ROUTE), self._event)
        self._neighbours = RtnlWatch((NEIGH,), self._event)
        self._neighbours.only_neighbours_of(())
        self._watch.start()
        self._neighbours.start()

    def _event(self, message: Message | None) -> None:
        if not self._wake.is_set() and self._expected.contradicts(message):
            self._wake.set()

    # the work

    async def _adopt(self) -> None:
        """What an earlier run attached. The kernel alone tells; the netlink library is not loaded to learn that there is nothing."""
        if any(name.startswith("ek") for _, name in socket.if_nameindex()):
            for found in await self._thread.run(links.attachments, self._config.overlay.instance):
                self._attached[found.uid] = found

    async def _prepare(self) -> None:
        await self._reconcile()
        self._use_pools()
        self._pool_known.set()
        log.info("pod network ready", extra={"range": ",".join(self._own.ranges), "adopted": len(self._attached)})

    def _use_pools(self) -> None:
        """Also when the node has got another range: attached pods keep what they have."""
        if self._pools is not None and self._pools.ranges == self._own.ranges:
            return
        if self._pools is not None:
            log.warning("pod range changed", extra={"old": ",".join(self._pools.ranges), "new": ",".join(self._own.ranges)})
        self._pools = Pools(self._own.ranges)
        for found in self._attached.values():
            self._pools.claim(found.addresses, found.uid)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await self._wake.wait()
            if loop.time() - last > QUIET_SECONDS:
                self._pace.forget("")
            await asyncio.sleep(self._pace.delay(""))
            self._wake.clear()
            await self._reconcile()
            self._use_pools()
            last = loop.time()

    async def _reconcile(self) -> int:
        """One pass. Returns how many things had to be put right."""
        async with self._lock:
            overlay = self._config.overlay
            self.overlay = plan_overlay(self._own, self._peers.values(), underlay=self._addresses.view.underlay(), config=overlay)
            wanted = Wanted.joined((self._node_wants(), self.overlay.wanted, *map(self._pod_wants, self._attached.values())))
            names = {pod.link for pod in self._attached.values()}
            self._expected.expect(wanted)
            families = self._families()
            await self._thread.run(links.enable_forwarding, families)
            outcome = await self._thread.run(kernel.reconcile, wanted, overlay, pods=names, families=families)
            self._expected.reset(wanted, outcome.links, {overlay.device, *names})
            lost = await self._reattach(names - set(outcome.links.values()))
            self._watch_neighbours()
        self._tell(outcome.refusals, bool(outcome.repairs or lost))
        return outcome.repairs + lost

    def _tell(self, refusals: Sequence[str], repaired: bool) -> None:
        if not refusals:
            self._backoff.forget("")
            return
        delay = self._backoff.delay("")
        log.warning(
            "network not as wanted", extra={"error": "; ".join(refusals[:3]), "count": len(refusals), "retry_seconds": round(delay, 1)}
        )
        asyncio.get_running_loop().call_later(delay, self._wake.set)

    async def _reattach(self, lost: set[str]) -> int:
        """Pods whose link somebody deleted get a new one with the same address: their connections live on."""
        count = 0
        for pod in [pod for pod in self._attached.values() if pod.link in lost and pod.addresses]:
            netns = self._netns.get(pod.uid) or self._pinned(pod.uid)
            if not netns:
                continue
            try:
                await self._connect(pod, netns)
                count += 1
                log.warning("link of a pod was gone and is made again", extra={"uid": pod.uid, "link": pod.link})
            except LinkRefused as error:
                log.warning("link of a pod not made again", extra={"uid": pod.uid, "link": pod.link, "error": str(error)})
        return count

    def _pinned(self, uid: str) -> str:
        path = self._config.sandboxes / uid / "net" if self._config.sandboxes is not None else None
        return str(path) if path is not None and path.exists() else ""

    def _watch_neighbours(self) -> None:
        if self._neighbours is not None:
            self._neighbours.only_neighbours_of(self._expected.links)

    def _families(self) -> Sequence[int]:
        return tuple(dict.fromkeys(family(cidr) for cidr in self._own.ranges))

    def _node_wants(self) -> Wanted:
        return plan_node(self._own, services=self._config.service_cidrs, dns=self._config.dns)

    def _pod_wants(self, pod: Attachment) -> Wanted:
        return plan_pod(self._own, pod.link, pod.addresses, pod.mac)

    @property
    def ready(self) -> bool:
        """Whether pods can be attached."""
        return self._pool_known.is_set()

    # pods

    async def attach(self, uid: str, netns: str) -> Sequence[str]:
        """See PodNetwork. Waits until the node has a pod range. Raises RangeFull."""
        await self._pool_known.wait()
        pools = self._pools
        if pools is None:
            raise RuntimeError("the pod range is known but not kept")
        async with self._lock:
            known = self._attached.get(uid)
            addresses = known.addresses if known is not None else pools.take(uid)
            wanted = Attachment(uid, links.link_name(self._config.overlay.instance, uid), addresses)
            try:
                await self._connect(wanted, netns)
            except BaseException:
                if known is None:
                    pools.release(uid)
                raise
            self._attached.pop(wanted.link, None)  # the unfinished link found at start is finished now
        return addresses

    async def _connect(self, wanted: Attachment, netns: str) -> None:
        self._expected.expect(self._pod_wants(wanted))
        sources = {family(address): address for address in self._own.own}
        mtu = overlay_mtu(self._config.overlay, self._addresses.view.underlay())
        common = PodLink(instance=self._config.overlay.instance, sources=sources, mtu=mtu)
        made = await self._thread.run(links.ensure_pod, wanted, common, netns=netns)
        self._attached[wanted.uid], self._netns[wanted.uid] = made, netns
        self._expected.expect(self._pod_wants(made), socket.if_nametoindex(made.link), made.link)
        self._watch_neighbours()

    async def detach(self, uid: str) -> None:
        async with self._lock:
            known = self._attached.pop(uid, None)
            self._netns.pop(uid, None)
            if known is not None:
                self._expected.unexpect(self._pod_wants(known), known.link)
                await self._thread.run(links.remove_link, known.link)
                if self._pools is not None:
                    self._pools.release(uid)

    def addresses(self, uid: str) -> Sequence[str]:
        known = self._attached.get(uid)
        return known.addresses if known is not None else ()

    async def retain(self, uids: Sequence[str]) -> None:
        """Detach what belongs to pods that are gone."""
        await self._pool_known.wait()
        for uid in set(self._attached) - set(uids):
            await self.detach(uid)


async def remove_network(instance: str) -> int:
    """For uninstall: every link, route and address of this instance. Returns how many links went."""
    thread = NetThread()
    try:
        found = await thread.run(links.attachments, instance)
        for attachment in found:
            await thread.run(links.remove_link, attachment.link)
        await thread.run(kernel.remove, OverlayConfig(instance=instance))
        return len(found)
    finally:
        await thread.close()
