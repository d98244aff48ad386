"""The iptables backend: chains of our own in nat, filter and mangle, with whichever kind of iptables the host has.

Reads what is ours from `iptables-save`, writes with `iptables-restore --noflush` (and ip6tables, where the cluster has IPv6 ranges).
Foreign chains and rules are never touched; our jumps go in front of what is there. Affinity is the match `recent`: it remembers the last
100 clients of each endpoint (a limit of the kernel module), and forgets them when its rule goes.
"""

import asyncio
import contextlib
import ipaddress
import logging
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from edgekube.lib.process import ProgramMissing, ProgramTimeout, run
from edgekube.proxy.backend import BackendError, Node, families
from edgekube.proxy.iprestore import Chains, look, restore_text
from edgekube.proxy.iptext import IpFrame, bucket, dispatch, fixed, front_chains, jumps, leaf, local_endpoints
from edgekube.proxy.ipwatch import IptablesWatch, legacy_sizes
from edgekube.proxy.model import Front, Target, Targets

log = logging.getLogger(__name__)

ADDRESS_SECONDS = 1.0
_TIMEOUT = 60


class IptablesBackend:
    """See the module."""

    name = "iptables"

    def __init__(self, node: Node, variant: str = "") -> None:
        """`variant`: legacy or nft, instead of what the host has chosen."""
        frames = [IpFrame(instance=node.instance, pods=pods, services=services) for pods, services in families(node)]
        self._families = tuple(_Family(frame, variant) for frame in frames)
        self._watch: IptablesWatch | None = None
        self._waiting: asyncio.TimerHandle | None = None

    def watch(self, notify: Callable[[], None]) -> None:
        self._await_address(notify)
        self._watch = IptablesWatch([family.intact for family in self._families], notify)
        self._watch.start()

    async def replace(self, targets: Targets) -> None:
        with self._own():
            for family in self._families:
                await family.replace(targets)

    async def apply(self, old: Targets, new: Targets) -> None:
        with self._own():
            for family in self._families:
                await family.apply(old, new)

    def _await_address(self, notify: Callable[[], None]) -> None:
        """The node's own address in the pod range may come later than the first rules, which then lack what needs it."""
        if any(family.incomplete for family in self._families):
            notify()
        self._waiting = None
        if any(family.lacks_address for family in self._families):
            self._waiting = asyncio.get_running_loop().call_later(ADDRESS_SECONDS, self._await_address, notify)

    @contextlib.contextmanager
    def _own(self) -> Iterator[None]:
        """Around our own changes: they are no news."""
        with self._watch.own_change() if self._watch is not None else contextlib.nullcontext():
            yield

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        if self._waiting is not None:
            self._waiting.cancel()


