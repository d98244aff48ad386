"""The addresses of this host and, of them, the node's: followed live, found without sending a packet, needing neither a default route nor
an uplink.

Which is the node's, for each family of the pod ranges: `--node-ip` if given; else the one the default route would use; else the one it
had; else any, that of a bridge for other containers or virtual machines last. Never one of the cluster's own, loopback or link-local. An
address that goes without a successor stays the node's: it has no better one, and most come back. With nothing but `lo`, the node's own
address in the pod range stands in.

Reads rtnetlink and answers from the last look. A burst of changes (a DHCP renewal takes an address away and adds another) is one change.
Heavy libraries stay out: this is used by servers without a node, too.
"""

import asyncio
import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from edgekube.network.model import HOST_MAC, Subnet, Underlay, family
from edgekube.network.rtnl import DELADDR, DELLINK, DELROUTE, NEWADDR, NEWLINK, NEWROUTE, Link, Message, Reader, address_of, link_of
from edgekube.network.watch import LINK, V4_ADDR, V4_ROUTE, V6_ADDR, V6_ROUTE, RtnlWatch

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.1
# networks of other containers and of virtual machines inside this machine
_INNER = re.compile(r"docker|virbr|podman|cni|lxcbr|lxdbr|vboxnet|vmnet|br-[0-9a-f]{12}$")
_TEMPORARY, _FAILED, _DEPRECATED, _TENTATIVE = 0x01, 0x08, 0x20, 0x40
_PROBES = {4: "192.0.2.1", 6: "2001:db8::1"}  # documentation addresses: a UDP connect only looks at the routes


@dataclass(frozen=True, slots=True)
class HostAddress:
    """One usable address, on a link that is up."""

    address: str
    prefix: int
    link: str
    ifindex: int
    mtu: int


