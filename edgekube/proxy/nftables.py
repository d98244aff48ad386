"""The nftables backend: one table of our own per address family, changed in single transactions, watched for what others do to it.

Reads and writes the tables `ip edgekube_<instance>` and, where the cluster has IPv6 ranges, `ip6` of the same name; nothing else.
Keeps in memory only what the kernel can not be asked cheaply: which shared chains exist, and how many fronts use an endpoint of this node.
"""

import asyncio
import contextlib
import logging
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from edgekube.lib.nft import Nft, NftError, TableWatch
from edgekube.lib.process import ProgramMissing, ProgramTimeout
from edgekube.proxy.backend import BackendError, Node, families
from edgekube.proxy.frame import FIXED_CHAINS, FIXED_SETS
from edgekube.proxy.model import Targets
from edgekube.proxy.ruleset import Frame, Tables, difference, tables_of, whole

log = logging.getLogger(__name__)


class NftablesBackend:
    """See the module."""

    name = "nftables"

    def __init__(self, node: Node) -> None:
        self._table = node.table
        self._frames = tuple(Frame(table=node.table, pods=pods, services=services) for pods, services in families(node))
        self._nft = Nft()
        self._shapes: dict[Frame, frozenset[str]] = {}
        self._locals: Tally[str] = Tally()
        self._watch: TableWatch | None = None

    def watch(self, notify: Callable[[], None]) -> None:
        self._watch = TableWatch(self._table, notify)
        self._watch.start()

    async def replace(self, targets: Targets) -> None:
        self._locals = Tally(_locals(targets))
        for frame in self._frames:
            mine = _of_family(frame, targets)
            wanted = await asyncio.to_thread(tables_of, frame, mine, self._loops(frame, self._locals))
            with self._own():
                await self._replace(frame, wanted)
            self._shapes[frame] = wanted.shapes

    async def apply(self, old: Targets, new: Targets) -> None:
        gone, come = Tally(_locals(old)), Tally(_locals(new))
        involved = gone.keys() | come.keys()
        before = {address for address in involved if self._locals[address] > 0}
        self._locals.subtract(gone)
        self._locals.update(come)
        after = {address for address in involved if self._locals[address] > 0}
        for address in involved - after:
            del self._locals[address]
        commands = "".join(self._difference(frame, old, new, before, after) for frame in self._frames)
        if commands:
            with self._own():
                await self._nft.apply(commands)

    def _difference(self, frame: Frame, old: Targets, new: Targets, before: set[str], after: set[str]) -> str:
        there = tables_of(frame, _of_family(frame, old), self._loops(frame, before))
        wanted = tables_of(frame, _of_family(frame, new), self._loops(frame, after))
        there = replace(there, shapes=self._shapes.get(frame, frozenset()))
        self._shapes[frame] = there.shapes | wanted.shapes
        return difference(frame, there, wanted)

    @staticmethod
    def _loops(frame: Frame, addresses: Iterable[str]) -> list[str]:
        return [address for address in addresses if (":" in address) == (frame.family == "ip6")]

    async def _replace(self, frame: Frame, wanted: Tables) -> None:
        chains, sets = await self._nft.names(self._table, frame.family)
        stale_chains = [name for name in chains if name not in (FIXED_CHAINS | wanted.shapes) and name not in wanted.chains]
        stale_sets = [name for name in sets if name not in FIXED_SETS and name not in wanted.sets]
        leftovers = [f"delete chain {frame.at} {name}" for name in sorted(stale_chains)]
        leftovers += [f"delete set {frame.at} {name}" for name in stale_sets]
        commands = await asyncio.to_thread(whole, frame, wanted, leftovers=leftovers)
        try:
            await self._nft.apply_whole(commands)
        except NftError as error:  # an older version's table may have another shape, or somebody rebuilt it
            log.info("table made anew", extra={"table": frame.at, "why": str(error)})
            commands = await asyncio.to_thread(whole, frame, wanted)
            await self._nft.apply_whole(f"add table {frame.at}\ndelete table {frame.at}\n{commands}")
        if not (await self._nft.names(self._table, frame.family))[0]:  # so many events of our own may have hidden a foreign one
            raise NftError(f"somebody deleted the table {frame.at} while it was written")

    @contextlib.contextmanager
    def _own(self) -> Iterator[None]:
        """Around our own changes: they are no news, and their refusal is a BackendError."""
        try:
            with self._watch.own_change() if self._watch is not None else contextlib.nullcontext():
                yield
        except (NftError, ProgramMissing, ProgramTimeout) as error:
            raise BackendError(str(error)) from error

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._nft.close()


def _of_family(frame: Frame, targets: Targets) -> Targets:
    six = frame.family == "ip6"
    return {front: target for front, target in targets.items() if front.ipv6 == six}


def _locals(targets: Targets) -> Iterator[str]:
    """Addresses of endpoints on this node, once per use."""
    return (endpoint.address for target in targets.values() for endpoint in target.all_endpoints() if endpoint.local)


async def remove_tables(instance: str) -> None:
    """For uninstall: our tables, whole."""
    nft = Nft()
    try:
        for family in ("ip", "ip6"):
            await nft.delete_table(f"edgekube_{instance}", family)
    finally:
        nft.close()
