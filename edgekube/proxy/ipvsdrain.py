"""Brings virtual services to what is wanted, and lets connections of endpoints that went end by themselves. Blocking: for a thread."""

import time
from collections.abc import Callable, Mapping

from edgekube.proxy.ipvslink import Destination, IpvsLink, Virtual
from edgekube.proxy.ipvsplan import Balanced

PATIENCE_SECONDS = 900.0


class Drain:
    """Destinations with weight 0 that still have connections."""

    def __init__(self) -> None:
        self._until: dict[tuple[Virtual, Destination], float] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def add(self, virtual: Virtual, to: Destination) -> None:
        self._until.setdefault((virtual, to), time.monotonic() + PATIENCE_SECONDS)

    def keep(self, virtual: Virtual, to: Destination | None = None) -> None:
        """It is wanted again, or gone."""
        for key in [key for key in self._until if key[0] == virtual and to in (None, key[1])]:
            del self._until[key]

    def sweep(self) -> None:
        """Remove what has nobody left."""
        with IpvsLink() as link:
            for virtual in {virtual for virtual, _ in self._until}:
                try:
                    there = link.destinations(virtual)
                except OSError:  # the virtual service went
                    there = {}
                for key in [key for key in self._until if key[0] == virtual]:
                    state = there.get(key[1])
                    if state is None or not state.connections or time.monotonic() > self._until[key]:
                        if state is not None:
                            link.remove_destination(*key)
                        del self._until[key]


def settle(
    drain: Drain, was: Mapping[Virtual, Balanced] | None, wanted: Mapping[Virtual, Balanced], is_ours: Callable[[Virtual], bool]
) -> None:
    """`was` None: look at what there is, and remove what of ours nobody wants. Raises IpvsMissing, OSError."""
    with IpvsLink() as link:
        if was is None:
            there = {virtual: seconds for virtual, seconds in link.services().items() if is_ours(virtual)}
        else:
            there = {virtual: balanced.seconds for virtual, balanced in was.items()}
        for virtual in there.keys() - wanted.keys():
            link.remove_service(virtual)
            drain.keep(virtual)
        for virtual, balanced in wanted.items():
            if there.get(virtual) != balanced.seconds:
                link.ensure_service(virtual, balanced.seconds, there=virtual in there)
            _settle_one(link, drain, virtual, balanced)


def _settle_one(link: IpvsLink, drain: Drain, virtual: Virtual, balanced: Balanced) -> None:
    there = link.destinations(virtual)
    for to in balanced.destinations:
        drain.keep(virtual, to)
        state = there.get(to)
        if state is None or state.weight != 1:
            link.ensure_destination(virtual, to, 1, there=state is not None)
    for to, state in there.items():
        if to in balanced.destinations:
            continue
        if balanced.lasting and state.connections:
            link.ensure_destination(virtual, to, 0, there=True)
            drain.add(virtual, to)
        else:
            link.remove_destination(virtual, to)
