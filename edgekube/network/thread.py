"""One thread for all netlink work, with synchronous pyroute2 inside.

Why a thread of its own: pyroute2's sockets are thread-local, its synchronous calls refuse to run under a running loop, and its asynchronous
ones break under uvloop. Work for another network namespace uses a socket opened while this thread visits that namespace.
pyroute2 is imported here, at the first call: it costs 90 ms and 14 MB that an idle control plane does not need.
"""

import asyncio
import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


class NetThread:
    """Runs functions that take an `IPRoute` of the host's namespace as their first argument, one at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")
        self._route: Any = None

    async def run(self, work: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(iproute, ...)` in the network thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(self._host(), *args, **kwargs))

    def _host(self) -> Any:
        if self._route is None:
            from pyroute2 import IPRoute

            self._route = IPRoute()
        return self._route

    async def close(self) -> None:
        """Close the netlink socket and end the thread."""

        def finish() -> None:
            if self._route is not None:
                self._route.close()
                self._route = None

        await asyncio.get_running_loop().run_in_executor(self._pool, finish)
        self._pool.shutdown(wait=False)


@contextmanager
def inside(netns: str) -> Iterator[Any]:
    """An IPRoute of another namespace, for the network thread only. The thread is back in its own namespace before anything is sent."""
    from pyroute2 import IPRoute

    with inside_of(netns):
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    route = IPRoute(fileno=channel.detach())
    try:
        yield route
    finally:
        route.close()


@contextmanager
def inside_of(netns: str) -> Iterator[None]:
    """This thread in another namespace: for sockets and for /proc/sys/net, which shows that of whoever looks."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        other = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(libc, other)
            try:
                yield
            finally:
                _enter(libc, own)
        finally:
            os.close(other)
    finally:
        os.close(own)


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")
