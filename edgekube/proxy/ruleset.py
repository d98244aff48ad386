"""From targets to nft commands: the whole table of one address family, or the difference between two sets of targets. Pure text.

Traps of nft 1.0.6 that shaped this: `typeof` maps with numgen break later rules, hence the random number travels in the packet mark;
an element is changed by deleting and adding it in one transaction; no `}` right after a statement. A TCP client gets a reset: an ICMP
error for a route through `lo` never reaches it. Masquerading towards a pod takes the node's own address in the pod range: the link has
none, so the kernel takes the first global address there is, and that is the one on `lo`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgekube.proxy.frame import DROP, FRAME, MASQUERADE_BIT, NO_MASQUERADE, TAG
from edgekube.proxy.model import Endpoint, Front, Target, Targets

_MOST = (1 << 14) - 2  # endpoints of one front that are used
_MASQUERADE = f"ct mark set ct mark or {MASQUERADE_BIT:#x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is fixed for a node and one address family."""

    table: str
    pods: str
    services: str

    @property
    def family(self) -> str:
        return "ip6" if ":" in self.pods else "ip"

    @property
    def at(self) -> str:
        return f"{self.family} {self.table}"


@dataclass(frozen=True, slots=True)
class Tables:
    """Targets as the kernel's maps hold them: key text -> value text; chains: name -> rules; sets: name -> timeout.

    `shapes` are the chains that targets without affinity share: how many endpoints, for whom, masqueraded or not."""

    elements: Mapping[str, Mapping[str, str]]
    shapes: frozenset[str]
    chains: Mapping[str, tuple[str, ...]]
    sets: Mapping[str, int]


def tables_of(frame: Frame, targets: Targets, loops: Iterable[str] = ()) -> Tables:
    """Spell targets out. `loops` are the addresses of endpoints on this node."""
    maps = (
        "services",
        "nodeports",
        "affine",
        "affine_ports",
        "endpoints",
        "port_endpoints",
        "refused",
        "refused_ports",
        "limited",
        "loops",
    )
    elements: dict[str, dict[str, str]] = {name: {} for name in maps}
    shapes: set[str] = set()
    chains: dict[str, tuple[str, ...]] = {}
    sets: dict[str, int] = {}
    for front, target in targets.items():
        key = _key(front)
        if target.sources:
            elements["limited"][key] = f"jump {_limit(frame, front, target, chains)}"
        if not (target.endpoints or target.inside or target.drop):
            elements["refused_ports" if front.wild else "refused"][key] = ""
            continue
        if not (target.endpoints or target.inside):
            elements["nodeports" if front.wild else "services"][key] = f"{DROP:#x}"
        elif target.affinity_seconds:
            name = _affinity(frame, front, target, chains, sets)
            elements["affine_ports" if front.wild else "affine"][key] = f"goto {name}"
        else:
            shape = _shape(front, target)
            _spread(key, target, elements["port_endpoints" if front.wild else "endpoints"])
            shapes.add(shape)
            elements["nodeports" if front.wild else "services"][key] = f"{_mark(shape):#x}"
    for address in loops:
        elements["loops"][f"{address} . {address}"] = ""
    return Tables(elements, frozenset(shapes), chains, sets)


def _key(front: Front) -> str:
    return f"{front.protocol} . {front.port}" if front.wild else f"{front.address} . {front.protocol} . {front.port}"


def _spread(key: str, target: Target, into: dict[str, str]) -> None:
    """Those for everybody first, then those for clients in the cluster."""
    for index, endpoint in enumerate((*target.endpoints[:_MOST], *target.inside[:_MOST])):
        into[f"{key} . {TAG + index:#x}"] = f"{endpoint.address} . {endpoint.port}"


def _shape(front: Front, target: Target) -> str:
    """Name of the chain for targets like this: n|p, [m], how many for all, [i how many for clients in the cluster]."""
    name = f"{'p' if front.wild else 'n'}{'m' if target.masquerade else ''}{min(len(target.endpoints), _MOST)}"
    return f"{name}i{min(len(target.inside), _MOST)}" if target.inside else name


def _mark(shape: str) -> int:
    """The same as a number: 14 bits for each count, one for p, one for m."""
    outer, _, inner = shape.lstrip("npm").partition("i")
    return int(outer) | int(inner or 0) << 14 | ("p" in shape) << 28 | ("m" in shape) << 29


def _shape_chain(frame: Frame, name: str) -> Iterable[str]:
    outer, _, inner = name.lstrip("npm").partition("i")
    key = "meta l4proto . th dport . meta mark map @port_endpoints"
    if name.startswith("n"):
        key = f"{frame.family} daddr . meta l4proto . th dport . meta mark map @endpoints"
    yield f"add chain {frame.at} {name}"
    yield f"flush chain {frame.at} {name}"
    rule = f"add rule {frame.at} {name}"
    tail = f"dnat {frame.family} to {key}"
    mark = f"{_MASQUERADE} " if "m" in name else ""
    if inner:
        pick = f"meta mark set numgen random mod {inner} offset {TAG + int(outer)} {tail}"
        yield f"{rule} {frame.family} saddr {frame.pods} meta l4proto {{ tcp, udp }} {pick}"
        yield f"{rule} fib saddr type local meta l4proto {{ tcp, udp }} {_MASQUERADE} {pick}"
    yield f"add element {frame.at} shapes {{ {_mark(name):#x} : goto {name} }}"
    if int(outer):
        yield f"{rule} meta l4proto {{ tcp, udp }} {mark}meta mark set numgen random mod {outer} offset {TAG} {tail}"
    else:
        yield f"{rule} drop"


def _digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:12]


