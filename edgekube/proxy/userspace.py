"""The userspace backend: no translation in the kernel, every connection is relayed by this process. For kernels where nothing else works.

The range of Services is made local (one route), so that pods' and the node's own connections arrive here; every front has a listening
socket, node ports are plain listeners. What is dropped, or not admitted by source ranges, a socket filter drops, as a firewall does.

Weaker than the other backends, and unavoidably so:
- endpoints see an address of this node, never the client's (the policy Local still decides which endpoints there are);
- connections end with the process, and its affinity is forgotten; each costs 0.6 ms more to make, and carries a third of what it could;
- a program on this host that listens on all addresses has its port on ClusterIPs, too: a front that can not be bound is told once and
  tried again; a front without endpoints is refused by there being no socket, so such a program would answer there;
- pods reach the world outside only if nftables or iptables can at least masquerade; that is tried.
"""

import asyncio
import contextlib
import ctypes
import errno
import ipaddress
import logging
import socket
import struct
from collections import Counter as Tally
from collections.abc import Callable

from edgekube.lib.process import ProgramMissing
from edgekube.lib.tasks import TaskScope
from edgekube.proxy.backend import Backend, BackendError, Node, families
from edgekube.proxy.balance import Balance
from edgekube.proxy.iptables import IptablesBackend, remove_chains
from edgekube.proxy.localroutes import LocalRoutes, LocalRoutesWatch, RoutesRefused
from edgekube.proxy.model import Front, Target, Targets
from edgekube.proxy.nftables import NftablesBackend
from edgekube.proxy.quota import Quota
from edgekube.proxy.sockfilter import admission
from edgekube.proxy.tcprelay import TcpFront
from edgekube.proxy.udprelay import UdpFront

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
_FREEBIND, _ATTACH_FILTER, _DETACH_FILTER = 15, 26, 27
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class UserspaceBackend:
    """See the module."""

    name = "userspace"

    def __init__(self, node: Node) -> None:
        self._node = node
        self._pods = {":" in pods: pods for pods, _ in families(node)}
        self._services = {":" in services: services for _, services in families(node)}
        self._routes, self._quota, self._scope = LocalRoutes(), Quota(), TaskScope("relays")
        self._targets: dict[Front, Target] = {}
        self._open: dict[Front, TcpFront | UdpFront] = {}
        self._sockets: dict[Front, socket.socket] = {}
        self._outer: Tally[str] = Tally()  # addresses outside the range
        self._failed: set[Front] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._masquerade: Backend | None = None
        self._watch: LocalRoutesWatch | None = None
        self._notify: Callable[[], None] | None = None

    def watch(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._watch = LocalRoutesWatch(notify)
        if self._masquerade is not None:
            with contextlib.suppress(OSError):
                self._masquerade.watch(notify)

    async def replace(self, targets: Targets) -> None:
        await self._let_pods_out()
        gone = {front: target for front, target in self._targets.items() if front not in targets}
        await self._change(gone, targets, anew=True)

    async def apply(self, old: Targets, new: Targets) -> None:
        await self._change({front: target for front, target in old.items() if front not in new}, new)

    async def _change(self, gone: Targets, new: Targets, *, anew: bool = False) -> None:
        for front in gone:
            self._forget(front)
        for front, target in new.items():
            if front not in self._targets and self._is_outer(front):
                self._outer[front.address] += 1
            self._targets[front] = target
        await self._ensure_routes(anew=anew)
        for front, target in new.items():
            await self._put(front, target)
        self._try_later()

    def _is_outer(self, front: Front) -> bool:
        range_ = self._services.get(front.ipv6)
        return not front.wild and (range_ is None or ipaddress.ip_address(front.address) not in ipaddress.ip_network(range_))

    def _forget(self, front: Front) -> None:
        self._shut(front)
        if self._targets.pop(front, None) is not None and self._is_outer(front):
            self._outer[front.address] -= 1
        self._failed.discard(front)

    async def _ensure_routes(self, *, anew: bool) -> None:
        self._outer = +self._outer
        try:
            with self._watch.own_change() if self._watch is not None else contextlib.nullcontext():
                await self._routes.ensure((*self._services.values(), *self._outer), anew=anew)
        except (RoutesRefused, OSError) as error:
            raise BackendError(str(error)) from error

    async def _put(self, front: Front, target: Target) -> None:
        if not (target.endpoints or target.inside or target.drop):
            self._shut(front)
            return
        try:
            if front not in self._open:
                await self._listen(front, target)
            self._admit(front, target)
            self._open[front].balance.replace(target)
            self._open[front].changed()
            self._failed.discard(front)
        except OSError as error:
            self._shut(front)
            if front not in self._failed:
                extra = {"front": f"{front.address} {front.protocol} {front.port}", "error": (error.strerror or str(error)).lower()}
                log.warning("a service can not be served here; tried again until it can", extra=extra)
            self._failed.add(front)

    async def _listen(self, front: Front, target: Target) -> None:
        kind = _KINDS[front.protocol]
        family = socket.AF_INET6 if front.ipv6 else socket.AF_INET
        listener = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if kind == socket.SOCK_STREAM:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # a node port beside ClusterIPs with the same port
            if front.ipv6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
            listener.bind((front.address, front.port))
        except OSError:
            listener.close()
            raise
        self._sockets[front] = listener
        self._admit(front, target)  # before the first packet can come
        balance = Balance(target, is_inside=self._inside(front.ipv6), now=asyncio.get_running_loop().time)
        if kind == socket.SOCK_STREAM:
            self._open[front] = TcpFront(listener, balance, self._quota, self._scope)
        else:
            self._open[front] = UdpFront(listener, balance, self._quota)
        await self._open[front].start()

    def _admit(self, front: Front, target: Target) -> None:
        """Let in who may come."""
        listener = self._sockets[front]
        program = admission(front, target, self._pods.get(front.ipv6, ""))
        if program:
            buffer = ctypes.create_string_buffer(program, len(program))
            listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)))
        else:
            try:
                listener.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise

    def _inside(self, six: bool) -> Callable[[str], bool]:
        pods = ipaddress.ip_network(self._pods[six]) if six in self._pods else None

        def is_inside(client: str) -> bool:
            """A pod, or this node."""
            address = ipaddress.ip_address(client.partition("%")[0])
            return (pods is not None and address in pods) or _is_own(client)

        return is_inside

    def _shut(self, front: Front) -> None:
        if (found := self._open.pop(front, None)) is not None:
            found.close()
        self._sockets.pop(front, None)

    def _try_later(self) -> None:
        if self._failed and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        if self._notify is not None:
            self._scope.spawn(self._put_failed(), name="again")

    async def _put_failed(self) -> None:
        for front in sorted(self._failed):
            if front in self._targets:
                await self._put(front, self._targets[front])
        self._try_later()

    async def _let_pods_out(self) -> None:
        """Without Services, the other backends still masquerade what pods send to the world, if the kernel can."""
        kinds: tuple[Callable[[Node], Backend], ...] = (NftablesBackend, IptablesBackend)
        if self._masquerade is not None:
            with contextlib.suppress(BackendError, ProgramMissing):
                await self._masquerade.replace({})
            return
        for kind in kinds:
            found = kind(self._node)
            try:
                await found.replace({})
            except (BackendError, ProgramMissing):
                found.close()
                continue
            self._masquerade = found
            if kind is NftablesBackend:
                await remove_chains(self._node.instance)  # of an earlier mode; otherwise they are used now
            if self._notify is not None:
                with contextlib.suppress(OSError):
                    found.watch(self._notify)
            return
        log.warning("pods can not reach the world outside the cluster: neither nftables nor iptables works in this kernel")

    def close(self) -> None:
        for front in list(self._open):
            self._shut(front)
        if self._retry is not None:
            self._retry.cancel()
        for other in (self._watch, self._masquerade):
            if other is not None:
                other.close()


def _is_own(address: str) -> bool:
    """Whether it is an address of this node: only such can be bound."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
