"""Which endpoints of a Service a node uses, pure: readiness, traffic policies, topology hints.

Source of the rules: k8s.io/kubernetes/pkg/proxy/topology.go (CategorizeEndpoints). Ready endpoints first; with none ready, those that
still serve while they end. Hints count only when every ready endpoint has them and one is meant for us: the node before the zone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgekube.api.types import Obj
from edgekube.proxy.model import PROTOCOLS, Endpoint


@dataclass(frozen=True, slots=True)
class Place:
    """Where the deciding node is. `addresses`: its own, for load balancers that carry Services on nodes."""

    node: str
    zone: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint and what is known of it."""

    endpoint: Endpoint
    ready: bool
    serving: bool
    terminating: bool
    nodes: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()

    @property
    def last_resort(self) -> bool:
        return self.serving and self.terminating


@dataclass(frozen=True, slots=True)
class Chosen:
    """`cluster`: for policy Cluster. `local`: for policy Local. `exist`: whether any node could answer."""

    cluster: tuple[Endpoint, ...]
    local: tuple[Endpoint, ...]
    exist: bool


PortName = tuple[str, str]


def candidates(slices: Iterable[Obj], address_type: str, place: Place) -> dict[PortName, list[Candidate]]:
    """Endpoints of one address family by port name and protocol."""
    found: dict[PortName, list[Candidate]] = {}
    for slice_ in slices:
        if slice_.get("addressType", "IPv4") != address_type:
            continue
        for port in slice_.get("ports") or ():
            protocol = PROTOCOLS.get(port.get("protocol") or "TCP")
            if protocol is None or not port.get("port"):
                continue
            into = found.setdefault((port.get("name") or "", protocol), [])
            into.extend(_candidate(entry, port["port"], place) for entry in slice_.get("endpoints") or ())
    return found


def _candidate(entry: Obj, port: int, place: Place) -> Candidate:
    conditions, hints = entry.get("conditions") or {}, entry.get("hints") or {}
    ready = conditions.get("ready") is not False  # unknown counts as ready
    serving = conditions.get("serving")
    return Candidate(
        Endpoint(entry["addresses"][0], port, entry.get("nodeName") == place.node),
        ready=ready,
        serving=ready if serving is None else bool(serving),
        terminating=bool(conditions.get("terminating")),
        nodes=frozenset(hint["name"] for hint in hints.get("forNodes") or ()),
        zones=frozenset(hint["name"] for hint in hints.get("forZones") or ()),
    )


def choose(found: Sequence[Candidate], place: Place) -> Chosen:
    """See the module."""
    ready = [candidate for candidate in found if candidate.ready]
    ending = [candidate for candidate in found if not candidate.ready and candidate.last_resort]
    local = [c for c in ready if c.endpoint.local] or [c for c in ending if c.endpoint.local]
    return Chosen(_endpoints(_near(ready, place) or ending), _endpoints(local), bool(ready or ending))


def _near(ready: Sequence[Candidate], place: Place) -> Sequence[Candidate]:
    """Those that hints mean for this place; all if hints do not say."""
    for here, hints in ((place.node, [c.nodes for c in ready]), (place.zone, [c.zones for c in ready])):
        if ready and all(hints) and any(here in hint for hint in hints):
            return [candidate for candidate, hint in zip(ready, hints, strict=True) if here in hint]
    return ready


def _endpoints(found: Iterable[Candidate]) -> tuple[Endpoint, ...]:
    return tuple(sorted({candidate.endpoint for candidate in found}))
