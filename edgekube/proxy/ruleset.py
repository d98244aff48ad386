"""From a Plan to nft commands: the whole table, or the difference between two plans. Pure text.

Traps of nft 1.0.6 that shaped this: `typeof` maps with numgen break later rules, hence the random number travels in the packet mark;
an element is changed by deleting and adding it in one transaction; no `}` right after a statement. A TCP client gets a reset: an ICMP
error for a route through `lo` never reaches it. Masquerading towards a pod takes the node's own address in the pod range: the link has
none, so the kernel takes the first global address there is, and that is the one on `lo`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgekube.proxy.model import Endpoint, Front, Plan, Target

MASQUERADE_BIT = 0x4000

_FRAME = """
add table ip {t}
add map ip {t} services {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
add map ip {t} nodeports {{ type inet_proto . inet_service : verdict ; }}
add map ip {t} endpoints {{ type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service ; }}
add map ip {t} port_endpoints {{ type inet_proto . inet_service . mark : ipv4_addr . inet_service ; }}
add set ip {t} loops {{ type ipv4_addr . ipv4_addr ; }}
add chain ip {t} translate
add chain ip {t} pre {{ type nat hook prerouting priority -100 ; policy accept ; }}
add chain ip {t} out {{ type nat hook output priority -100 ; policy accept ; }}
add chain ip {t} post {{ type nat hook postrouting priority 100 ; policy accept ; }}
add chain ip {t} spoof {{ type filter hook prerouting priority -150 ; policy accept ; }}
add chain ip {t} guard_forward {{ type filter hook forward priority -10 ; policy accept ; }}
add chain ip {t} guard_output {{ type filter hook output priority -10 ; policy accept ; }}
flush table ip {t}
flush map ip {t} services
flush map ip {t} nodeports
flush map ip {t} endpoints
flush map ip {t} port_endpoints
flush set ip {t} loops
add rule ip {t} translate ip daddr . meta l4proto . th dport vmap @services
add rule ip {t} translate fib daddr type local meta l4proto . th dport vmap @nodeports
add rule ip {t} pre jump translate
add rule ip {t} out jump translate
add rule ip {t} post ct mark and {bit:#x} == {bit:#x} ct status dnat masquerade
add rule ip {t} post ct status dnat ip saddr . ip daddr @loops masquerade
add rule ip {t} post ct status dnat ip saddr 127.0.0.0/8 masquerade
add rule ip {t} post ip saddr {pods} ip daddr != {{ {pods}, 224.0.0.0/4 }} masquerade
add rule ip {t} spoof iifname "ek*" ip daddr 127.0.0.0/8 drop
add rule ip {t} guard_forward ip daddr {services} meta l4proto tcp reject with tcp reset
add rule ip {t} guard_forward ip daddr {services} reject
add rule ip {t} guard_output ip daddr {services} fib daddr type != local meta l4proto tcp reject with tcp reset
add rule ip {t} guard_output ip daddr {services} fib daddr type != local reject
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is fixed for a node."""

    table: str
    pods: str
    services: str


@dataclass(frozen=True, slots=True)
class Tables:
    """A plan as the kernel's maps hold it: key text -> value text; chains: name -> rules; sets: name -> timeout."""

    elements: Mapping[str, Mapping[str, str]]
    counts: frozenset[str]
    affinity: Mapping[str, tuple[str, ...]]
    sets: Mapping[str, int]


def tables_of(plan: Plan) -> Tables:
    """Spell a plan out."""
    elements: dict[str, dict[str, str]] = {"services": {}, "nodeports": {}, "endpoints": {}, "port_endpoints": {}, "loops": {}}
    counts: set[str] = set()
    chains: dict[str, tuple[str, ...]] = {}
    sets: dict[str, int] = {}
    for front, target in plan.targets.items():
        if target.affinity_seconds:
            verdict = _affinity(front, target, chains, sets)
        else:
            verdict = _by_count(front, target, elements)
            counts.add(verdict)
        where = "services" if front.address else "nodeports"
        elements[where][_key(front)] = f"goto {verdict}"
    for address in plan.local_pods:
        elements["loops"][f"{address} . {address}"] = ""
    return Tables(elements, frozenset(counts), chains, sets)


def _key(front: Front) -> str:
    return f"{front.address} . {front.protocol} . {front.port}" if front.address else f"{front.protocol} . {front.port}"


def _by_count(front: Front, target: Target, elements: dict[str, dict[str, str]]) -> str:
    where = elements["endpoints" if front.address else "port_endpoints"]
    for index, endpoint in enumerate(target.endpoints):
        where[f"{_key(front)} . {index:#x}"] = f"{endpoint.address} . {endpoint.port}"
    return f"{'n' if front.address else 'p'}{'m' if target.masquerade else ''}{len(target.endpoints)}"


def _count_chain(table: str, name: str) -> Iterable[str]:
    count = name.lstrip("npm")
    key = "ip daddr . meta l4proto . th dport . meta mark map @endpoints"
    if name.startswith("p"):
        key = "meta l4proto . th dport . meta mark map @port_endpoints"
    mark = f"ct mark set ct mark or {MASQUERADE_BIT:#x} " if "m" in name else ""
    yield f"add chain ip {table} {name}"
    yield f"flush chain ip {table} {name}"
    yield f"add rule ip {table} {name} meta l4proto {{ tcp, udp }} {mark}meta mark set numgen random mod {count} dnat ip to {key}"


def _digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:12]


def _affinity(front: Front, target: Target, chains: dict[str, tuple[str, ...]], sets: dict[str, int]) -> str:
    """Chains in the order kube-proxy uses: a known client goes where it went, a new one anywhere and is remembered."""
    name = f"a_{_digest(front)}"
    known, spread = [], []
    mark = f"ct mark set ct mark or {MASQUERADE_BIT:#x} " if target.masquerade else ""
    for index, endpoint in enumerate(target.endpoints):
        leaf, remembered = f"e_{_digest(front, endpoint)}", f"c_{_digest(front, endpoint)}"
        sets[remembered] = target.affinity_seconds
        chains[leaf] = (f"update @{remembered} {{ ip saddr }} {mark}meta l4proto {front.protocol} dnat to {_target(endpoint)}",)
        known.append(f"ip saddr @{remembered} goto {leaf}")
        spread.append(f"{index} : goto {leaf}")
    chains[name] = (*known, f"numgen random mod {len(spread)} vmap {{ {', '.join(spread)} }}")
    return name


def _target(endpoint: Endpoint) -> str:
    return f"{endpoint.address}:{endpoint.port}"


def whole(frame: Frame, wanted: Tables, *, leftovers: Iterable[str] = ()) -> str:
    """The complete table in one transaction. `leftovers` are commands that remove what an earlier run left and nothing wants."""
    lines = [_FRAME.format(t=frame.table, bit=MASQUERADE_BIT, pods=frame.pods, services=frame.services)]
    lines += _sets(frame.table, wanted.sets)
    for name in sorted(wanted.counts):
        lines += _count_chain(frame.table, name)
    lines += _chains(frame.table, wanted.affinity)
    lines += _add_elements(frame.table, wanted.elements)
    lines += leftovers
    return "\n".join(lines) + "\n"


def difference(frame: Frame, old: Tables, new: Tables) -> str:
    """Commands that turn `old` into `new`; "" if they are equal. One transaction."""
    lines: list[str] = _sets(frame.table, {name: timeout for name, timeout in new.sets.items() if name not in old.sets})
    for name in sorted(new.counts - old.counts):
        lines += _count_chain(frame.table, name)
    lines += _chains(frame.table, {name: rules for name, rules in new.affinity.items() if old.affinity.get(name) != rules})
    removed: dict[str, list[str]] = {}
    added: dict[str, dict[str, str]] = {}
    for where, entries in new.elements.items():
        before = old.elements[where]
        removed[where] = [key for key, value in before.items() if entries.get(key) != value]
        added[where] = {key: value for key, value in entries.items() if before.get(key) != value}
    lines += [f"delete element ip {frame.table} {where} {{ {', '.join(keys)} }}" for where, keys in removed.items() if keys]
    lines += _add_elements(frame.table, added)
    gone = [name for name in old.affinity if name not in new.affinity]
    lines += [f"flush chain ip {frame.table} {name}" for name in gone]
    lines += [f"delete chain ip {frame.table} {name}" for name in sorted(gone)]  # a_ before e_: rules refer downwards
    lines += [f"delete set ip {frame.table} {name}" for name in old.sets if name not in new.sets]
    return "\n".join(lines) + "\n" if lines else ""


def _sets(table: str, sets: Mapping[str, int]) -> list[str]:
    return [
        f"add set ip {table} {name} {{ type ipv4_addr ; flags dynamic,timeout ; timeout {seconds}s ; size 65535 ; }}"
        for name, seconds in sorted(sets.items())
    ]


def _chains(table: str, chains: Mapping[str, tuple[str, ...]]) -> list[str]:
    lines = [f"add chain ip {table} {name}" for name in sorted(chains)]
    for name, rules in sorted(chains.items(), reverse=True):
        lines.append(f"flush chain ip {table} {name}")
        lines += [f"add rule ip {table} {name} {rule}" for rule in rules]
    return lines


def _add_elements(table: str, elements: Mapping[str, Mapping[str, str]]) -> list[str]:
    lines = []
    for where, entries in elements.items():
        pairs = [f"{key} : {value}" if value else key for key, value in entries.items()]
        parts = (pairs[start : start + 1000] for start in range(0, len(pairs), 1000))
        lines += [f"add element ip {table} {where} {{ {', '.join(part)} }}" for part in parts]
    return lines
