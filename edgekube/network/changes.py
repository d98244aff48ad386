"""What must be done so that the kernel has what a node wants: two pictures compared. Pure.

What is ours, and so may be removed: the tunnel (by its alias or name), everything on the tunnel, routes with our protocol number, routes on
our pods' links, and addresses on `lo` with our label (IPv6 has none: see below). Everything else on this host is somebody's and stays.
"""

import ipaddress
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgekube.network.model import Device, Forward, Local, NeighbourAt, RouteTo, Thing, Wanted
from edgekube.network.rtnl import NUD_PERMANENT, PROTO_KERNEL, Address, Link, Neighbour, Route

PROTOCOL = 0xE7  # of our routes (rtm_protocol): a number nobody has in /etc/iproute2/rt_protos
LABEL = "lo:edgekube"  # of our addresses on `lo`
_UNICAST = 1


@dataclass(frozen=True, slots=True)
class DeviceChanges:
    """`remove`: interface numbers. `create`: the tunnel must be made. `adjust`: its MTU or alias must be set."""

    remove: Sequence[int] = ()
    create: bool = False
    adjust: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """In this order: `up` (links), `ensure` (addresses, neighbours, FDB entries, routes), `remove`: so a moved route has no gap."""

    up: Sequence[str] = ()
    ensure: Sequence[Thing] = ()
    remove: Sequence[Thing] = ()

    def __bool__(self) -> bool:
        return bool(self.up or self.ensure or self.remove)


@dataclass(frozen=True, slots=True)
class Picture:
    """What the kernel has."""

    links: Sequence[Link]
    addresses: Sequence[Address]
    routes: Sequence[Route]
    neighbours: Sequence[Neighbour]
    forwards: Sequence[Neighbour]


def device_changes(wanted: Device | None, links: Sequence[Link], *, name: str, alias: str) -> DeviceChanges:
    """About the tunnel itself."""
    ours = [link for link in links if link.alias == alias or link.name == name]
    fit = next((link for link in ours if wanted is not None and fits(wanted, link)), None)
    remove = tuple(link.ifindex for link in ours if link is not fit)
    if wanted is None or fit is None:
        return DeviceChanges(remove, wanted is not None)
    return DeviceChanges(remove, False, fit.mtu != wanted.mtu or fit.alias != wanted.alias)


def fits(wanted: Device, link: Link) -> bool:
    """Whether the link is the tunnel that is wanted; MTU and alias can be changed in place."""
    if link.kind != "vxlan":
        return False
    data = link.data
    local = socket.inet_ntop(socket.AF_INET6, data[17]) if 17 in data else socket.inet_ntop(socket.AF_INET, data.get(4, bytes(4)))
    uplink, port = int.from_bytes(data.get(3, b""), sys.byteorder), int.from_bytes(data.get(15, b""), "big")
    if 17 not in data and data.get(18, b"\1") != b"\0":  # with a checksum around everything: made by somebody else
        return False
    return (link.name, link.mac, local, uplink, port) == wanted.recreate and int.from_bytes(data.get(1, b""), sys.byteorder) == 1


def changes(wanted: Wanted, picture: Picture, *, ours: Collection[str]) -> Changes:
    """About everything else. `ours`: names of the tunnel and of pods' links."""
    names = {link.ifindex: link.name for link in picture.links}
    down = {link.name for link in picture.links if not link.up}
    present = set(names.values())
    have, removable = _seen(picture, names, frozenset(ours))
    needed: list[Thing] = [
        *(thing for thing in wanted.addresses if thing not in have),
        *(thing for thing in wanted.neighbours if thing not in have),
        *(thing for thing in wanted.forwards if thing not in have),
        *(thing for thing in wanted.routes if thing not in have),
    ]
    every = wanted.things
    kept = {link for link in wanted.links if _loose(link, wanted)}
    replaced = {_key(thing) for thing in needed}
    unwanted = [
        thing
        for thing in removable
        if thing not in every and _key(thing) not in replaced and not (isinstance(thing, NeighbourAt) and thing.link in kept)
    ]
    return Changes(
        up=tuple(sorted(wanted.links & down)),
        ensure=tuple(thing for thing in needed if thing.link in present),
        remove=tuple(thing for thing in unwanted if thing.link in present),
    )


def _key(thing: Thing) -> object:
    """What the kernel keeps one of: writing the wanted one removes the other by itself, and removing that would remove the wanted one."""
    if isinstance(thing, RouteTo):
        return thing.dst, thing.metric
    return (thing.link, thing.address) if isinstance(thing, NeighbourAt) else thing


def _loose(link: str, wanted: Wanted) -> bool:
    """Whether nothing is known of the link's neighbours (a pod adopted without its MAC)."""
    return not any(neighbour.link == link for neighbour in wanted.neighbours)


def _told_by_routes(address: str, told: Sequence[Route]) -> bool:
    """IPv6 addresses have no label: ours are the source of our routes, or in a range that a route of ours leads to `lo` for."""
    return any(
        route.source == address or (not route.gateway and ipaddress.ip_address(address) in ipaddress.ip_network(route.dst))
        for route in told
    )


def _seen(picture: Picture, names: Mapping[int, str], ours: frozenset[str]) -> tuple[set[Thing], list[Thing]]:
    """What there is, and what of it may be removed."""
    have: set[Thing] = set()
    removable: list[Thing] = []
    told = [route for route in picture.routes if route.protocol == PROTOCOL and ":" in route.dst]
    for address in picture.addresses:
        link = names.get(address.ifindex, "")
        local = Local(link, f"{address.address}/{address.prefix}")
        if link in ours and ":" not in address.address:
            removable.append(local)  # our own links have none
        elif link == "lo":
            have.add(local)
            if address.label == LABEL or (address.prefix == 128 and _told_by_routes(address.address, told)):
                removable.append(local)
    for route in picture.routes:
        link = names.get(route.ifindex, "")
        if route.type != _UNICAST or not link:
            continue
        found = RouteTo(route.dst, link, route.gateway, route.source, route.mtu, route.metric)
        have.add(found)
        if route.protocol == PROTOCOL or (link in ours and route.protocol != PROTO_KERNEL):
            removable.append(found)
    for entry in picture.neighbours:
        link = names.get(entry.ifindex, "")
        neighbour = NeighbourAt(link, entry.address, entry.mac)
        if entry.state & NUD_PERMANENT:
            have.add(neighbour)
        if link in ours and not entry.multicast:
            removable.append(neighbour)
    for entry in picture.forwards:
        if entry.address:
            forward = Forward(names.get(entry.ifindex, ""), entry.mac, entry.address)
            have.add(forward)
            removable.append(forward)
    return have, removable
