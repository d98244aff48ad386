"""What a host's nftables would do to one imagined packet: pure, over `nft -j list ruleset`. Knows nothing of edgekube.

Each base chain of the packet's hook is walked as the kernel would; what the packet does not say makes a match unknown. A drop that is
reached for sure is a blocker; it is `certain` unless something before it might have let the packet through.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Expression = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection. Empty fields are unknown; `dnat`: its destination has been translated."""

    hook: str
    saddr: str = ""
    daddr: str = ""
    iif: str = ""
    oif: str = ""
    protocol: str = ""
    dport: int = 0
    dnat: bool = False

    @property
    def six(self) -> bool:
        return ":" in self.saddr or ":" in self.daddr


@dataclass(frozen=True, slots=True)
class Blocker:
    """The rule (or with `policy` the chain) that stops a packet."""

    family: str
    table: str
    chain: str
    handle: int
    policy: bool = False
    certain: bool = True

    def __str__(self) -> str:
        what = "the policy" if self.policy else f"rule handle {self.handle}"
        handle = f" (chain handle {self.handle})" if self.policy else ""
        return f"{what} of chain {self.chain}{handle} in table {self.family} {self.table}"


@dataclass(slots=True)
class Ruleset:
    """A parsed listing."""

    chains: dict[tuple[str, str, str], Mapping[str, Any]] = field(default_factory=dict)
    rules: dict[tuple[str, str, str], list[Mapping[str, Any]]] = field(default_factory=dict)
    sets: dict[tuple[str, str, str], Sequence[Any]] = field(default_factory=dict)


def parse(listing: Mapping[str, Any]) -> Ruleset:
    found = Ruleset()
    for entry in listing.get("nftables") or ():
        for kind, body in entry.items():
            if kind == "chain":
                found.chains[body["family"], body["table"], body["name"]] = body
            elif kind == "rule":
                found.rules.setdefault((body["family"], body["table"], body["chain"]), []).append(body)
            elif kind in ("set", "map"):
                found.sets[body["family"], body["table"], body["name"]] = body.get("elem") or ()
    return found


def blockers(ruleset: Ruleset, packet: Packet, *, spared: Iterable[str] = ()) -> list[Blocker]:
    """Base chains that stop the packet; tables in `spared` are not asked."""
    families = ("inet", "ip6" if packet.six else "ip")
    spared = frozenset(spared)
    found = []
    for (family, table, _), chain in ruleset.chains.items():
        if family in families and table not in spared and chain.get("hook") == packet.hook and chain.get("type") == "filter":
            blocker = _Walk(ruleset, packet, family, table).base(chain)
            if blocker is not None:
                found.append(blocker)
    return found


