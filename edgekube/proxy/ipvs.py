"""The IPVS backend: virtual services for what IPVS can carry (see ipvsplan), nftables for the rest and for everything around.

Writes: virtual services with our marks or in the range of Services, local routes for the addresses of those, the table
`edgekube_<instance>_ipvs`, and the nftables backend's table for what stays there. Promises: an endpoint that goes gets no new connection at
once, and those it has may end (weight 0, removed when the last is gone or after 15 minutes; UDP at once); persistent clients keep their
endpoint across rewrites, since what is there is changed and never made anew.
"""

import asyncio
import contextlib
import logging
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edgekube.lib.nft import Nft, NftError, TableWatch
from edgekube.lib.process import ProgramMissing
from edgekube.lib.receipt import Notes
from edgekube.lib.tasks import TaskScope
from edgekube.proxy.backend import BackendError, Node, families
from edgekube.proxy.ipvsdrain import Drain, settle
from edgekube.proxy.ipvslink import IpvsLink, IpvsMissing, Virtual, missing
from edgekube.proxy.ipvsplan import (
    MARK_FAMILY,
    MARK_OF_FAMILY,
    Balanced,
    Elements,
    Marks,
    by_address,
    difference,
    is_carried,
    plan,
    table_name,
    whole_table,
)
from edgekube.proxy.localroutes import LocalRoutes, LocalRoutesWatch, RoutesRefused, local_routes
from edgekube.proxy.model import Front, Target, Targets
from edgekube.proxy.nftables import NftablesBackend
from edgekube.proxy.ruleset import Frame

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.5
_SETTINGS = (("conntrack", "1"), ("expire_nodest_conn", "1"), ("expire_quiescent_template", "1"))


