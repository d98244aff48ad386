"""ClusterIPs and node ports: who has which, in memory, rebuilt from the services that are stored.

A value is taken by a stored Service (known through its events) or by a write in flight (reserved before it, let go when it is decided:
by then a committed write is known through its event). One event loop, no await between look and take: no two writes get the same value.
Dynamic choices prefer the upper part of a range and leave the lower band to people who choose themselves (KEP-3070, KEP-3668).
"""

import ipaddress
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from edgekube.api import catalog
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.apiserver.objects import Objects

V = TypeVar("V", bound=Hashable)
_TRIES = 64


class Taken(Exception):
    """Somebody has it."""


class OutOfRange(Exception):
    """Not a value of this range."""


class Full(Exception):
    """Nothing is left."""


class Pool(Generic[V]):
    """Values of one range and how often each is held (twice for a moment, when a reservation becomes a stored object)."""

    def __init__(
        self, *, size: int, static: int, value: Callable[[int], V], contains: Callable[[V], bool], spared: Iterable[V] = ()
    ) -> None:
        self._size, self._static, self._value, self._contains = size, static, value, contains
        self._spared = frozenset(spared)  # never chosen, only given to who asks
        self._held: dict[V, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, value: V) -> None:
        """Raises OutOfRange or Taken."""
        if not self._contains(value):
            raise OutOfRange(value)
        if value in self._held:
            raise Taken(value)
        self.hold(value)

    def hold(self, value: V) -> None:
        """Count a holder without asking: it is a fact."""
        self._held[value] = self._held.get(value, 0) + 1

    def release(self, value: V) -> None:
        left = self._held.get(value, 0) - 1
        if left > 0:
            self._held[value] = left
        else:
            self._held.pop(value, None)

    def choose(self) -> V:
        """A free value, reserved. Raises Full."""
        for low, high in ((self._static, self._size), (0, self._static)):
            value = self._free(low, high)
            if value is not None:
                self.hold(value)
                return value
        raise Full

    def _free(self, low: int, high: int) -> V | None:
        if high <= low:
            return None
        for _ in range(_TRIES):
            value = self._value(random.randrange(low, high))
            if self._is_free(value):
                return value
        start = random.randrange(low, high)  # crowded: look at all, from a random place
        for index in range(high - low):
            value = self._value(low + (start - low + index) % (high - low))
            if self._is_free(value):
                return value
        return None

    def _is_free(self, value: V) -> bool:
        return value not in self._held and value not in self._spared


def address_pool(cidr: str, spared: Iterable[str] = ()) -> Pool[str]:
    """Addresses of a service range: not the network's own, not IPv4's broadcast."""
    network = ipaddress.ip_network(cidr)
    size = min(network.num_addresses - 2, 1 << 16) if network.version == 4 else min(network.num_addresses - 1, 1 << 16)

    def contains(text: str) -> bool:
        address = ipaddress.ip_address(text)
        return address in network and address != network.network_address and (network.version == 6 or address != network.broadcast_address)

    return Pool(
        size=size,
        static=_band(size, divisor=16, low=16, high=256),
        value=lambda offset: str(network[offset + 1]),
        contains=contains,
        spared=spared,
    )


def port_pool(ports: range) -> Pool[int]:
    """Node ports."""
    return Pool(
        size=len(ports),
        static=_band(len(ports), divisor=32, low=16, high=128),
        value=lambda offset: ports[offset],
        contains=lambda port: port in ports,
    )


def _band(size: int, *, divisor: int, low: int, high: int) -> int:
    """How much of a range's start is left to people. A range too small for a band has none."""
    return 0 if size < low else min(max(low, size // divisor), high)


def family_of(address: str) -> str:
    """Of an address or a range."""
    return "IPv6" if ":" in address else "IPv4"


class AddressPools:
    """One pool for each address family of the cluster. What is of another family is held by nobody."""

    def __init__(self, cidrs: Sequence[str], spared: Iterable[str] = ()) -> None:
        spared = tuple(spared)
        self._pools = {family_of(cidr): address_pool(cidr, spared) for cidr in cidrs}

    def __len__(self) -> int:
        return sum(map(len, self._pools.values()))

    def choose(self, family: str) -> str:
        """A free address, reserved. Raises Full."""
        return self._pools[family].choose()

    def take(self, address: str) -> None:
        """Raises OutOfRange or Taken."""
        pool = self._pools.get(family_of(address))
        if pool is None:
            raise OutOfRange(address)
        pool.take(address)

    def hold(self, address: str) -> None:
        if (pool := self._pools.get(family_of(address))) is not None:
            pool.hold(address)

    def release(self, address: str) -> None:
        if (pool := self._pools.get(family_of(address))) is not None:
            pool.release(address)


class ServiceValues:
    """What the stored services hold: follows their events. `service_cidr` is a range, or one of each family with a comma between."""

    def __init__(self, *, objects: Objects, service_cidr: str, node_ports: range, spared: Iterable[str] = ()) -> None:
        cidrs = service_cidr.split(",")
        self.addresses = AddressPools(cidrs, spared)
        self.ports = port_pool(node_ports)
        self.families = tuple(family_of(cidr) for cidr in cidrs)
        self.port_range = f"{node_ports.start}-{node_ports.stop - 1}"
        self._held: dict[Key, tuple[tuple[str, ...], tuple[int, ...]]] = {}
        self.close = objects.follow(catalog.SERVICE, self._changed)

    def _changed(self, old: Item | None, new: Item | None) -> None:
        item = new or old
        if item is None:
            return
        addresses, ports = self._held.pop(item.key, ((), ()))
        if new is not None:
            service = new.decode()
            held = (cluster_addresses(service), used_ports(service))
            self._held[item.key] = held
            for address in held[0]:
                self.addresses.hold(address)
            for port in held[1]:
                self.ports.hold(port)
        for address in addresses:
            self.addresses.release(address)
        for port in ports:
            self.ports.release(port)


def cluster_addresses(service: Obj) -> tuple[str, ...]:
    """The addresses a Service holds: none for headless and ExternalName."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return ()
    found = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return tuple(address for address in found if address and address != "None")


def used_ports(service: Obj) -> tuple[int, ...]:
    """The node ports a Service holds, each once: one number may serve TCP and UDP of the same Service."""
    spec = service.get("spec") or {}
    ports = {int(port["nodePort"]) for port in spec.get("ports") or () if port.get("nodePort")}
    if spec.get("healthCheckNodePort"):
        ports.add(int(spec["healthCheckNodePort"]))
    return tuple(sorted(ports))
