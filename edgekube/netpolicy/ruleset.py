"""From a Plan to nft commands: the whole table, or the difference between two states. Pure text.

    forward   replies, related errors, a pod's traffic to itself: pass
              source in @out4 -> the chain of what the pod may send; destination in @in4 -> the chain of what it may receive
    input     the same for what a pod sends to its node; neighbour discovery passes, and addresses of Services that IPVS will translate
    output    what IPVS has translated on its way from somebody else: it does not come through forward; what the host itself sends passes
    in4_*, out4_*   one line for each admitted (peers, ports), which returns; at the end: counted, dropped

Every packet that a connection's opener sends is judged, not just the first: what a policy no longer admits stops at once. Replies pass
while the connection is known. The cost of a packet does not depend on how many pods and policies there are: one lookup by its source, one
by its destination, then the lines of the policies that select the pod. Services are translated earlier (prerouting), masquerading comes
later (postrouting): here both ends have their real addresses.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgekube.netpolicy.model import FAMILIES, Chain, Match, Plan, chain_name, set_name
from edgekube.netpolicy.slices import Ranges, family_of

FAMILY = "inet"
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_WORDS = {4: "ip", 6: "ip6"}
_FRAME = """
add table inet {t}
add map inet {t} in4 {{ type ipv4_addr : verdict ; }}
add map inet {t} out4 {{ type ipv4_addr : verdict ; }}
add map inet {t} in6 {{ type ipv6_addr : verdict ; }}
add map inet {t} out6 {{ type ipv6_addr : verdict ; }}
add set inet {t} self4 {{ type ipv4_addr . ipv4_addr ; }}
add set inet {t} self6 {{ type ipv6_addr . ipv6_addr ; }}
add chain inet {t} forward {{ type filter hook forward priority 0 ; policy accept ; }}
add chain inet {t} input {{ type filter hook input priority 0 ; policy accept ; }}
add chain inet {t} output {{ type filter hook output priority 0 ; policy accept ; }}
add chain inet {t} judge
flush table inet {t}
flush map inet {t} in4
flush map inet {t} out4
flush map inet {t} in6
flush map inet {t} out6
flush set inet {t} self4
flush set inet {t} self6
add rule inet {t} forward ct state related accept
add rule inet {t} forward ct direction reply accept
add rule inet {t} forward goto judge
add rule inet {t} judge ip saddr . ip daddr @self4 accept
add rule inet {t} judge ip6 saddr . ip6 daddr @self6 accept
add rule inet {t} judge ip saddr vmap @out4
add rule inet {t} judge ip daddr vmap @in4
add rule inet {t} judge ip6 saddr vmap @out6
add rule inet {t} judge ip6 daddr vmap @in6
add rule inet {t} input ct state related accept
add rule inet {t} input ct direction reply accept
add rule inet {t} input icmpv6 type {{ 133, 134, 135, 136 }} accept
{translated}add rule inet {t} input ip saddr vmap @out4
add rule inet {t} input ip6 saddr vmap @out6
add rule inet {t} output ct state related accept
add rule inet {t} output ct direction reply accept
add rule inet {t} output fib saddr type local accept
add rule inet {t} output goto judge
"""
FIXED_CHAINS, FIXED_SETS = ("forward", "input", "output", "judge"), ("in4", "out4", "in6", "out6", "self4", "self6")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is fixed for a node. `dns`: the addresses within the Services' ranges at which the node itself answers."""

    table: str
    services: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()

    def text(self) -> str:
        """The table without anything in it."""
        lines = []
        for family, word in _WORDS.items():
            ranges, own = (", ".join(a for a in some if family_of(a) == family) for some in (self.services, self.dns))
            if ranges:
                but = f"{word} daddr != {{ {own} }} " if own else ""
                lines.append(f"add rule inet {self.table} input {word} daddr {{ {ranges} }} {but}accept\n")
        return _FRAME.format(t=self.table, translated="".join(lines))


@dataclass(frozen=True, slots=True)
class Tables:
    """A plan as the kernel holds it. A set that did not change is the same object as before: that is how differences are found fast."""

    verdicts: Mapping[str, Mapping[str, str]]  # map -> address -> chain
    chains: Mapping[str, tuple[str, ...]]
    sets: Mapping[str, frozenset[str]]

    @property
    def empty(self) -> bool:
        return not self.chains


NOTHING = Tables({}, {}, {})


def tables_of(plan: Plan) -> Tables:
    """Spell a plan out."""
    verdicts: dict[str, dict[str, str]] = {}
    chains: dict[str, tuple[str, ...]] = {}
    for (side, family), found in plan.verdicts.items():
        for address, chain in found.items():
            name, lines = _spelled(side, family, chain)
            chains[name] = lines
            verdicts.setdefault(f"{side}{family}", {})[address] = f"jump {name}"
    for family in FAMILIES:
        isolated = {a for side in ("in", "out") for a in plan.verdicts.get((side, family), ())}
        if isolated:
            verdicts[f"self{family}"] = {f"{address} . {address}": "" for address in isolated}
    return Tables(verdicts, chains, {set_name(ref): elements for ref, elements in plan.sets.items()})


