"""Which rtnetlink events mean that somebody took apart what we made. Judged against what we expect, not by who sent it: so our own changes
wake nobody, and nothing done by others is missed while we make ours. Pure.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from edgekube.network.changes import PROTOCOL, fits
from edgekube.network.model import Device, Forward, Local, NeighbourAt, RouteTo, Thing, Wanted
from edgekube.network.rtnl import (
    BRIDGE,
    DELADDR,
    DELLINK,
    DELNEIGH,
    DELROUTE,
    NEWADDR,
    NEWLINK,
    NEWNEIGH,
    NEWROUTE,
    NUD_PERMANENT,
    PROTO_KERNEL,
    Message,
    address_of,
    link_of,
    neighbour_of,
    route_of,
)


class Expectation:
    """What the kernel should have. `expect` and `unexpect` keep it true between two reconciliations, which `reset` it."""

    def __init__(self) -> None:
        self._things: set[Thing] = set()
        self._targets: dict[str, RouteTo] = {}
        self._device: Device | None = None
        self._names: dict[int, str] = {}
        self._ours: dict[int, str] = {}
        self._carriers: set[str] = set()
        self.on_links: Callable[[Collection[int]], None] = lambda _links: None  # told the numbers of our own links when they change

    def reset(self, wanted: Wanted, names: Mapping[int, str], ours: Collection[str]) -> None:
        """`names`: every link by its number; `ours`: the names of the tunnel and of pods' links."""
        self._things = set(wanted.things)
        self._targets = {route.dst: route for route in wanted.routes}
        self._device = wanted.device
        self._names = dict(names)
        self._ours = {index: name for index, name in names.items() if name in ours}
        self._carriers = {*wanted.links, *(route.link for route in wanted.routes)}
        self.on_links(self._ours.keys())

    def expect(self, wanted: Wanted, index: int = 0, name: str = "") -> None:
        """More is wanted from now on, on the link with this number if it is known."""
        self._things |= wanted.things
        self._targets |= {route.dst: route for route in wanted.routes}
        if index:
            self._names[index] = self._ours[index] = name
            self._carriers.add(name)
            self.on_links(self._ours.keys())

    def unexpect(self, wanted: Wanted, name: str) -> None:
        """No longer wanted; its link goes."""
        self._things -= wanted.things
        for route in wanted.routes:
            self._targets.pop(route.dst, None)
        self._ours = {index: other for index, other in self._ours.items() if other != name}
        self._carriers.discard(name)

    def contradicts(self, message: Message | None) -> bool:
        """Whether to look at everything again. None: events were lost."""
        if message is None:
            return True
        if message.kind in (NEWROUTE, DELROUTE):
            return self._route(message)
        if message.kind in (NEWNEIGH, DELNEIGH):
            return self._neighbour(message)
        if message.kind in (NEWLINK, DELLINK):
            return self._link(message)
        if message.kind == NEWADDR:
            come = address_of(message.body)
            return come.ifindex in self._ours and ":" not in come.address
        if message.kind == DELADDR:
            gone = address_of(message.body)
            return Local(self._names.get(gone.ifindex, ""), f"{gone.address}/{gone.prefix}") in self._things
        return False

    def _route(self, message: Message) -> bool:
        route = route_of(message.body)
        if route is None:
            return False
        link = self._names.get(route.ifindex, "")
        found = RouteTo(route.dst, link, route.gateway, route.source, route.mtu, route.metric)
        if message.kind == DELROUTE:
            return found in self._things
        target = self._targets.get(route.dst)
        if target is not None and not link and route.protocol == PROTOCOL:
            found = replace(found, link=target.link)  # a pod's, on a link that is being made
        ours = route.ifindex in self._ours and route.protocol != PROTO_KERNEL
        return found not in self._things and (ours or target is not None)

    def _neighbour(self, message: Message) -> bool:
        entry = neighbour_of(message.body)
        if entry.ifindex not in self._ours or entry.multicast:
            return False
        link = self._ours[entry.ifindex]
        if entry.family == BRIDGE:
            if not entry.address:
                return False
            return (Forward(link, entry.mac, entry.address) in self._things) == (message.kind == DELNEIGH)
        expected = NeighbourAt(link, entry.address, entry.mac) in self._things
        if message.kind == DELNEIGH:
            return expected or not entry.mac  # a deleted entry may be told without its MAC
        return not expected or not entry.state & NUD_PERMANENT

    def _link(self, message: Message) -> bool:
        """A link that goes down takes its routes with it, untold."""
        link = link_of(message.body)
        name = self._names.get(link.ifindex, "")
        if name not in self._carriers:
            return False
        whole = message.kind == NEWLINK and link.up and link.name == name
        if self._device is not None and name == self._device.name:
            return not (whole and fits(self._device, link) and link.mtu == self._device.mtu)
        return not whole