def _limit(frame: Frame, front: Front, target: Target, chains: dict[str, tuple[str, ...]]) -> str:
    name = f"f_{_digest(front)}"
    chains[name] = (f"{frame.family} saddr {{ {', '.join(target.sources)} }} return", "drop")
    return name


def _affinity(frame: Frame, front: Front, target: Target, chains: dict[str, tuple[str, ...]], sets: dict[str, int]) -> str:
    """Chains in the order kube-proxy uses: a known client goes where it went, a new one anywhere and is remembered."""
    mark = f"{_MASQUERADE} " if target.masquerade else ""
    for endpoint in target.all_endpoints():
        leaf, remembered = _names(front, target, endpoint)
        sets[remembered] = target.affinity_seconds
        to = f"dnat to {_target(endpoint)}"
        chains[leaf] = (f"update @{remembered} {{ {frame.family} saddr }} {mark}meta l4proto {front.protocol} {to}",)
    name = f"a_{_digest(front)}"
    rules = _pick(frame, front, target, target.endpoints)
    if target.inside:
        inner = f"b_{_digest(front)}"
        chains[inner] = _pick(frame, front, target, target.inside)
        local = f"fib saddr type local {_MASQUERADE} goto {inner}"
        rules = (f"{frame.family} saddr {frame.pods} goto {inner}", local, *rules)
    chains[name] = rules
    return name


def _names(front: Front, target: Target, endpoint: Endpoint) -> tuple[str, str]:
    """The chain of an endpoint, and the set of its clients; another timeout is another set."""
    return f"e_{_digest(front, endpoint[:2])}", f"c_{_digest(front, endpoint[:2], target.affinity_seconds)}"


def _pick(frame: Frame, front: Front, target: Target, endpoints: tuple[Endpoint, ...]) -> tuple[str, ...]:
    names = [_names(front, target, endpoint) for endpoint in endpoints]
    if not names:
        return ("drop",)
    known = [f"{frame.family} saddr @{remembered} goto {leaf}" for leaf, remembered in names]
    spread = ", ".join(f"{index} : goto {leaf}" for index, (leaf, _) in enumerate(names))
    return (*known, f"numgen random mod {len(names)} vmap {{ {spread} }}")


def _target(endpoint: Endpoint) -> str:
    return f"[{endpoint.address}]:{endpoint.port}" if ":" in endpoint.address else f"{endpoint.address}:{endpoint.port}"


def whole(frame: Frame, wanted: Tables, *, leftovers: Iterable[str] = ()) -> str:
    """The complete table in one transaction. `leftovers` are commands that remove what an earlier run left and nothing wants."""
    spared = ", ".join((frame.pods, *NO_MASQUERADE[frame.family]))
    lines = [
        FRAME[frame.family].format(
            t=frame.table, bit=MASQUERADE_BIT, pods=frame.pods, services=frame.services, spared=spared, drop=DROP, tag=TAG
        )
    ]
    lines += _sets(frame, wanted.sets)
    for name in sorted(wanted.shapes):
        lines += _shape_chain(frame, name)
    lines += _chains(frame, wanted.chains)
    lines += _add_elements(frame, wanted.elements)
    lines += leftovers
    return "\n".join(lines) + "\n"


def difference(frame: Frame, old: Tables, new: Tables) -> str:
    """Commands that turn `old` into `new`; "" if they are equal. One transaction."""
    lines: list[str] = _sets(frame, {name: timeout for name, timeout in new.sets.items() if name not in old.sets})
    for name in sorted(new.shapes - old.shapes):
        lines += _shape_chain(frame, name)
    lines += _chains(frame, {name: rules for name, rules in new.chains.items() if old.chains.get(name) != rules})
    removed: dict[str, list[str]] = {}
    added: dict[str, dict[str, str]] = {}
    for where, entries in new.elements.items():
        before = old.elements[where]
        removed[where] = [key for key, value in before.items() if entries.get(key) != value]
        added[where] = {key: value for key, value in entries.items() if before.get(key) != value}
    lines += [f"delete element {frame.at} {where} {{ {', '.join(keys)} }}" for where, keys in removed.items() if keys]
    lines += _add_elements(frame, added)
    gone = [name for name in old.chains if name not in new.chains]
    lines += [f"flush chain {frame.at} {name}" for name in gone]
    lines += [f"delete chain {frame.at} {name}" for name in sorted(gone)]  # a_, b_ before e_: rules refer downwards
    lines += [f"delete set {frame.at} {name}" for name in old.sets if name not in new.sets]
    return "\n".join(lines) + "\n" if lines else ""


def _sets(frame: Frame, sets: Mapping[str, int]) -> list[str]:
    kind = "ipv6_addr" if frame.family == "ip6" else "ipv4_addr"
    return [
        f"add set {frame.at} {name} {{ type {kind} ; flags dynamic,timeout ; timeout {seconds}s ; size 65535 ; }}"
        for name, seconds in sorted(sets.items())
    ]


def _chains(frame: Frame, chains: Mapping[str, tuple[str, ...]]) -> list[str]:
    lines = [f"add chain {frame.at} {name}" for name in sorted(chains)]
    for name, rules in sorted(chains.items(), reverse=True):
        lines.append(f"flush chain {frame.at} {name}")
        lines += [f"add rule {frame.at} {name} {rule}" for rule in rules]
    return lines


def _add_elements(frame: Frame, elements: Mapping[str, Mapping[str, str]]) -> list[str]:
    lines = []
    for where, entries in elements.items():
        pairs = [f"{key} : {value}" if value else key for key, value in entries.items()]
        parts = (pairs[start : start + 1000] for start in range(0, len(pairs), 1000))
        lines += [f"add element {frame.at} {where} {{ {', '.join(part)} }}" for part in parts]
    return lines
