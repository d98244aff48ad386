"""The pods attached to this node: who has which addresses on which link, and how a link is made, made again and removed.

Reads and writes through the network thread; keeps the expectation of what the kernel has true, so that its own changes wake nobody.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from edgekube.network import links
from edgekube.network.events import Expectation
from edgekube.network.ipam import Pools
from edgekube.network.links import Attachment, LinkRefused, PodLink
from edgekube.network.model import Wanted
from edgekube.network.plan import plan_pod
from edgekube.network.thread import NetThread

log = logging.getLogger(__name__)


class PodLinks:
    """`common` tells what is the same for all pods now; `lock` is held by whoever compares the kernel with what is wanted."""

    def __init__(
        self, *, thread: NetThread, lock: asyncio.Lock, expected: Expectation, common: Callable[[], PodLink], sandboxes: Path | None
    ) -> None:
        self._thread, self._lock, self._expected, self._common, self._sandboxes = thread, lock, expected, common, sandboxes
        self._attached: dict[str, Attachment] = {}
        self._netns: dict[str, str] = {}
        self._pools: Pools | None = None
        self.ready = asyncio.Event()  # the node has pod ranges

    async def adopt(self, instance: str) -> int:
        """What an earlier run attached. The kernel alone tells; the netlink library is not loaded to learn that there is nothing."""
        if any(name.startswith("ek") for _, name in socket.if_nameindex()):
            for found in await self._thread.run(links.attachments, instance):
                self._attached[found.uid] = found
        return len(self._attached)

    def use(self, ranges: Sequence[str]) -> None:
        """The node's pod ranges. When they are others than before, attached pods keep what they have."""
        if self._pools is not None and self._pools.ranges == tuple(ranges):
            return
        if self._pools is not None:
            log.warning("pod range changed", extra={"old": ",".join(self._pools.ranges), "new": ",".join(ranges)})
        self._pools = Pools(ranges)
        for found in self._attached.values():
            self._pools.claim(found.addresses, found.uid)
        self.ready.set()

    @property
    def names(self) -> Collection[str]:
        """Of all links there should be."""
        return {pod.link for pod in self._attached.values()}

    def wanted(self) -> list[Wanted]:
        """The host's side of every pod."""
        return [self._wants(pod) for pod in self._attached.values()]

    def _wants(self, pod: Attachment) -> Wanted:
        return plan_pod(self._common().sources, pod.link, pod.addresses, pod.mac)

    async def mend(self, present: Collection[str]) -> int:
        """Pods whose link somebody deleted get a new one with the same address: their connections live on. Returns how many did."""
        count = 0
        for pod in [pod for pod in self._attached.values() if pod.link not in present and pod.addresses]:
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
        path = self._sandboxes / uid / "net" if self._sandboxes is not None else None
        return str(path) if path is not None and path.exists() else ""

    async def attach(self, uid: str, netns: str, wanted: Sequence[str] = ()) -> Sequence[str]:
        """See PodNetwork. Waits until the node has a pod range. Raises RangeFull, LinkRefused."""
        await self.ready.wait()
        pools = self._pools
        if pools is None:
            raise RuntimeError("the pod range is known but not kept")
        async with self._lock:
            known = self._attached.get(uid)
            addresses = known.addresses if known is not None else pools.take(uid, wanted)
            pod = Attachment(uid, links.link_name(self._common().instance, uid), addresses)
            try:
                await self._connect(pod, netns)
            except BaseException:
                if known is None:
                    pools.release(uid)
                raise
            self._attached.pop(pod.link, None)  # the unfinished link found at start is finished now
        return addresses

    async def _connect(self, wanted: Attachment, netns: str) -> None:
        self._expected.expect(self._wants(wanted))
        made = await self._thread.run(links.ensure_pod, wanted, self._common(), netns=netns)
        self._attached[wanted.uid], self._netns[wanted.uid] = made, netns
        self._expected.expect(self._wants(made), socket.if_nametoindex(made.link), made.link)

    async def detach(self, uid: str) -> None:
        """Idempotent."""
        async with self._lock:
            known = self._attached.pop(uid, None)
            self._netns.pop(uid, None)
            if known is not None:
                self._expected.unexpect(self._wants(known), known.link)
                await self._thread.run(links.remove_link, known.link)
                if self._pools is not None:
                    self._pools.release(uid)

    def addresses(self, uid: str) -> Sequence[str]:
        known = self._attached.get(uid)
        return known.addresses if known is not None else ()

    async def retain(self, uids: Sequence[str]) -> None:
        """Detach what belongs to pods that are gone."""
        await self.ready.wait()
        for uid in set(self._attached) - set(uids):
            await self.detach(uid)
