"""What the kernel must do for Services, as plain data: pure, and the same for every backend.

A Front is what clients connect to, a Target how it is answered. A NodePort is a Front on the wildcard address of its family. Backends know
nothing of Services: everything a traffic policy, a hint or a source range decides has been decided before it is a Target.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

PROTOCOLS = {"TCP": "tcp", "UDP": "udp"}  # SCTP is refused when the Service is made
ANY4, ANY6 = "0.0.0.0", "::"


class Endpoint(NamedTuple):
    """Where a connection may go. `local`: on this node (it may reach itself, and its answers pass here anyway)."""

    address: str
    port: int
    local: bool = False


class Front(NamedTuple):
    """What clients connect to: an address and port, or with the wildcard address a port of every local address."""

    address: str
    protocol: str
    port: int

    @property
    def wild(self) -> bool:
        return self.address in (ANY4, ANY6)

    @property
    def ipv6(self) -> bool:
        return ":" in self.address


@dataclass(frozen=True, slots=True)
class Target:
    """How one front is answered.

    `endpoints`: for all, or with `inside` for clients that are neither pods nor this node; those get `inside` (the node's own connections
    masqueraded). Nothing to go to: refused at once, or with `drop` (there are endpoints, on other nodes) silently dropped.
    `masquerade`: the answer of an endpoint elsewhere would otherwise not come back through here.
    `sources`: only clients of these ranges, all others are dropped; () is everybody.
    """

    endpoints: tuple[Endpoint, ...] = ()
    inside: tuple[Endpoint, ...] = ()
    masquerade: bool = False
    drop: bool = False
    affinity_seconds: int = 0
    sources: tuple[str, ...] = ()

    def all_endpoints(self) -> Iterator[Endpoint]:
        yield from self.endpoints
        yield from self.inside


Targets = Mapping[Front, Target]
NOTHING = Target()


def changes(old: Targets, new: Targets) -> tuple[dict[Front, Target], dict[Front, Target]]:
    """The parts in which two sets of targets differ."""
    return (
        {front: target for front, target in old.items() if new.get(front) != target},
        {front: target for front, target in new.items() if old.get(front) != target},
    )


def stale_udp(old: Targets, new: Targets) -> dict[Front, frozenset[Endpoint]]:
    """UDP fronts with flows that the kernel may keep sending where they no longer belong: each with the endpoints that are still right.

    Also one that had no endpoint before: its flows went past it."""
    stale: dict[Front, frozenset[Endpoint]] = {}
    for front in {front for front in old.keys() | new.keys() if front.protocol == "udp"}:
        before = frozenset(old.get(front, NOTHING).all_endpoints())
        after = frozenset(new.get(front, NOTHING).all_endpoints())
        if before - after or (after and not before):
            stale[front] = after
    return stale