@dataclass(frozen=True, slots=True)
class HostView:
    """`node`: the node's addresses, first: primary. `all`: every usable one."""

    node: tuple[str, ...] = ()
    all: tuple[HostAddress, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Everything under which others may know this host, the node's first."""
        return tuple(dict.fromkeys((*self.node, *(entry.address for entry in self.all))))

    def underlay(self) -> Underlay | None:
        """What carries the overlay: the node's primary address, if the host has it now."""
        subnets = tuple(Subnet(str(ipaddress.ip_network(f"{at.address}/{at.prefix}", strict=False)), at.link) for at in self.all)
        for wanted in self.node:
            for at in self.all:
                if at.address == wanted:
                    return Underlay(wanted, 0, 0, subnets) if at.link == "lo" else Underlay(wanted, at.ifindex, at.mtu, subnets)
        return None


def choose(
    configured: Sequence[str],
    candidates: Sequence[str],
    preferred: Mapping[int, str],
    before: Sequence[str],
    families: Sequence[int],
    inner: Collection[str] = (),
) -> tuple[str, ...]:
    """The node's addresses. Pure.

    `preferred`: the source address of the default route, by family. `inner`: taken only if there is no other.
    """
    if configured:
        return tuple(configured)
    found = []
    for kind in families:
        usable = [address for address in candidates if family(address) == kind]
        outer = [address for address in usable if address not in inner] or usable
        old = [address for address in before if family(address) == kind]
        best = preferred.get(kind, "")
        found += [best] if best in usable else [address for address in old if address in outer][:1] or outer[:1] or old[:1]
    if not found and candidates:
        found = [next((address for address in candidates if address not in inner), candidates[0])]
    return tuple(found) or tuple(before[:1])


class HostAddresses:
    """Component; see the module. Make it in the namespace it looks at."""

    name = "addresses"

    def __init__(self, *, node_ips: Sequence[str] = (), cluster: Sequence[str], excluded: Sequence[str] = ()) -> None:
        """`cluster`: the pod ranges, which also say the families that matter; `excluded`: other ranges of the cluster's own."""
        self._configured = tuple(node_ips)
        self._families = tuple(dict.fromkeys(family(cidr) for cidr in cluster))
        self._own = [ipaddress.ip_network(cidr) for cidr in (*cluster, *excluded)]
        self._last_resort = str(ipaddress.ip_network(cluster[0])[1])
        self._handlers: list[Callable[[HostView, HostView], None]] = []
        self._known: dict[tuple[int, str], tuple[object, ...]] = {}
        self._reader = Reader()
        self._watch: RtnlWatch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._shadowed: set[str] = set()
        self._view = HostView()
        self._view = self._look()

    @property
    def view(self) -> HostView:
        return self._view

    @property
    def node(self) -> Sequence[str]:
        """The node's addresses, first: primary. Never empty."""
        return self._view.node

    def on_change(self, handler: Callable[[HostView, HostView], None]) -> None:
        """Call `handler(old, new)` on the loop, when an address, its link or the choice has changed."""
        self._handlers.append(handler)

    async def run(self, ready: asyncio.Event) -> None:
        """Follow until cancelled."""
        self.start()
        ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.close()

    def start(self) -> None:
        """Follow from now on; needs a running loop. Calling it again does nothing."""
        if self._watch is None:
            self._watch = RtnlWatch((LINK, V4_ADDR, V4_ROUTE, V6_ADDR, V6_ROUTE), self._event)
            self._watch.start()
            self._settle()

    def close(self) -> None:
        """Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._reader.close()

    def _event(self, message: Message | None) -> None:
        if (message is None or self._matters(message)) and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._settle)

    def _matters(self, message: Message) -> bool:
        """Router advertisements and wireless drivers tell again what is known: not news."""
        if message.kind in (NEWROUTE, DELROUTE):
            return message.body[1] == 0  # a default route
        if message.kind == NEWADDR:
            address = address_of(message.body)
            facts = address.prefix, address.flags & (_FAILED | _DEPRECATED | _TENTATIVE)
            return not _link_local(address.address) and self._news((address.ifindex, address.address), facts)
        if message.kind == NEWLINK:
            link = link_of(message.body)
            return not _ours(link) and self._news((link.ifindex, ""), (link.name, link.up, link.mtu))
        if message.kind == DELADDR:
            gone = address_of(message.body)
            self._known.pop((gone.ifindex, gone.address), None)
            return not _link_local(gone.address)
        return message.kind == DELLINK and self._known.pop((link_of(message.body).ifindex, ""), None) is not None

    def _news(self, key: tuple[int, str], facts: tuple[object, ...]) -> bool:
        before, self._known[key] = self._known.get(key), facts
        return before != facts

    def _settle(self) -> None:
        self._timer = None
        old, new = self._view, self._look()
        if new == old:
            return
        self._view = new
        if new.node != old.node:
            log.info("node address changed", extra={"old": ",".join(old.node), "new": ",".join(new.node)})
        for handler in self._handlers:
            handler(old, new)

    def _look(self) -> HostView:
        links = {link.ifindex: link for link in self._reader.links()}
        found, shadowed = [], set()
        for entry in self._reader.addresses():
            link = links.get(entry.ifindex)
            if link is None or not link.up or _ours(link):
                continue
            if self._usable(entry.address, entry.flags):
                found.append(HostAddress(entry.address, entry.prefix, link.name, link.ifindex, link.mtu))
            elif link.name != "lo" and self._in_cluster(entry.address):
                shadowed.add(f"{entry.address}/{entry.prefix} on {link.name}")
        self._warn(shadowed)
        preferred = {kind: _default_source(kind) for kind in (4, 6)}
        candidates = [entry.address for entry in found]
        inner = [entry.address for entry in found if _INNER.match(entry.link)]
        node = choose(self._configured, candidates, preferred, self._view.node, self._families, inner)
        return HostView(node or (self._last_resort,), tuple(found))

    def _warn(self, shadowed: set[str]) -> None:
        """This host has come into a network that uses the cluster's ranges: it can not be used, and parts of it can not be reached."""
        for text in sorted(shadowed - self._shadowed):
            log.warning("an address of this host is in a range of the cluster and is not used", extra={"address": text})
        self._shadowed = shadowed

    def _in_cluster(self, text: str) -> bool:
        address = ipaddress.ip_address(text)
        return any(address in network for network in self._own)

    def _usable(self, text: str, flags: int) -> bool:
        address = ipaddress.ip_address(text)
        if address.is_loopback or address.is_link_local or self._in_cluster(text):
            return False
        return address.version == 4 or not flags & (_TEMPORARY | _FAILED | _DEPRECATED | _TENTATIVE)


def _link_local(address: str) -> bool:
    """Every IPv6 link has one: they come and go with each pod."""
    return address.startswith("fe80:")


def _ours(link: Link) -> bool:
    return link.alias.startswith("edgekube:") or link.mac == HOST_MAC


def _default_source(kind: int) -> str:
    try:
        with socket.socket(socket.AF_INET6 if kind == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((_PROBES[kind], 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""
