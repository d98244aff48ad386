"""Addresses of Services made addresses of this node, where a socket or IPVS must meet their packets: one local route each, or for a range.

`local 10.43.0.0/16 dev lo proto 231 metric 231`: packets for the range are delivered here, sockets may be bound in it, and yet the node has
no further address (nothing appears in `ip address`, nothing is chosen as a source). Ours are known by protocol number and table; the
kernel's own route of an address that the node has anyway is another and stays the preferred one.
"""

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

PROTOCOL = 0xE7  # as for the routes of the network component
_LOCAL_TABLE, _LOCAL_TYPE, _HOST_SCOPE = 255, 2, 254
_DELETED_ROUTE = 25
_GROUPS = (7, 11)  # RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1


class RoutesRefused(Exception):
    """The kernel did not take a route."""


class LocalRoutes:
    """What is local beside the node's own addresses."""

    def __init__(self) -> None:
        self._have: frozenset[str] | None = None

    async def ensure(self, wanted: Iterable[str], *, anew: bool = False) -> None:
        """Exactly these (addresses or ranges). `anew`: look at what the kernel has. Raises RoutesRefused."""
        goal = frozenset(map(_cidr, wanted))
        if goal == self._have and not anew:
            return
        have, self._have = (None if anew else self._have), None
        await asyncio.to_thread(_ensure, goal, have)
        self._have = goal


def _cidr(text: str) -> str:
    return text if "/" in text else f"{text}/{128 if ':' in text else 32}"


def _ensure(wanted: frozenset[str], have: frozenset[str] | None) -> None:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as route:
        have = _ours(route) if have is None else have
        for verb, cidrs, fine in (("add", wanted - have, errno.EEXIST), ("del", have - wanted, errno.ESRCH)):
            for cidr in cidrs:
                try:
                    route.route(verb, **_spec(cidr))
                except NetlinkError as error:
                    if error.code != fine:
                        raise RoutesRefused(f"local route {cidr}: {error}") from error


def _spec(cidr: str) -> dict[str, Any]:
    family = socket.AF_INET6 if ":" in cidr else socket.AF_INET
    common = {"family": family, "dst": cidr, "table": _LOCAL_TABLE, "type": _LOCAL_TYPE, "proto": PROTOCOL, "priority": PROTOCOL, "oif": 1}
    return common if family == socket.AF_INET6 else common | {"scope": _HOST_SCOPE}


def _ours(route: Any) -> frozenset[str]:
    found = set()
    for family, width in ((socket.AF_INET, 32), (socket.AF_INET6, 128)):
        for entry in route.get_routes(family=family, table=_LOCAL_TABLE):
            if entry["proto"] == PROTOCOL and entry["type"] == _LOCAL_TYPE:
                found.add(f"{entry.get_attr('RTA_DST')}/{entry['dst_len'] or width}")
    return frozenset(found)


async def local_routes() -> frozenset[str]:
    """Ours, as the kernel has them."""

    def read() -> frozenset[str]:
        from pyroute2 import IPRoute

        with IPRoute() as route:
            return _ours(route)

    return await asyncio.to_thread(read)


async def remove_local_routes() -> None:
    """For uninstall and when another backend took over."""
    with contextlib.suppress(RoutesRefused, OSError):
        await LocalRoutes().ensure((), anew=True)


class LocalRoutesWatch:
    """Calls `notify` when one of ours was removed by somebody else."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        for group in _GROUPS:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    @contextlib.contextmanager
    def own_change(self) -> Iterator[None]:
        """Around a change of ours."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        try:
            yield
        finally:
            self._lost()
            loop.add_reader(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        if self._lost():
            self._notify()

    def _lost(self) -> bool:
        lost = False
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return lost
            except OSError as error:  # events were lost: look
                lost = True
                if error.errno != errno.ENOBUFS:  # another trouble would not end by asking again
                    return lost
                continue
            lost |= _lost_one(data)


def _lost_one(data: bytes) -> bool:
    offset = 0
    while offset + 28 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            return False
        table, protocol = data[offset + 20], data[offset + 21]
        if kind == _DELETED_ROUTE and table == _LOCAL_TABLE and protocol == PROTOCOL:
            return True
        offset += (length + 3) & ~3
    return False
