"""The things a node's network is made of, as data: what decides (Peer, Underlay, settings) and what should be (Wanted). Pure."""

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

VXLAN, HOST_GW = "vxlan", "host-gw"
KUBELET_PORT = 10250
HOST_MAC = "ee:ee:ee:ee:ee:ee"  # of the host's end of every pod's link
METRIC = {4: 0, 6: 1024}  # of our routes, as the kernel shows them


@dataclass(frozen=True, slots=True)
class Peer:
    """What matters of a Node. `addresses` are its InternalIPs, first: primary; `plain`: its kernel has no VXLAN."""

    name: str
    ranges: tuple[str, ...]
    addresses: tuple[str, ...]
    kubelet_port: int = KUBELET_PORT
    plain: bool = False

    @property
    def own(self) -> tuple[str, ...]:
        """The node's own addresses in its pod ranges."""
        return tuple(own_address(cidr) for cidr in self.ranges)


@dataclass(frozen=True, slots=True)
class Subnet:
    """One that this host is in, and the link to it."""

    cidr: str
    link: str


@dataclass(frozen=True, slots=True)
class Underlay:
    """What carries the overlay: an address of this host, on a link (index 0: on `lo`, so any link may be used)."""

    address: str
    index: int = 0
    mtu: int = 0
    subnets: tuple[Subnet, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayConfig:
    instance: str
    backend: str = VXLAN
    port: int = 8472
    mtu: int = 0  # 0: the backend's default, less if the uplink carries less

    @property
    def device(self) -> str:
        """Name of the tunnel: 11 characters."""
        return "ekv" + hashlib.sha256(f"vxlan/{self.instance}".encode()).hexdigest()[:8]

    @property
    def alias(self) -> str:
        return f"edgekube:{self.instance}/vxlan"


@dataclass(frozen=True, slots=True)
class Device:
    """The tunnel. What differs in `recreate` needs a new one."""

    name: str
    alias: str
    mac: str
    local: str
    uplink: int
    port: int
    mtu: int

    @property
    def recreate(self) -> tuple[object, ...]:
        return self.name, self.mac, self.local, self.uplink, self.port


@dataclass(frozen=True, slots=True)
class Local:
    """An address of this host. `passive`: it answers, but nothing of this host is sent from it (scope host)."""

    link: str
    address: str
    passive: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class RouteTo:
    """`gateway` "": directly on the link. `mtu` 0: the link's. `metric` as the kernel shows it: 1024 is what IPv6 calls none."""

    dst: str
    link: str
    gateway: str = ""
    source: str = ""
    mtu: int = 0
    metric: int = 0


@dataclass(frozen=True, slots=True)
class NeighbourAt:
    link: str
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Forward:
    """FDB entry: frames for `mac` go to the node at `address`."""

    link: str
    mac: str
    address: str


Thing = Local | RouteTo | NeighbourAt | Forward


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything this node should have. `links` must be up."""

    device: Device | None = None
    links: frozenset[str] = frozenset()
    addresses: frozenset[Local] = frozenset()
    routes: frozenset[RouteTo] = frozenset()
    neighbours: frozenset[NeighbourAt] = frozenset()
    forwards: frozenset[Forward] = frozenset()

    @property
    def things(self) -> "frozenset[Thing]":
        """All but links."""
        return self.addresses | self.routes | self.neighbours | self.forwards

    @staticmethod
    def joined(parts: "Iterable[Wanted]") -> "Wanted":
        """All of them together; at most one has a device."""
        every = tuple(parts)
        return Wanted(
            next((part.device for part in every if part.device is not None), None),
            frozenset[str]().union(*(part.links for part in every)),
            frozenset[Local]().union(*(part.addresses for part in every)),
            frozenset[RouteTo]().union(*(part.routes for part in every)),
            frozenset[NeighbourAt]().union(*(part.neighbours for part in every)),
            frozenset[Forward]().union(*(part.forwards for part in every)),
        )


@lru_cache(4096)
def own_address(cidr: str) -> str:
    """A node's own address in its pod range."""
    return str(ipaddress.ip_network(cidr)[1])


def family(text: str) -> int:
    """4 or 6, of an address or a range."""
    return 6 if ":" in text else 4
