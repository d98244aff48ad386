"""Sees when somebody else changes iptables rules: by events of nf_tables, or with legacy iptables by asking for two numbers.

A change of a table that we share with others is mostly not about us: what is ours is looked at (one iptables-save) before anything is told.
Legacy iptables has no events: the kernel is asked for the number and size of a table's rules (a system call, no program) every 1.5 seconds.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence

from edgekube.lib.nft import TableWatch
from edgekube.lib.tasks import TaskScope
from edgekube.proxy.iprestore import TABLES

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.1  # a foreign tool's burst of changes is one look
POLL_SECONDS = 1.5
_GET_INFO = 64  # IPT_SO_GET_INFO, and the same number for IPv6
_INFO = 32 + 4 + 20 + 20 + 4 + 4  # struct ipt_getinfo

Sizes = tuple[bytes, ...]


class IptablesWatch:
    """Calls `notify` when one of `intact` says no after a change."""

    def __init__(self, intact: Sequence[Callable[[], Awaitable[bool]]], notify: Callable[[], None]) -> None:
        self._intact, self._notify = intact, notify
        self._watches: list[TableWatch] = []
        with contextlib.suppress(OSError):  # a kernel without nf_tables: its iptables is the legacy one
            self._watches = [TableWatch(table, self._changed) for table in TABLES]
        self._sizes: Sizes = ()
        self._timer: asyncio.TimerHandle | None = None
        self._pending: asyncio.TimerHandle | None = None
        self._busy = 0
        self._scope = TaskScope("iptables")

    def start(self) -> None:
        for watch in self._watches:
            watch.start()
        self._sizes = legacy_sizes()
        self._poll()

    def close(self) -> None:
        for watch in self._watches:
            watch.close()
        for timer in (self._timer, self._pending):
            if timer is not None:
                timer.cancel()

    @contextlib.contextmanager
    def own_change(self) -> Iterator[None]:
        """Around a change of ours."""
        self._busy += 1
        try:
            with contextlib.ExitStack() as stack:
                for watch in self._watches:
                    stack.enter_context(watch.own_change())
                yield
        finally:
            self._busy -= 1
            self._sizes = legacy_sizes()

    def _poll(self) -> None:
        """Only where legacy tables are: nobody else loads them."""
        if not self._sizes:
            return
        if self._busy == 0 and (sizes := legacy_sizes()) != self._sizes:
            self._sizes = sizes
            self._changed()
        self._timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll)

    def _changed(self) -> None:
        if self._pending is None:
            self._pending = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._look)

    def _look(self) -> None:
        self._pending = None
        if self._busy:
            self._changed()
        else:
            self._scope.spawn(self._judge(), name="look")

    async def _judge(self) -> None:
        for intact in self._intact:
            if not await intact() and not self._busy:
                self._notify()
                return


def legacy_sizes() -> Sizes:
    """Number and size of the rules in the tables of legacy iptables; () where it is not in use. Asking does not load it."""
    found = []
    kinds = ((socket.AF_INET, socket.IPPROTO_IP, "ip_tables_names"), (socket.AF_INET6, socket.IPPROTO_IPV6, "ip6_tables_names"))
    for family, level, listed in kinds:
        try:
            with open(f"/proc/thread-self/net/{listed}") as names:
                tables = sorted(set(names.read().split()) & set(TABLES))
            with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as door:
                for table in tables:
                    asked = struct.pack("32s", table.encode()).ljust(_INFO, b"\0")
                    found.append(_get(door, level, asked))
        except OSError:
            continue
    return tuple(found)


def _get(door: socket.socket, level: int, asked: bytes) -> bytes:
    """getsockopt with an argument, which Python's own does not have."""
    import ctypes

    buffer, size = ctypes.create_string_buffer(asked, len(asked)), ctypes.c_uint32(len(asked))
    library = ctypes.CDLL(None, use_errno=True)
    if library.getsockopt(door.fileno(), level, _GET_INFO, buffer, ctypes.byref(size)) != 0:
        raise OSError(ctypes.get_errno(), "getsockopt")
    return buffer.raw[: size.value]
