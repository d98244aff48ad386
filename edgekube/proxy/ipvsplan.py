"""What IPVS carries and what stays with nftables, as data and nft text. Pure.

    ClusterIP                 a virtual service of that address and port; affinity is IPVS's own (persistent)
    node ports, other         packets are marked by our small table, and the mark is the virtual service: no list of local addresses
    addresses, two audiences  is followed, and two audiences are two marks
    left to nftables          source ranges; affinity of marked fronts (the kernel does not translate the port of a persistent mark);
                              whatever has no endpoints (refused, dropped)

The small table `edgekube_<instance>_ipvs`: marks, masquerade where the answer must come back through here (IPVS itself never does),
hairpins, and refusal of other ports of addresses that are local only for IPVS. NodePorts on 127.0.0.1 are not served, as with upstream.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgekube.proxy.frame import MASQUERADE_BIT
from edgekube.proxy.ipvslink import Destination, Virtual
from edgekube.proxy.model import Endpoint, Front, Target, Targets
from edgekube.proxy.ruleset import Frame

MARK_FAMILY, MARK_OF_FAMILY = 0xE4000000, 0xFF000000  # our marks
_MASQUERADED, _NUMBERS = 1 << 23, (1 << 23) - 1


@dataclass(frozen=True, slots=True)
class Balanced:
    """One virtual service. `lasting`: its connections may end by themselves when their endpoint goes (TCP)."""

    destinations: frozenset[Destination]
    lasting: bool
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Elements:
    """Of the small table: set or map -> key -> value ("" in a set)."""

    of: Mapping[str, Mapping[str, str]]


_MAPS = ("outer", "inner", "outer_ports", "inner_ports")
_SETS = ("dropped", "dropped_ports", "loops", "virtual", "known")


def is_carried(target: Target, front: Front, services: str) -> bool:
    """Whether IPVS does it."""
    if not (target.endpoints or target.inside) or target.sources:
        return False
    return not target.affinity_seconds or (by_address(front, services) and not target.inside)


def by_address(front: Front, services: str) -> bool:
    """A ClusterIP: those are ours alone, whoever else uses IPVS here."""
    return not front.wild and ipaddress.ip_address(front.address) in ipaddress.ip_network(services)


class Marks:
    """A mark for each marked side of a front: the same after a restart as far as that is possible."""

    def __init__(self) -> None:
        self._by_side: dict[tuple[Front, bool], int] = {}
        self._used: set[int] = set()

    def get(self, front: Front, inside: bool, *, masquerade: bool) -> int:
        number = self._by_side.get((front, inside))
        if number is None:
            number = int.from_bytes(hashlib.sha256(repr((front, inside)).encode()).digest()[:4], "big") & _NUMBERS
            while number in self._used:
                number = (number + 1) & _NUMBERS
            self._by_side[front, inside] = number
            self._used.add(number)
        return MARK_FAMILY | number | (_MASQUERADED if masquerade else 0)

    def forget(self, front: Front) -> None:
        for inside in (False, True):
            self._used.discard(self._by_side.pop((front, inside), -1))


def plan(frame: Frame, targets: Targets, marks: Marks) -> tuple[dict[Virtual, Balanced], Elements]:
    """Virtual services and elements for fronts that IPVS carries."""
    six = frame.family == "ip6"
    found: dict[Virtual, Balanced] = {}
    of: dict[str, dict[str, str]] = {name: {} for name in (*_MAPS, *_SETS)}
    for front, target in targets.items():
        key = f"{front.protocol} . {front.port}" if front.wild else f"{front.address} . {front.protocol} . {front.port}"
        ports = "_ports" if front.wild else ""
        if by_address(front, frame.services) and not target.inside:
            found[Virtual(six, 0, front.protocol, front.address, front.port)] = _balanced(front, target.endpoints, target.affinity_seconds)
        else:
            for side, endpoints, masquerade in (("outer", target.endpoints, target.masquerade), ("inner", target.inside, False)):
                if endpoints:
                    mark = marks.get(front, side == "inner", masquerade=masquerade)
                    found[Virtual(six, mark)] = _balanced(front, endpoints)
                    of[f"{side}{ports}"][key] = f"{mark:#x}"
            if not target.endpoints:
                of[f"dropped{ports}"][key] = ""
        if by_address(front, frame.services):  # any other may be the node's own address, with ports of its own
            of["virtual"][front.address] = ""
            of["known"][key] = ""
        for endpoint in target.all_endpoints():
            if endpoint.local:
                of["loops"][f"{endpoint.address} . {endpoint.address}"] = ""
    return found, Elements(of)


def _balanced(front: Front, endpoints: Iterable[Endpoint], seconds: int = 0) -> Balanced:
    places = frozenset(Destination(endpoint.address, endpoint.port) for endpoint in endpoints)
    return Balanced(places, front.protocol == "tcp", seconds)


_TABLE = """add table FAMILY {t}
add map FAMILY {t} outer {{ type ADDRESS . inet_proto . inet_service : mark ; }}
add map FAMILY {t} inner {{ type ADDRESS . inet_proto . inet_service : mark ; }}
add map FAMILY {t} outer_ports {{ type inet_proto . inet_service : mark ; }}
add map FAMILY {t} inner_ports {{ type inet_proto . inet_service : mark ; }}
add set FAMILY {t} dropped {{ type ADDRESS . inet_proto . inet_service ; }}
add set FAMILY {t} dropped_ports {{ type inet_proto . inet_service ; }}
add set FAMILY {t} loops {{ type ADDRESS . ADDRESS ; }}
add set FAMILY {t} virtual {{ type ADDRESS ; }}
add set FAMILY {t} known {{ type ADDRESS . inet_proto . inet_service ; }}
add chain FAMILY {t} marks
add chain FAMILY {t} refuse
add chain FAMILY {t} elsewhere
add chain FAMILY {t} pre {{ type filter hook prerouting priority -110 ; policy accept ; }}
add chain FAMILY {t} out {{ type route hook output priority -110 ; policy accept ; }}
add chain FAMILY {t} post {{ type nat hook postrouting priority 90 ; policy accept ; }}
add chain FAMILY {t} guard {{ type filter hook input priority -10 ; policy accept ; }}
flush table FAMILY {t}
flush map FAMILY {t} outer
flush map FAMILY {t} inner
flush map FAMILY {t} outer_ports
flush map FAMILY {t} inner_ports
flush set FAMILY {t} dropped
flush set FAMILY {t} dropped_ports
flush set FAMILY {t} loops
flush set FAMILY {t} virtual
flush set FAMILY {t} known
add rule FAMILY {t} marks FAMILY saddr {pods} meta mark set FAMILY daddr . meta l4proto . th dport map @inner return
add rule FAMILY {t} marks fib saddr type local meta mark set FAMILY daddr . meta l4proto . th dport map @inner {masquerade} return
add rule FAMILY {t} marks FAMILY daddr . meta l4proto . th dport @dropped drop
add rule FAMILY {t} marks meta mark set FAMILY daddr . meta l4proto . th dport map @outer meta mark and {flag:#x} != {flag:#x} return
add rule FAMILY {t} marks meta mark and {both:#x} == {both:#x} {masquerade} return
add rule FAMILY {t} marks fib daddr type != local return
add rule FAMILY {t} marks FAMILY daddr {services} return
LOOPBACKadd rule FAMILY {t} marks FAMILY saddr {pods} meta mark set meta l4proto . th dport map @inner_ports return
add rule FAMILY {t} marks fib saddr type local meta mark set meta l4proto . th dport map @inner_ports {masquerade} return
add rule FAMILY {t} marks meta l4proto . th dport @dropped_ports drop
add rule FAMILY {t} marks meta mark set meta l4proto . th dport map @outer_ports meta mark and {flag:#x} == {flag:#x} {masquerade}
add rule FAMILY {t} pre jump marks
add rule FAMILY {t} out jump marks
add rule FAMILY {t} elsewhere FAMILY daddr . FAMILY daddr != @loops masquerade
add rule FAMILY {t} post FAMILY saddr . FAMILY daddr @loops masquerade
add rule FAMILY {t} post meta mark and {of:#x} == {ours:#x} ct mark and {bit:#x} == {bit:#x} jump elsewhere
add rule FAMILY {t} post ct original FAMILY daddr {services} FAMILY daddr != {services} FAMILY saddr != {pods} masquerade
add rule FAMILY {t} refuse meta l4proto tcp reject with tcp reset
add rule FAMILY {t} refuse reject
add rule FAMILY {t} guard ct state != new accept
add rule FAMILY {t} guard meta l4proto != {{ tcp, udp }} accept
add rule FAMILY {t} guard FAMILY daddr @virtual FAMILY daddr . meta l4proto . th dport != @known jump refuse
"""
_LOOPBACK = "add rule ip {t} marks ip daddr 127.0.0.0/8 return\n"


def table_name(instance: str) -> str:
    return f"edgekube_{instance}_ipvs"


def whole_table(frame: Frame, name: str, wanted: Elements) -> str:
    """The small table in one transaction."""
    six = frame.family == "ip6"
    text = _TABLE.replace("LOOPBACK", "" if six else _LOOPBACK).replace("FAMILY", frame.family)
    text = text.replace("ADDRESS", "ipv6_addr" if six else "ipv4_addr")
    masquerade = f"ct mark set ct mark or {MASQUERADE_BIT:#x}"
    values = {"pods": frame.pods, "services": frame.services, "bit": MASQUERADE_BIT, "masquerade": masquerade}
    marks = {"flag": _MASQUERADED, "both": MARK_FAMILY | _MASQUERADED, "of": MARK_OF_FAMILY, "ours": MARK_FAMILY}
    return text.format(t=name, **values, **marks) + difference(frame, name, Elements({}), wanted)


def difference(frame: Frame, name: str, old: Elements, new: Elements) -> str:
    """Commands that turn `old` into `new`; "" if they are equal."""
    lines = []
    for verb, there, wanted in (("delete", new, old), ("add", old, new)):
        for where, entries in wanted.of.items():
            known = there.of.get(where, {})
            changed = ((key, value) for key, value in entries.items() if known.get(key) != value)
            pairs = [key if verb == "delete" or not value else f"{key} : {value}" for key, value in changed]
            parts = (pairs[at : at + 1000] for at in range(0, len(pairs), 1000))
            lines += [f"{verb} element {frame.family} {name} {where} {{ {', '.join(part)} }}" for part in parts]
    return "\n".join(lines) + "\n" if lines else ""