class _Walk:
    """Through one base chain."""

    def __init__(self, ruleset: Ruleset, packet: Packet, family: str, table: str) -> None:
        self._ruleset, self._packet, self._family, self._table = ruleset, packet, family, table
        self._doubt = False  # something before may have accepted

    def base(self, chain: Mapping[str, Any]) -> Blocker | None:
        verdict = self._chain(chain["name"], 0)
        if isinstance(verdict, Blocker):
            return verdict
        if verdict == "accept" or chain.get("policy", "accept") == "accept":
            return None
        return Blocker(self._family, self._table, chain["name"], chain.get("handle", 0), policy=True, certain=not self._doubt)

    def _chain(self, name: str, depth: int) -> Blocker | str:
        """A blocker, "accept", or "" for falling off the end."""
        if depth > 16:  # as the kernel's limit on jumps
            return ""
        for rule in self._ruleset.rules.get((self._family, self._table, name), ()):
            verdict = self._rule(rule, depth)
            if verdict == "return":
                return ""
            if verdict:
                return verdict
        return ""

    def _rule(self, rule: Mapping[str, Any], depth: int) -> Blocker | str:
        sure = True
        for expression in rule.get("expr") or ():
            target = _verdict(expression)
            if target is None:
                matches = self._matches(expression)
                if matches is False:
                    return ""
                sure = sure and matches is True
                continue
            if target in ("drop", "reject"):
                blocker = Blocker(self._family, self._table, rule["chain"], rule.get("handle", 0), certain=not self._doubt)
                return blocker if sure else ""
            if target in ("accept", "return"):
                self._doubt |= not sure and target == "accept"
                return target if sure else ""
            kind, _, name = target.partition(" ")
            verdict = self._chain(name, depth + 1)
            if not sure:
                self._doubt |= verdict == "accept"
                return ""
            return verdict or ("return" if kind == "goto" else "")
        return ""

    def _matches(self, expression: Expression) -> bool | None:
        """True, False, or None for unknown. What is no condition holds."""
        if "xt" in expression:
            name = (expression["xt"] or {}).get("name", "") if isinstance(expression["xt"], Mapping) else ""
            return {"comment": True, "conntrack": False, "state": False}.get(name)  # states mean old or invalid connections
        if "limit" in expression:
            return None
        if "vmap" in expression:
            return None
        match = expression.get("match")
        if match is None:
            return True
        actual = self._actual(match["left"])
        if actual is None:
            return None
        holds = self._holds(actual, match["right"])
        if holds is None:
            return None
        return not holds if match.get("op") == "!=" else holds

    def _actual(self, left: Any) -> Sequence[str] | None:
        """What the packet has there; None: unknown; (): certainly not this protocol."""
        packet = self._packet
        if not isinstance(left, Mapping):
            return None
        if "meta" in left:
            key = left["meta"].get("key")
            known = {"iifname": packet.iif, "iif": packet.iif, "oifname": packet.oif, "oif": packet.oif, "l4proto": packet.protocol}
            known |= {"nfproto": "ipv6" if packet.six else "ipv4", "protocol": "ip6" if packet.six else "ip"}
            return (known[key],) if known.get(key) else None
        if "payload" in left:
            return self._payload(left["payload"])
        if "ct" in left:
            key = left["ct"].get("key")
            if key == "state":
                return ("new",)
            return ("dnat",) if key == "status" and packet.dnat else () if key == "status" else None
        return None

    def _payload(self, payload: Mapping[str, Any]) -> Sequence[str] | None:
        packet, protocol, name = self._packet, payload.get("protocol"), payload.get("field")
        if protocol in ("ip", "ip6"):
            if (protocol == "ip6") != packet.six:
                return ()
            if name in ("saddr", "daddr"):
                value = packet.saddr if name == "saddr" else packet.daddr
                return (value,) if value else None
            return (packet.protocol,) if name in ("protocol", "nexthdr") and packet.protocol else None
        if protocol in ("tcp", "udp", "th"):
            if protocol != "th" and packet.protocol and protocol != packet.protocol:
                return ()
            return (str(packet.dport),) if name == "dport" and packet.dport else None
        return () if protocol in ("icmp", "icmpv6", "sctp", "dccp") and packet.protocol else None

    def _holds(self, actual: Sequence[str], right: Any) -> bool | None:
        if isinstance(right, str) and right.startswith("@"):
            right = {"set": self._ruleset.sets.get((self._family, self._table, right[1:]), ())}
        alternatives = right.get("set", [right]) if isinstance(right, Mapping) else right if isinstance(right, list) else [right]
        results = [_equal(value, one) for value in actual for one in alternatives]
        return True if True in results else None if None in results else False


def _verdict(expression: Expression) -> str | None:
    for name in ("accept", "drop", "return"):
        if name in expression:
            return name
    if "reject" in expression:
        return "reject"
    for name in ("jump", "goto"):
        if name in expression:
            return f"{name} {expression[name]['target']}"
    target = expression.get("xt")
    if isinstance(target, Mapping) and target.get("type") == "target" and target.get("name") in ("REJECT", "DROP"):
        return "reject"
    return None


def _equal(value: str, wanted: Any) -> bool | None:
    """One value against one constant, prefix or range."""
    if isinstance(wanted, Mapping) and "elem" in wanted:
        wanted = wanted["elem"].get("val")
    try:
        if isinstance(wanted, Mapping) and "prefix" in wanted:
            net = ipaddress.ip_network(f"{wanted['prefix']['addr']}/{wanted['prefix']['len']}", strict=False)
            return ipaddress.ip_address(value) in net
        if isinstance(wanted, Mapping) and "range" in wanted:
            low, high = wanted["range"]
            return _rank(low) <= _rank(value) <= _rank(high)
        if isinstance(wanted, str) and wanted.endswith("*"):
            return value.startswith(wanted[:-1])
        if isinstance(wanted, str | int):
            return str(wanted) == value
    except (TypeError, ValueError):
        return None
    return None


def _rank(value: Any) -> int:
    text = str(value)
    return int(text) if text.isdecimal() else int(ipaddress.ip_address(text))


def chains_named(ruleset: Ruleset, prefix: str) -> Iterator[str]:
    """Names of chains that begin with `prefix`: tells whose rules these are."""
    return (name for _, _, name in ruleset.chains if name.startswith(prefix))