class _Family:
    """Rules of one address family. Remembers which front is in which bucket, and how many rules each chain should have."""

    def __init__(self, frame: IpFrame, variant: str) -> None:
        self._frame = frame
        self._tool = "-".join(filter(None, ("ip6tables" if frame.six else "iptables", variant)))
        self._buckets: defaultdict[str, dict[Front, Target]] = defaultdict(dict)
        self._locals: Tally[str] = Tally()
        self._counts: dict[tuple[str, str], int] = {}
        self._own = ""

    @property
    def lacks_address(self) -> bool:
        return self._frame.six and not self._own

    @property
    def incomplete(self) -> bool:
        return self.lacks_address and bool(self._counts) and bool(own_address(self._frame))

    async def replace(self, targets: Targets) -> None:
        mine = self._mine(targets)
        self._buckets.clear()
        for front, target in mine.items():
            self._buckets[bucket(front)][front] = target
        self._locals = Tally(_local(mine))
        self._own = own_address(self._frame)
        chains = fixed(self._frame, self._own) | self._tree(self._buckets, top=True) | local_endpoints(self._frame, self._locals)
        for front, target in mine.items():
            chains |= front_chains(self._frame, front, target)
        found = look(await self._saved(), self._frame.prefix)
        extra = [jump for jump, times in found.jumps.items() for _ in range(times - (jump in jumps(self._frame)))]
        missing = [jump for jump in jumps(self._frame) if jump not in found.jumps]
        gone = [name for name in found.chains if name not in chains]
        await self._restore(restore_text(chains, gone=gone, insert=missing, cut=extra))
        self._counts = {name: len(rules) for name, rules in chains.items()}

    async def apply(self, old: Targets, new: Targets) -> None:
        old, new = self._mine(old), self._mine(new)
        if not old and not new:
            return
        before, there = frozenset(self._locals), frozenset(self._buckets)
        for front in old:
            self._buckets[bucket(front)].pop(front, None)
        for front, target in new.items():
            self._buckets[bucket(front)][front] = target
        touched = {bucket(front) for front in (*old, *new)}
        empty = [name for name in touched if not self._buckets[name]]
        for name in empty:
            del self._buckets[name]
        chains: Chains = {}
        if self._own != (own := own_address(self._frame)):
            self._own = own
            chains |= fixed(self._frame, own)
        for front, target in new.items():
            chains |= front_chains(self._frame, front, target)
        chains |= self._tree(touched - set(empty), top=there != frozenset(self._buckets))
        self._locals.subtract(Tally(_local(old)))
        self._locals.update(_local(new))
        self._locals = +self._locals
        if before != frozenset(self._locals):
            chains |= local_endpoints(self._frame, self._locals)
        gone = {name for front, target in old.items() for name in front_chains(self._frame, front, target)} - chains.keys()
        gone |= {(table, self._frame.chain(name)) for name in empty for table in ("nat", "filter")}
        await self._restore(restore_text(chains, gone=sorted(gone & self._counts.keys())))
        self._counts |= {name: len(rules) for name, rules in chains.items()}
        for chain in gone:
            self._counts.pop(chain, None)

    def _tree(self, names: Iterable[str], *, top: bool) -> Chains:
        chains: Chains = {}
        for table in ("nat", "filter"):
            for name in names:
                chains |= leaf(self._frame, table, name, self._buckets[name])
            if top:
                chains |= dispatch(self._frame, table, self._buckets)
        return chains

    def _mine(self, targets: Targets) -> dict[Front, Target]:
        return {front: target for front, target in targets.items() if front.ipv6 == self._frame.six}

    async def intact(self) -> bool:
        """Whether everything of ours is there, and nothing else in our chains."""
        try:
            found = look(await self._saved(), self._frame.prefix)
        except BackendError:
            return False
        return dict(found.chains) == self._counts and dict(found.jumps) == dict.fromkeys(jumps(self._frame), 1)

    async def _saved(self) -> str:
        return await iptables(f"{self._tool}-save")

    async def _restore(self, text: str) -> None:
        if text:
            await iptables(f"{self._tool}-restore", "--noflush", "-w", "5", stdin=text)


def own_address(frame: IpFrame) -> str:
    """The node's own IPv6 address in the pod range, which the network component puts on `lo`; "" while there is none, and for IPv4."""
    if not frame.six:
        return ""
    pods = ipaddress.ip_network(frame.pods)
    try:
        with open("/proc/thread-self/net/if_inet6") as file:
            found = [ipaddress.IPv6Address(int(words[0], 16)) for words in map(str.split, file) if words[-1] == "lo"]
    except OSError:
        return ""
    return min((str(address) for address in found if address in pods), default="")


def _local(targets: Targets) -> Iterator[str]:
    """Addresses of endpoints on this node, once per use."""
    return (endpoint.address for target in targets.values() for endpoint in target.all_endpoints() if endpoint.local)


async def iptables(*argv: str, stdin: str | None = None) -> str:
    """Run one of the programs. Raises BackendError."""
    try:
        done = await run(argv, timeout=_TIMEOUT, stdin=None if stdin is None else stdin.encode())
    except ProgramMissing as error:
        raise BackendError(f"{error}: install the package iptables") from error
    except ProgramTimeout as error:
        raise BackendError(str(error)) from error
    if done.code != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise BackendError(next((line for line in lines if not line.startswith("#")), f"{argv[0]} failed without a reason"))
    return done.stdout.decode(errors="replace")


async def remove_chains(instance: str) -> bool:
    """For uninstall and when another backend took over: our jumps and chains. Whether there were any."""
    removed = False
    frames = (IpFrame(instance=instance, pods="0.0.0.0/0", services=""), IpFrame(instance=instance, pods="::/0", services=""))
    variants = ("", "-legacy") if legacy_sizes() else ("",)  # the host may have changed from one to the other
    for frame, tool in zip(frames, ("iptables", "ip6tables"), strict=True):
        for variant in variants:
            with contextlib.suppress(BackendError):
                removed |= await _remove(frame, f"{tool}{variant}")
    return removed


async def _remove(frame: IpFrame, tool: str) -> bool:
    found = look(await iptables(f"{tool}-save"), frame.prefix)
    if found.chains:
        cut = [jump for jump, times in found.jumps.items() for _ in range(times)]
        await iptables(f"{tool}-restore", "--noflush", "-w", "5", stdin=restore_text({}, gone=found.chains, cut=cut))
    return bool(found.chains)