@functools.lru_cache(maxsize=512)
def _spelled(side: str, family: int, chain: Chain) -> tuple[str, tuple[str, ...]]:
    """Name and lines of a chain."""
    field = f"{_WORDS[family]} {'saddr' if side == 'in' else 'daddr'}"
    return chain_name(side, family, chain), (*sorted(_line(field, match) for match in chain), "counter drop")


def _line(field: str, match: Match) -> str:
    """Ports come first: comparing them costs less than looking an address up."""
    parts = []
    if match.ports:
        parts.append(f"{match.protocol} dport {_ports(match.ports)}")
    elif match.protocol:
        parts.append(f"meta l4proto {match.protocol}")
    if match.peers is not None:
        parts.append(f"{field} @{set_name(match.peers)}")
    return " ".join((*parts, "return"))


def _ports(ranges: Ranges) -> str:
    texts = [str(low) if low == high else f"{low}-{high}" for low, high in ranges]
    return texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"


def whole(frame: Frame, wanted: Tables, *, chains: Iterable[str] = (), sets: Iterable[str] = ()) -> str:
    """The complete table in one transaction; `chains` and `sets` are those it has now: what nothing wants goes, the rest is refilled."""
    table = frame.table
    stale_sets = sorted(set(sets) - set(wanted.sets) - set(FIXED_SETS))
    kept_sets = sorted(set(sets) & set(wanted.sets))
    lines = [frame.text()]
    lines += [f"flush set inet {table} {name}" for name in kept_sets]
    lines += _new_sets(table, wanted.sets)
    lines += _new_chains(table, wanted.chains)
    lines += _add(table, wanted.sets)
    lines += _add(table, wanted.verdicts)
    lines += [f"delete chain inet {table} {name}" for name in sorted(set(chains) - set(wanted.chains) - set(FIXED_CHAINS))]
    lines += [f"delete set inet {table} {name}" for name in stale_sets]
    return "\n".join(lines) + "\n"


def difference(table: str, old: Tables, new: Tables) -> str:
    """Commands that turn `old` into `new`; "" if they are equal. One transaction."""
    sets = {name: found for name, found in new.sets.items() if name not in old.sets}
    changed = [(name, old.sets[name], found) for name, found in new.sets.items() if name in old.sets and found is not old.sets[name]]
    lines = _new_sets(table, sets)
    lines += _add(table, sets)
    lines += _remove(table, {name: before - after for name, before, after in changed})
    lines += _add(table, {name: after - before for name, before, after in changed})
    lines += _new_chains(table, {name: found for name, found in new.chains.items() if name not in old.chains})
    for where in sorted({*old.verdicts, *new.verdicts}):
        before, after = old.verdicts.get(where, {}), new.verdicts.get(where, {})
        lines += _remove(table, {where: [key for key, value in before.items() if after.get(key) != value]})
        lines += _add(table, {where: {key: value for key, value in after.items() if before.get(key) != value}})
    gone = [name for name in old.chains if name not in new.chains]
    lines += [f"flush chain inet {table} {name}" for name in gone]
    lines += [f"delete chain inet {table} {name}" for name in gone]
    lines += [f"delete set inet {table} {name}" for name in old.sets if name not in new.sets]
    return "\n".join(lines) + "\n" if lines else ""


def _new_sets(table: str, names: Iterable[str]) -> list[str]:
    return [f"add set inet {table} {name} {{ type {_TYPES[int(name[1])]} ; {_flags(name)}}}" for name in sorted(names)]


def _flags(name: str) -> str:
    return "flags interval ; " if name.startswith("b") else ""


def _new_chains(table: str, chains: Mapping[str, tuple[str, ...]]) -> list[str]:
    lines = [f"add chain inet {table} {name}" for name in sorted(chains)]
    return lines + [f"add rule inet {table} {name} {line}" for name, found in sorted(chains.items()) for line in found]


def _add(table: str, elements: Mapping[str, Iterable[str]]) -> list[str]:
    lines = []
    for where, found in elements.items():
        pairs = [f"{key} : {value}" if value else key for key, value in found.items()] if isinstance(found, dict) else list(found)
        parts = (pairs[start : start + 1000] for start in range(0, len(pairs), 1000))
        lines += [f"add element inet {table} {where} {{ {', '.join(part)} }}" for part in parts]
    return lines


def _remove(table: str, elements: Mapping[str, Iterable[str]]) -> list[str]:
    found = {where: list(keys) for where, keys in elements.items()}
    return [f"delete element inet {table} {where} {{ {', '.join(keys)} }}" for where, keys in found.items() if keys]