class IpvsBackend:
    """See the module."""

    name = "ipvs"

    def __init__(self, node: Node) -> None:
        self._rest, self._nft, self._routes = NftablesBackend(node), Nft(), LocalRoutes()
        self._table, self._receipt = table_name(node.instance), node.receipt
        self._frames = tuple(Frame(table=node.table, pods=pods, services=services) for pods, services in families(node))
        self._marks, self._drain = Marks(), Drain()
        self._virtual: Tally[str] = Tally()  # fronts by address
        self._loops: Tally[str] = Tally()  # uses of endpoints here
        self._watches: list[TableWatch | LocalRoutesWatch] = []
        self._have: dict[Virtual, Balanced] = {}
        self._notify: Callable[[], None] | None = None
        self._busy = self._prepared = False
        self._changes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._scope = TaskScope("ipvs")

    def watch(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._look_later()
        self._rest.watch(notify)
        table = TableWatch(self._table, notify)
        table.start()
        self._watches = [table, LocalRoutesWatch(notify)]

    async def replace(self, targets: Targets) -> None:
        await self._prepare()
        carried, rest = self._split(targets)
        self._virtual, self._loops = Tally(_addresses(carried)), Tally(_locals(carried))
        with self._own():
            await self._rest.replace(rest)
            wanted: dict[Virtual, Balanced] = {}
            for frame in self._frames:
                found, elements = plan(frame, _of_family(frame, carried), self._marks)
                wanted |= found
                await self._nft.apply_whole(whole_table(frame, self._table, elements))
            await self._settle(None, wanted)
            await self._routes.ensure(self._virtual, anew=True)

    async def apply(self, old: Targets, new: Targets) -> None:
        (gone, rest_gone), (come, rest_come) = self._split(old), self._split(new)
        before = frozenset(self._virtual), frozenset(self._loops)
        for tally, addresses in ((self._virtual, _addresses), (self._loops, _locals)):
            tally.subtract(Tally(addresses(gone)))
            tally.update(addresses(come))
        self._virtual, self._loops = +self._virtual, +self._loops
        with self._own():
            was: dict[Virtual, Balanced] = {}
            wanted: dict[Virtual, Balanced] = {}
            for frame in self._frames:
                there, old_elements = plan(frame, _of_family(frame, gone), self._marks)
                found, elements = plan(frame, _of_family(frame, come), self._marks)
                was, wanted = was | there, wanted | found
                old_elements = _shared(frame, old_elements, *before)
                elements = _shared(frame, elements, frozenset(self._virtual), frozenset(self._loops))
                if commands := difference(frame, self._table, old_elements, elements):
                    await self._nft.apply(commands)
            await self._settle(was, wanted)
            await self._routes.ensure(self._virtual)
            if rest_gone or rest_come:
                await self._rest.apply(rest_gone, rest_come)
        for front in gone.keys() - come.keys():
            self._marks.forget(front)

    def _split(self, targets: Targets) -> tuple[dict[Front, Target], dict[Front, Target]]:
        """What IPVS carries, and the rest."""
        services = {frame.family == "ip6": frame.services for frame in self._frames}
        carried: dict[Front, Target] = {}
        rest: dict[Front, Target] = {}
        for front, target in targets.items():
            range_ = services.get(front.ipv6)
            (carried if range_ is not None and is_carried(target, front, range_) else rest)[front] = target
        return carried, rest

    async def _prepare(self) -> None:
        if self._prepared:
            return
        if reason := await asyncio.to_thread(missing):
            raise BackendError(reason)
        await asyncio.to_thread(_set_up, self._receipt)
        self._prepared = True

    async def _settle(self, was: Mapping[Virtual, Balanced] | None, wanted: Mapping[Virtual, Balanced]) -> None:
        """Virtual services, in a thread. `was` None: look at what there is."""
        await asyncio.to_thread(settle, self._drain, was, wanted, self._is_ours)
        self._have = {**({virtual: one for virtual, one in self._have.items() if virtual not in was} if was is not None else {}), **wanted}

    def _is_ours(self, virtual: Virtual) -> bool:
        if virtual.mark:
            return virtual.mark & MARK_OF_FAMILY == MARK_FAMILY
        frames = (frame for frame in self._frames if (frame.family == "ip6") == virtual.ipv6)
        return any(by_address(Front(virtual.address, virtual.protocol, virtual.port), frame.services) for frame in frames)

    def _look_later(self) -> None:
        """IPVS tells nobody when it is changed, nor when a connection ends."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, lambda: self._scope.spawn(self._look(), name="look"))

    async def _look(self) -> None:
        changes = self._changes
        with contextlib.suppress(OSError, IpvsMissing):
            if self._drain and not self._busy:
                await asyncio.to_thread(self._drain.sweep)
            there = await asyncio.to_thread(_services)
            lost = not self._have.keys() <= there.keys()
            if lost and self._notify is not None and not self._busy and changes == self._changes:
                self._notify()
        self._look_later()

    @contextlib.contextmanager
    def _own(self) -> Iterator[None]:
        """Around our own changes: they are no news, and a refusal is a BackendError."""
        self._busy = True
        self._changes += 1
        try:
            with contextlib.ExitStack() as stack:
                for watch in self._watches:
                    stack.enter_context(watch.own_change())
                yield
        except (NftError, RoutesRefused, IpvsMissing, ProgramMissing, OSError) as error:
            raise BackendError(str(error)) from error
        finally:
            self._busy = False

    def close(self) -> None:
        for watch in self._watches:
            watch.close()
        if self._timer is not None:
            self._timer.cancel()
        self._rest.close()
        self._nft.close()


def _of_family(frame: Frame, targets: Targets) -> Targets:
    return {front: target for front, target in targets.items() if front.ipv6 == (frame.family == "ip6")}


def _addresses(targets: Targets) -> Iterator[str]:
    return (front.address for front in targets if not front.wild)


def _locals(targets: Targets) -> Iterator[str]:
    return (endpoint.address for target in targets.values() for endpoint in target.all_endpoints() if endpoint.local)


def _shared(frame: Frame, elements: Elements, virtual: frozenset[str], loops: frozenset[str]) -> Elements:
    """With what fronts have in common as it is in whole."""
    six = frame.family == "ip6"
    common = {
        "virtual": {address: "" for address in virtual if (":" in address) == six and by_address(Front(address, "", 0), frame.services)},
        "loops": {f"{address} . {address}": "" for address in loops if (":" in address) == six},
    }
    return Elements({**elements.of, **common})


def _set_up(receipt: Notes) -> None:
    for name, value in _SETTINGS:
        path = Path(f"/proc/sys/net/ipv4/vs/{name}")
        with contextlib.suppress(OSError):  # older kernels have fewer; what can not be noted is not changed
            if (before := path.read_text().strip()) != value:
                receipt.note("sysctl", f"net/ipv4/vs/{name}", before=before, after=value)
                path.write_text(value)


def _services() -> dict[Virtual, int]:
    with IpvsLink() as link:
        return link.services()


async def remove_ipvs(node: Node) -> bool:
    """For uninstall and when another backend took over: our virtual services and table. Whether there were virtual services."""
    nft = Nft()
    for family in ("ip", "ip6"):
        with contextlib.suppress(ProgramMissing):
            await nft.delete_table(table_name(node.instance), family)
    nft.close()
    backend = IpvsBackend(node)
    try:
        routed = {cidr.partition("/")[0] for cidr in await local_routes()}  # whatever the ranges were when it was made
        return await asyncio.to_thread(_remove, lambda virtual: virtual.address in routed or backend._is_ours(virtual))
    except (IpvsMissing, OSError):
        return False
    finally:
        backend.close()


def _remove(is_ours: Callable[[Virtual], bool]) -> bool:
    with IpvsLink() as link:
        doomed = [virtual for virtual in link.services() if is_ours(virtual)]
        for virtual in doomed:
            link.remove_service(virtual)
    return bool(doomed)
