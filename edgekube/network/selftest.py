"""Does the overlay really carry packets? Asked of the path to every node after each change, and put right where that is possible.

    small and full packets pass                          Passed
    small ones do not, but the peer's kernel answers     checksums made by hardware are wrong: made by software from now on
    full ones do not                                     the biggest that pass become the MTU of the routes to this node
    nothing passes, but the machine answers              named: the port is blocked
    the machine does not answer, or only its kernel      not the overlay's fault: told, asked again later

A path that passed is not asked again until something about it changes (a Node, our own address or uplink, the tunnel): while all is well
nothing runs. Others are asked again with back-off, and at once when the other node asks us. Every node does the same, so each end finds
and mends what it sends wrongly.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from edgekube.lib.backoff import Backoff
from edgekube.lib.tasks import TaskScope
from edgekube.network import verdict
from edgekube.network.model import OverlayConfig, Peer, Underlay, family
from edgekube.network.offload import set_tx_checksum
from edgekube.network.plan import LEAST_MTU, Overlay, overlay_mtu, tunnel_mtu
from edgekube.network.probe import Patience, Prober, echo, listens
from edgekube.network.verdict import Verdict

log = logging.getLogger(__name__)

SMALL = 100
STEP = 8  # bytes: how exactly the MTU of a path is found
AT_ONCE = 8  # paths
CAREFUL = Patience()
QUICK = Patience(seconds=0.2, tries=2)


@dataclass(frozen=True, slots=True)
class Target:
    """One path."""

    peer: Peer
    address: str
    direct: bool
    mtu: int


class SelfTest:
    """`mend` is called when routes must be planned anew with `path_mtu`, `tell` when a verdict has changed."""

    def __init__(self, *, config: OverlayConfig, mend: Callable[[], None], tell: Callable[[], None]) -> None:
        self._config, self._mend, self._tell = config, mend, tell
        self._prober = Prober()
        self._prober.on_asked = self._asked
        self._targets: dict[str, Target] = {}
        self._known: dict[str, Hashable] = {}
        self._own_address: dict[str, str] = {}  # of nodes, by their own address in the pod range
        self._running: set[str] = set()
        self._backoff = Backoff(base=1.0, cap=120.0, jitter=0.2)
        self._offload = asyncio.Lock()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._scope = TaskScope("selftest")
        self.verdicts: dict[str, Verdict] = {}
        self.path_mtu: dict[str, int] = {}
        self.checksum_off = False

    @property
    def port(self) -> int:
        return self._config.port + 1

    async def close(self) -> None:
        self._targets = {}
        await self._scope.close()
        self._prober.close()

    def update(self, own: Peer, peers: Iterable[Peer], overlay: Overlay, underlay: Underlay | None, *, anew: bool) -> None:
        """The kernel is as planned. `anew`: the tunnel has just been made."""
        self._targets = _targets(peers, overlay, underlay, self._config)
        self._listen(own)
        if anew and self.checksum_off:
            set_tx_checksum(self._config.device, False)
        for name in set(self.verdicts) - set(self._targets) - set(overlay.refused):
            self._forget(name)
        for name, why in overlay.refused.items():
            self._conclude(verdict.refused(name, why))
        where = (underlay.address, underlay.index, underlay.mtu) if underlay is not None else ()
        for name, target in self._targets.items():
            facts = (target, where)
            if self._known.get(name) not in (None, facts):
                self.path_mtu.pop(name, None)
            if self._known.get(name) != facts or anew:
                self._known[name] = facts
                self._backoff.forget(name)
                self._start(name)

    def _listen(self, own: Peer) -> None:
        try:
            self._prober.open(own.own if self._targets else (), self.port)
        except OSError as error:
            log.warning("self-test of the overlay can not listen", extra={"port": self.port, "error": str(error)})
        self._own_address = {address: target.peer.name for target in self._targets.values() for address in target.peer.own}
        self._prober.allow(self._own_address)

    def _forget(self, name: str) -> None:
        self.verdicts.pop(name, None)
        self.path_mtu.pop(name, None)
        self._known.pop(name, None)
        self._backoff.forget(name)
        self._tell()

    def _asked(self, address: str) -> None:
        """A node that asks us is there: if we failed to reach it, look again."""
        name = self._own_address.get(address, "")
        known = self.verdicts.get(name)
        if self._backoff.failures(name) > 0 and not (known is not None and known.reason == "FullPacketsLost"):
            self._backoff.forget(name)
            self._start(name)

    def _start(self, name: str) -> None:
        if name in self._targets and name not in self._running:
            self._running.add(name)
            self._scope.spawn(self._test(name), name=name)

    async def _test(self, name: str) -> None:
        """Until the path has been seen as it is now."""
        found: Verdict | None = None
        try:
            async with self._slots:
                while (target := self._targets.get(name)) is not None:
                    found = await self._examine(target)
                    if self._targets.get(name) == target:
                        if not (found.fault and self._backoff.failures(name) == 0):  # seen once, a fault may be one just being mended
                            self._conclude(found)
                        break
        finally:
            self._running.discard(name)
        if found is not None and not found.again:
            self._backoff.forget(name)
        elif name in self._targets and found is not None:
            asyncio.get_running_loop().call_later(self._backoff.delay(name), self._start, name)

    def _conclude(self, found: Verdict) -> None:
        if self.verdicts.get(found.peer) == found:
            return
        self.verdicts[found.peer] = found
        level = logging.WARNING if found.fault else logging.INFO
        log.log(level, "path to a node tested", extra={"peer": found.peer, "reason": found.reason, "why": found.message})
        self._tell()

    # one path

    async def _examine(self, target: Target) -> Verdict:
        if not await self._pass(target, SMALL) and not await self._without_offload(target):
            return await self._diagnose(target)
        name, limit = target.peer.name, self.path_mtu.get(target.peer.name, 0)
        if not await self._pass(target, limit or target.mtu):
            limit = await self._widest(target, limit or target.mtu)
            if not limit:
                return verdict.tight(name, target.address, target.mtu)
            self.path_mtu[name] = limit
            self._mend()
        if limit:
            return verdict.narrow(name, target.address, limit, target.mtu)
        done = verdict.unchecked if self.checksum_off and not target.direct else verdict.whole
        return done(name, target.address, target.mtu)

    async def _pass(self, target: Target, size: int, patience: Patience = CAREFUL) -> bool:
        return await self._prober.probe(target.peer.own[0], self.port, size, patience)

    async def _without_offload(self, target: Target) -> bool:
        """Small packets got lost although the kernel over there answers: whether they pass now, if need be without checksum offload.

        The offload is only blamed if packets pass without it and do not with it: a path that was just being mended is no proof.
        """
        if not await echo(target.peer.own[0]):
            return False
        if await self._pass(target, SMALL):
            return True
        if target.direct:
            return False
        async with self._offload:
            if self.checksum_off:
                return await self._pass(target, SMALL)
            helps = set_tx_checksum(self._config.device, False) and await self._pass(target, SMALL)
            set_tx_checksum(self._config.device, True)
            if helps and not await self._pass(target, SMALL, QUICK):
                self.checksum_off = set_tx_checksum(self._config.device, False)
            return helps

    async def _widest(self, target: Target, too_big: int) -> int:
        """The biggest size that passes, found by halves; 0: none does."""
        passes = LEAST_MTU[family(target.peer.own[0])]
        if passes >= too_big or not await self._pass(target, passes, QUICK):
            return 0
        while too_big - passes > STEP:
            middle = (too_big + passes) // 2
            if await self._pass(target, middle, QUICK):
                passes = middle
            else:
                too_big = middle
        return passes

    async def _diagnose(self, target: Target) -> Verdict:
        name = target.peer.name
        if await echo(target.peer.own[0]):
            return verdict.silent(name, target.address)
        if not await echo(target.address) and not await listens(target.address, target.peer.kubelet_port):
            return verdict.away(name, target.address)
        return verdict.unrouted(name, target.address) if target.direct else verdict.blocked(name, target.address, self._config.port)


def _targets(peers: Iterable[Peer], overlay: Overlay, underlay: Underlay | None, config: OverlayConfig) -> dict[str, Target]:
    found: dict[str, Target] = {}
    if underlay is None:
        return found
    reached = {route.dst for route in overlay.wanted.routes}
    for peer in peers:
        if peer.name not in overlay.refused and reached.intersection(peer.ranges):
            direct = peer.name in overlay.direct
            address = next((at for at in peer.addresses if family(at) == family(underlay.address)), "")
            mtu = overlay_mtu(config, underlay) if direct else tunnel_mtu(config, underlay)
            found[peer.name] = Target(peer, address, direct, mtu)
    return found
