"""The network component of a node: prepares the host, attaches and detaches pods, and keeps the ways to all other nodes.

Reads: all Nodes (pod ranges, addresses) and this host's addresses. Writes: links, addresses, routes, neighbours and FDB entries of this
host. Promises: the same pod keeps its address while it is attached, also across restarts of edgekube; nothing is torn down when edgekube
stops; what somebody takes apart (a link, a route, an address on `lo`, the link of a pod) is whole again within a second, and what is not
wanted on our own links goes; while nothing happens, nothing runs. Implements the kubelet's PodNetwork.

Level-triggered: whatever wakes it (a Node, an address, an rtnetlink event), one pass compares everything that is wanted with everything
there is. A pass costs some 2 ms with 100 nodes, all of it in the network thread.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekube.api.catalog import NODE
from edgekube.api.item import Item
from edgekube.api.types import Key
from edgekube.client.cache import Cache
from edgekube.client.protocol import Client
from edgekube.errors import ApiError
from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import Clock
from edgekube.lib.process import ProgramMissing
from edgekube.lib.receipt import NoNotes, Notes
from edgekube.network import kernel, links
from edgekube.network.addresses import HostAddresses
from edgekube.network.events import Expectation
from edgekube.network.guard import Guard, remove_guard
from edgekube.network.kernel import Outcome
from edgekube.network.links import PodLink
from edgekube.network.model import OverlayConfig, Peer, Wanted, family
from edgekube.network.plan import NO_TUNNEL, Overlay, overlay_mtu, peer_of, plan_node, plan_overlay
from edgekube.network.podlinks import PodLinks
from edgekube.network.publish import Publisher, State
from edgekube.network.rtnl import Message
from edgekube.network.selftest import SelfTest
from edgekube.network.thread import NetThread
from edgekube.network.watch import LINK, NEIGH, V4_ADDR, V4_ROUTE, V6_ADDR, V6_ROUTE, RtnlWatch

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.02  # a burst of events is one pass
WORST_PACE_SECONDS = 1.0  # between passes while somebody takes apart whatever we make
PATIENCE = 3  # refusals in a row before the Node says so: most are gone at the next pass
QUIET_SECONDS = 1.0  # after which a disturbance is a new one


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """`service_cidrs` and `dns`: up to one for each family. `run_dir`: pods' namespaces are pinned there, and the report is written."""

    node_name: str
    service_cidrs: Sequence[str]
    dns: Sequence[str]
    overlay: OverlayConfig
    run_dir: Path | None = None


