"""Addresses of one node's pod range, handed out round robin so that an address rests as long as possible before it is used again.

Pure memory: after a restart the addresses in use are told by the kernel's links (see attach.py).
"""

import ipaddress
from collections.abc import Sequence


class RangeFull(Exception):
    """Every address of the node's pod range is in use."""


class Addresses:
    """The allocator. The first host address (.1) is the node's own; network and broadcast addresses are never given out."""

    def __init__(self, cidr: str) -> None:
        self.network = ipaddress.ip_network(cidr)
        if self.network.num_addresses < 8:
            raise ValueError(f"pod range {cidr} is too small")
        self.own = str(self.network[1])
        self._size = self.network.num_addresses
        self._next = 2
        self._used: dict[str, str] = {}

    def __contains__(self, address: str) -> bool:
        return ipaddress.ip_address(address) in self.network

    def claim(self, address: str, owner: str) -> None:
        """Note an address found in use."""
        self._used[address] = owner
        if address in self:
            self._next = max(self._next, int(ipaddress.ip_address(address)) - int(self.network[0]) + 1)

    def take(self, owner: str, wanted: Sequence[str] = ()) -> str:
        """A free address; one of `wanted` if that is free. Raises RangeFull."""
        for address in wanted:
            if address not in self._used and self._gives(address):
                self._used[address] = owner
                return address
        for step in range(self._size):
            offset = 2 + (self._next - 2 + step) % (self._size - 3)
            address = str(self.network[offset])
            if address not in self._used:
                self._used[address] = owner
                self._next = offset + 1
                return address
        raise RangeFull(f"all addresses of {self.network} are in use")

    def _gives(self, address: str) -> bool:
        """Whether it is one that could be given out."""
        found = ipaddress.ip_address(address)
        return found in self.network and 2 <= int(found) - int(self.network[0]) < self._size - 1

    def release(self, owner: str) -> None:
        for address in [address for address, held in self._used.items() if held == owner]:
            del self._used[address]


class Pools:
    """One allocator for each of the node's ranges (one for each family): a pod gets an address of each, or none."""

    def __init__(self, ranges: Sequence[str]) -> None:
        self.ranges = tuple(ranges)
        self._pools = [Addresses(cidr) for cidr in ranges]

    def claim(self, addresses: Sequence[str], owner: str) -> None:
        """Note addresses found in use."""
        for address in addresses:
            for pool in self._pools:
                if pool.network.version == ipaddress.ip_address(address).version:
                    pool.claim(address, owner)

    def take(self, owner: str, wanted: Sequence[str] = ()) -> tuple[str, ...]:
        """One free address of each range, of `wanted` where possible. Raises RangeFull, having taken none."""
        try:
            return tuple(pool.take(owner, wanted) for pool in self._pools)
        except RangeFull:
            self.release(owner)
            raise

    def release(self, owner: str) -> None:
        for pool in self._pools:
            pool.release(owner)
