"""The network component of a node: waits for the node's pod range, prepares the host, attaches and detaches pods.

Reads: its own Node (spec.podCIDR). Writes: links, addresses and routes of this host. Promises: the same pod keeps its address while it is
attached, also across restarts of edgekube; nothing is torn down when edgekube stops. Implements the kubelet's PodNetwork.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from edgekube.api.catalog import NODE
from edgekube.client.protocol import Client
from edgekube.errors import ApiError, Expired
from edgekube.network import links
from edgekube.network.ipam import Addresses
from edgekube.network.links import Attachment
from edgekube.network.thread import NetThread

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    node_name: str
    instance: str
    service_cidr: str
    dns: str


class NodeNetwork:
    """See the module. One per node."""

    name = "network"

    def __init__(self, *, config: NetworkConfig, client: Client) -> None:
        self._config = config
        self._client = client
        self._thread = NetThread()
        self._lock = asyncio.Lock()
        self._pool: Addresses | None = None
        self._pool_known = asyncio.Event()
        self._attached: dict[str, Attachment] = {}

    async def run(self, ready: asyncio.Event) -> None:
        """Find what is attached, then follow the Node until its pod range is known, then stay: attachments are made on demand.

        Ready before the range is known: the kubelet registers the Node that gets one. It adopts pods whose addresses it asks for, though.
        """
        try:
            await self._adopt()
            ready.set()
            cidr = await self._pod_cidr()
            await self._prepare(cidr)
            await asyncio.Event().wait()
        finally:
            await self._thread.close()

    async def _pod_cidr(self) -> str:
        while True:
            try:
                found = await self._client.list(NODE, fields=f"metadata.name={self._config.node_name}")
                for item in found.items:
                    if cidr := item.decode().get("spec", {}).get("podCIDR"):
                        return str(cidr)
                async with self._client.watch(NODE, revision=found.revision, fields=f"metadata.name={self._config.node_name}") as watch:
                    async for changes in watch:
                        for change in changes:
                            if change.item.raw and (cidr := change.item.decode().get("spec", {}).get("podCIDR")):
                                return str(cidr)
            except Expired:
                continue
            except ApiError as error:
                log.warning("pod range not readable", extra={"error": error.message})
                await asyncio.sleep(1)

    async def _adopt(self) -> None:
        """What an earlier run attached. The kernel alone tells; the netlink library is not loaded to learn that there is nothing."""
        if any(name.startswith("ek") for _, name in socket.if_nameindex()):
            for found in await self._thread.run(links.attachments, self._config.instance):
                self._attached[found.uid] = found

    async def _prepare(self, cidr: str) -> None:
        pool = Addresses(cidr)
        await self._thread.run(links.ensure_node, own=pool.own, service_cidr=self._config.service_cidr, dns=self._config.dns)
        for found in self._attached.values():
            if found.address:
                pool.claim(found.address, found.uid)
        self._pool = pool
        self._pool_known.set()
        log.info("pod network ready", extra={"range": cidr, "adopted": len(self._attached)})

    @property
    def ready(self) -> bool:
        """Whether pods can be attached."""
        return self._pool is not None

    async def attach(self, uid: str, netns: str) -> Sequence[str]:
        """See PodNetwork. Waits until the node has a pod range. Raises RangeFull."""
        await self._pool_known.wait()
        pool = self._pool
        if pool is None:
            raise RuntimeError("the pod range is known but not kept")
        async with self._lock:
            known = self._attached.get(uid)
            address = known.address if known is not None else pool.take(uid)
            wanted = Attachment(uid, links.link_name(self._config.instance, uid), address)
            try:
                await self._thread.run(links.ensure_pod, wanted, instance=self._config.instance, netns=netns, source=pool.own)
            except BaseException:
                if known is None:
                    pool.release(uid)
                raise
            self._attached.pop(wanted.link, None)  # the unfinished link found at start is finished now
            self._attached[uid] = wanted
        return (address,)

    async def detach(self, uid: str) -> None:
        async with self._lock:
            known = self._attached.pop(uid, None)
            if known is not None:
                await self._thread.run(links.remove_link, known.link)
                if self._pool is not None:
                    self._pool.release(uid)

    def addresses(self, uid: str) -> Sequence[str]:
        known = self._attached.get(uid)
        return (known.address,) if known is not None and known.address else ()

    async def retain(self, uids: Sequence[str]) -> None:
        """Detach what belongs to pods that are gone."""
        await self._pool_known.wait()
        for uid in set(self._attached) - set(uids):
            await self.detach(uid)


async def remove_network(instance: str) -> int:
    """For uninstall: every link and address of this instance. Returns how many links went."""
    thread = NetThread()
    try:
        found = await thread.run(links.attachments, instance)
        for attachment in found:
            await thread.run(links.remove_link, attachment.link)
        await thread.run(links.remove_node)
        return len(found)
    finally:
        await thread.close()