class NodeNetwork:
    """See the module. One per node."""

    name = "network"

    def __init__(
        self, *, config: NetworkConfig, client: Client, addresses: HostAddresses, clock: Clock, receipt: Notes | None = None
    ) -> None:
        self._config, self._client, self._addresses, self._receipt = config, client, addresses, receipt or NoNotes()
        self._cache = Cache(client=client, sources=(NODE,))
        self._cache.on_change(NODE, self._node_changed)
        addresses.on_change(lambda _old, _new: self._wake.set())
        self._wake = asyncio.Event()
        self._thread = NetThread()
        self._lock = asyncio.Lock()
        self._expected = Expectation()
        sandboxes = config.run_dir / "pods" if config.run_dir is not None else None
        self._pods = PodLinks(thread=self._thread, lock=self._lock, expected=self._expected, common=self._pod_link, sandboxes=sandboxes)
        self._own = Peer(config.node_name, (), ())
        self._own_known = asyncio.Event()
        self._no_tunnel = False
        self._peers: dict[str, Peer] = {}
        self._overlay = Overlay()
        self._troubles: Sequence[str] = ()
        self._watches: list[RtnlWatch] = []
        self._retry = Backoff(base=0.2, cap=5.0)
        self._disturbed = False
        self._pace = Backoff(base=GATHER_SECONDS, cap=WORST_PACE_SECONDS)
        self._publisher = Publisher(node_name=config.node_name, client=client, clock=clock, folder=config.run_dir, state=self._state)
        self._guard = Guard(instance=config.overlay.instance, port=config.overlay.port)
        self._test = SelfTest(config=config.overlay, mend=self._wake.set, tell=self._publisher.tell)

    async def run(self, ready: asyncio.Event) -> None:
        """Find what is attached, then follow Nodes and the kernel.

        Ready before the own range is known: the kubelet registers the Node that gets one. It adopts pods whose addresses it asks for,
        though.
        """
        try:
            self._addresses.start()
            adopted = await self._pods.adopt(self._config.overlay.instance)
            ready.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._cache.run(), name="network/cache")
                await self._own_known.wait()
                await self._cache.wait_synced()
                await self._remember()
                self._start_watching()
                group.create_task(self._publisher.run(), name="network/publisher")
                group.create_task(self._guard.run(), name="network/guard")
                await self._reconcile()
                self._pods.use(self._own.ranges)
                self._publisher.tell()
                log.info("pod network ready", extra={"range": ",".join(self._own.ranges), "adopted": adopted})
                await self._follow()
        finally:
            for watch in self._watches:
                watch.close()
            await self._test.close()
            await self._thread.close()

    # what wakes it

    def _node_changed(self, old: Item | None, new: Item | None) -> None:
        if new is None:
            if old is not None and self._peers.pop(old.key.name, None) is not None:
                self._wake.set()
            return
        peer = peer_of(new.decode())
        if peer.name == self._config.node_name:
            self._own_changed(peer, fresh=old is None)
        elif self._peers.get(peer.name) != peer:
            self._peers[peer.name] = peer
            self._wake.set()

    def _own_changed(self, peer: Peer, *, fresh: bool) -> None:
        """`fresh`: the Node was made anew, without what we told of it."""
        if fresh:
            self._publisher.tell()
        if peer.ranges and peer != self._own:
            self._own = peer
            self._own_known.set()
            self._wake.set()

    def _start_watching(self) -> None:
        self._watches.append(RtnlWatch((LINK, V4_ADDR, V4_ROUTE, V6_ADDR, V6_ROUTE), self._event))
        neighbours = RtnlWatch((NEIGH,), self._event)
        self._watches.append(neighbours)
        neighbours.only_neighbours_of(())
        self._expected.on_links = neighbours.only_neighbours_of
        for watch in self._watches:
            watch.start()

    def _event(self, message: Message | None) -> None:
        if not self._disturbed and self._expected.contradicts(message):
            self._disturbed = True
            self._wake.set()

    # the work

    async def _remember(self) -> None:
        """What an earlier run found out about paths is in the kernel, too."""
        known = await self._thread.run(kernel.smaller_routes)
        for peer in self._peers.values():
            limit = min((known[cidr] for cidr in peer.ranges if cidr in known), default=0)
            if limit:
                self._test.path_mtu[peer.name] = limit

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        disturbed = loop.time()
        while True:
            await self._wake.wait()
            if loop.time() - disturbed > QUIET_SECONDS:
                self._pace.forget("")
            await asyncio.sleep(self._pace.delay("") if self._disturbed else GATHER_SECONDS)
            self._wake.clear()
            was, self._disturbed = self._disturbed, False
            if was:
                disturbed = loop.time()
            if await self._reconcile() and was:
                self._wake.set()  # until a look finds nothing to do: what stood behind something else shows now
            self._pods.use(self._own.ranges)

    async def _reconcile(self) -> int:
        """One pass. Returns how many things it changed."""
        async with self._lock:
            config, underlay = self._config.overlay, self._addresses.view.underlay()
            own = replace(self._own, plain=self._no_tunnel)
            self._overlay = plan_overlay(own, self._peers.values(), underlay=underlay, config=config, path_mtu=self._test.path_mtu)
            node = plan_node(own, services=self._config.service_cidrs, dns=self._config.dns)
            wanted = Wanted.joined((node, self._overlay.wanted, *self._pods.wanted()))
            names = set(self._pods.names)
            self._expected.expect(wanted)
            families = tuple(dict.fromkeys(map(family, own.ranges)))
            outcome = await self._thread.run(kernel.reconcile, wanted, config, pods=names, families=families, receipt=self._receipt)
            self._expected.reset(wanted, outcome.links, {config.device, *names})
            mended = await self._pods.mend(set(outcome.links.values()))
            if outcome.anew or mended:
                self._wake.set()  # what happened to a new link before its neighbours were watched is seen by one more pass
            self._guard.want([address for peer in self._peers.values() for address in peer.addresses])
            self._test.update(own, self._peers.values(), self._overlay, underlay, anew=outcome.anew)
        await self._judge(outcome)
        return outcome.repairs

    async def _judge(self, outcome: Outcome) -> None:
        if outcome.no_tunnel and not self._no_tunnel:
            log.warning("this kernel has no vxlan: only nodes of the same subnet are reached", extra={"fix": "modprobe vxlan"})
            self._no_tunnel = True
            self._wake.set()
        if self._own.plain != self._no_tunnel:
            await self._annotate()
        troubles = tuple(outcome.refusals)
        if not troubles:
            self._retry.forget("")
        told = troubles if self._retry.failures("") >= PATIENCE else ()
        if told != self._troubles:
            self._troubles = told
            self._publisher.tell()
        if not troubles:
            return
        delay = self._retry.delay("")
        extra = {"error": "; ".join(troubles[:3]), "count": len(troubles), "retry_seconds": round(delay, 1)}
        log.warning("network not as wanted", extra=extra)
        asyncio.get_running_loop().call_later(delay, self._wake.set)

    async def _annotate(self) -> None:
        """Others must know whether this kernel has VXLAN."""
        try:
            patch = {"metadata": {"annotations": {NO_TUNNEL: "true" if self._no_tunnel else None}}}
            await self._client.patch(NODE, self._config.node_name, "", patch)
        except ApiError as error:
            log.warning("node not annotated", extra={"annotation": NO_TUNNEL, "error": error.message})
            asyncio.get_running_loop().call_later(self._retry.delay("annotation"), self._wake.set)

    def _pod_link(self) -> PodLink:
        sources = {family(address): address for address in self._own.own}
        mtu = overlay_mtu(self._config.overlay, self._addresses.view.underlay())
        return PodLink(instance=self._config.overlay.instance, sources=sources, mtu=mtu)

    def _state(self) -> State:
        item = self._cache.get(NODE, Key("", self._config.node_name))
        verdicts = tuple(self._test.verdicts.values())
        return State(item.decode() if item is not None else None, self._addresses.node[0], verdicts, self._troubles)

    # for the kubelet

    @property
    def ready(self) -> bool:
        """Whether pods can be attached."""
        return self._pods.ready.is_set()

    async def attach(self, uid: str, netns: str, wanted: Sequence[str] = ()) -> Sequence[str]:
        """See PodNetwork. Waits until the node has a pod range. Raises RangeFull, LinkRefused."""
        return await self._pods.attach(uid, netns, wanted)

    async def detach(self, uid: str) -> None:
        await self._pods.detach(uid)

    def addresses(self, uid: str) -> Sequence[str]:
        return self._pods.addresses(uid)

    async def retain(self, uids: Sequence[str]) -> None:
        """Detach what belongs to pods that are gone."""
        await self._pods.retain(uids)


async def remove_network(instance: str) -> int:
    """For uninstall: every link, route and address of this instance. Returns how many links went."""
    thread = NetThread()
    try:
        found = await thread.run(links.attachments, instance)
        for attachment in found:
            await thread.run(links.remove_link, attachment.link)
        await thread.run(kernel.remove, OverlayConfig(instance=instance))
        with contextlib.suppress(ProgramMissing):
            await remove_guard(instance)
        return len(found)
    finally:
        await thread.close()
