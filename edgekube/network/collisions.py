"""Ranges of the cluster that this host uses already: found before anything is made. `collisions` and `free_ranges` are pure."""

import contextlib
import ipaddress
import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from edgekube.network.changes import PROTOCOL
from edgekube.network.model import HOST_MAC, family
from edgekube.network.rtnl import Link, Reader, Route


@dataclass(frozen=True, slots=True)
class Collision:
    """`inside`: the route is for a part of our range, so it would win over ours."""

    cidr: str
    dst: str
    link: str
    inside: bool


def look(cidrs: Sequence[str]) -> tuple[Sequence[Collision], Sequence[str]]:
    """On this host now: collisions of `cidrs`, and every network this host knows."""
    with contextlib.closing(Reader()) as reader:
        links = reader.links()
        routes = [route for number in (socket.AF_INET, socket.AF_INET6) for route in reader.routes(number)]
    foreign = list(_foreign(routes, links))
    return collisions(foreign, cidrs), [dst for dst, _ in foreign]


def _foreign(routes: Iterable[Route], links: Iterable[Link]) -> Iterable[tuple[str, str]]:
    names = {link.ifindex: link.name for link in links}
    ours = {link.ifindex for link in links if link.name == "lo" or link.mac == HOST_MAC or link.alias.startswith("edgekube:")}
    for route in routes:
        if route.protocol != PROTOCOL and route.ifindex not in ours and not route.dst.endswith("/0"):
            yield route.dst, names.get(route.ifindex, "")


def collisions(foreign: Iterable[tuple[str, str]], cidrs: Sequence[str]) -> list[Collision]:
    """`foreign`: destination and link of every route that is not ours."""
    found = []
    for dst, link in foreign:
        theirs = ipaddress.ip_network(dst)
        for cidr in cidrs:
            mine = ipaddress.ip_network(cidr)
            if mine.version == theirs.version and mine.overlaps(theirs):
                found.append(Collision(cidr, dst, link, theirs.prefixlen >= mine.prefixlen))
    return found


def free_ranges(used: Collection[str]) -> tuple[str, str] | None:
    """Two neighbouring /16 of 10.0.0.0/8 for pods and Services that overlap nothing used, the usual ones first."""
    taken = [ipaddress.IPv4Network(dst) for dst in used if family(dst) == 4]
    for number in (*range(42, 254, 2), *range(0, 42, 2)):
        pair = [ipaddress.IPv4Network(f"10.{number + more}.0.0/16") for more in (0, 1)]
        if not any(one.overlaps(other) for one in pair for other in taken):
            return str(pair[0]), str(pair[1])
    return None
