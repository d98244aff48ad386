"""From targets to iptables rules: pure. One family's chains as data, and the text that `iptables-restore --noflush` takes.

    nat     PRE, SERVICES > A-xx (addresses by their low bits), PORTS > P-... (node ports by range) > F-... (one front) > E-... (affinity)
            POST: hairpins (LOOPS), what is marked unless its endpoint is here (HERE), outsiders at a ClusterIP, pods leaving (LEAVE)
    filter  IN, FWD, OUT > the same tree: fronts without endpoints are refused or dropped; LIMIT: source ranges
    mangle  SPOOF: 127.0.0.0/8 and forged sources from pods

Every chain is named EK-<instance>-... (28 characters at most), so that ours are known among all others. With the tree a packet meets few
rules (some 60 if it is the first, none if not), and a change rewrites only the chains of its front and one bucket.
`nat` can not drop: what a front does not translate is dropped or refused in `filter`, where it arrives with its destination unchanged.
A forwarded IPv6 packet for a Service address goes nowhere (the kernel does not forward to a route through `lo`): it is turned
to an address of this node and refused there.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgekube.proxy.frame import MASQUERADE_BIT, NO_MASQUERADE
from edgekube.proxy.iprestore import Chains, Jump
from edgekube.proxy.model import Endpoint, Front, Target, Targets

ADDRESS_BUCKETS, PORT_BUCKET = 64, 64
_MARK = f"-j CONNMARK --set-xmark {MASQUERADE_BIT:#x}/{MASQUERADE_BIT:#x}"
_MARKED = f"-m connmark --mark {MASQUERADE_BIT:#x}/{MASQUERADE_BIT:#x}"
_DNAT = "-m conntrack --ctstate DNAT"
_NOT_NEW = "-m conntrack ! --ctstate NEW -j RETURN"
_LOCAL = "-m addrtype --dst-type LOCAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class IpFrame:
    """What is fixed for a node and one address family."""

    instance: str
    pods: str
    services: str

    @property
    def six(self) -> bool:
        return ":" in self.pods

    @property
    def prefix(self) -> str:
        return f"EK-{self.instance}-"

    def chain(self, name: str) -> str:
        return self.prefix + name


def jumps(frame: IpFrame) -> tuple[Jump, ...]:
    """Our entries in the built-in chains."""
    where = (
        ("nat", "PREROUTING", "PRE"),
        ("nat", "OUTPUT", "SERVICES"),
        ("nat", "POSTROUTING", "POST"),
        ("filter", "INPUT", "IN"),
        ("filter", "FORWARD", "FWD"),
        ("filter", "OUTPUT", "OUT"),
        ("mangle", "PREROUTING", "SPOOF"),
    )
    return tuple((table, built_in, frame.chain(name)) for table, built_in, name in where)


def bucket(front: Front) -> str:
    """Which part of the tree a front belongs to."""
    if front.wild:
        return f"P-{front.protocol[0]}-{front.port // PORT_BUCKET}"
    return f"A-{int(ipaddress.ip_address(front.address)) % ADDRESS_BUCKETS:02x}"


def fixed(frame: IpFrame, own: str = "") -> Chains:
    """What does not depend on targets. `own`: an IPv6 address of this node at which nothing of a Service is, if there is one yet."""
    c, range_ = frame.chain, f"-d {frame.services}"
    refusal = "icmp6-port-unreachable" if frame.six else "icmp-port-unreachable"
    turned = (f"{range_} -m addrtype ! --dst-type LOCAL -j DNAT --to-destination {own}",) if own else ()
    stranded = (f"-d {own} -m conntrack --ctorigdst {frame.services} -j {c('REFUSE')}",) if own else ()
    spared = [f"-d {net} -j RETURN" for net in (frame.pods, *NO_MASQUERADE["ip6" if frame.six else "ip"])]
    forged = ("-i ek+ -s ::/128 -j RETURN", "-i ek+ -s fe80::/10 -j RETURN", "-i ek+ -m rpfilter --invert -j DROP")
    return {
        ("nat", c("PRE")): (f"-j {c('SERVICES')}", *turned),
        ("nat", c("POST")): (
            f"{_DNAT} -s {frame.pods} -j {c('LOOPS')}",
            *(() if frame.six else (f"{_DNAT} -s 127.0.0.0/8 -j MASQUERADE",)),
            f"{_DNAT} {_MARKED} -j {c('HERE')}",
            f"{_DNAT} -m conntrack --ctorigdst {frame.services} ! -s {frame.pods} -j MASQUERADE",
            f"-s {frame.pods} -j {c('LEAVE')}",
        ),
        ("nat", c("LEAVE")): (*spared, "-j MASQUERADE"),
        ("filter", c("REFUSE")): ("-p tcp -j REJECT --reject-with tcp-reset", f"-j REJECT --reject-with {refusal}"),
        ("filter", c("IN")): (
            _NOT_NEW,
            *stranded,
            f"-j {c('FRONTS')}",
        ),
        ("filter", c("FWD")): (_NOT_NEW, f"-j {c('FRONTS')}", f"{range_} -j {c('REFUSE')}"),
        ("filter", c("OUT")): (_NOT_NEW, f"{_LOCAL} -j RETURN", f"-j {c('FRONTS')}", f"{range_} -j {c('REFUSE')}"),
        ("mangle", c("SPOOF")): forged if frame.six else ("! -i lo -d 127.0.0.0/8 -j DROP",),
    }


def dispatch(frame: IpFrame, table: str, buckets: Iterable[str]) -> Chains:
    """The top of the tree: which buckets there are."""
    c = frame.chain
    addresses, ports = [], []
    for name in sorted(buckets):
        if name.startswith("A-"):
            low = int(name[2:], 16)
            match = f"::{low:x}/::{ADDRESS_BUCKETS - 1:x}" if frame.six else f"0.0.0.{low}/0.0.0.{ADDRESS_BUCKETS - 1}"
            addresses.append(f"-d {match} -j {c(name)}")
        else:
            _, kind, index = name.split("-")
            first = int(index) * PORT_BUCKET
            protocol = "tcp" if kind == "t" else "udp"
            ports.append(f"-p {protocol} -m {protocol} --dport {first}:{first + PORT_BUCKET - 1} -j {c(name)}")
    top = "SERVICES" if table == "nat" else "FRONTS"
    return {(table, c(top)): (*addresses, f"{_LOCAL} -j {c('PORTS')}"), (table, c("PORTS")): tuple(ports)}


def leaf(frame: IpFrame, table: str, name: str, targets: Targets) -> Chains:
    """One bucket with all its fronts; the chains of fronts are elsewhere."""
    rule = _entry if table == "nat" else _verdict
    return {(table, frame.chain(name)): tuple(text for front, target in sorted(targets.items()) for text in rule(frame, front, target))}


def local_endpoints(frame: IpFrame, addresses: Iterable[str]) -> Chains:
    """Endpoints here: they may reach themselves, and keep the addresses of clients."""
    found = sorted(addresses)
    return {
        ("nat", frame.chain("LOOPS")): tuple(f"-s {address} -d {address} -j MASQUERADE" for address in found),
        ("nat", frame.chain("HERE")): (*(f"-d {address} -j RETURN" for address in found), "-j MASQUERADE"),
    }


def _match(front: Front) -> str:
    where = "" if front.wild else f"-d {front.address} "
    return f"{where}-p {front.protocol} -m {front.protocol} --dport {front.port}"


def _digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:12]


def _entry(frame: IpFrame, front: Front, target: Target) -> Iterator[str]:
    """nat: to the chain of the front, if it goes anywhere."""
    if target.endpoints or target.inside:
        yield f"{_match(front)} -j {frame.chain('L-' if target.sources else 'F-')}{_digest(front)}"
    elif target.drop and frame.six and not front.wild:
        yield f"{_match(front)} -j ACCEPT"  # not turned, so it goes nowhere


def _verdict(frame: IpFrame, front: Front, target: Target) -> Iterator[str]:
    """filter: what becomes of what was not translated."""
    somewhere = bool(target.endpoints or target.inside)
    if target.sources and not somewhere and not target.drop:
        yield f"{_match(front)} -j {frame.chain('L-')}{_digest(front)}"
    elif target.drop or target.sources or (target.inside and not target.endpoints):
        yield f"{_match(front)} -j DROP"
    elif not somewhere and (front.wild or not _within(front.address, frame.services)):
        yield f"{_match(front)} -j {frame.chain('REFUSE')}"


def _within(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr)


def front_chains(frame: IpFrame, front: Front, target: Target) -> Chains:
    """The chains of one front."""
    digest, c = _digest(front), frame.chain
    found: Chains = {}
    if not (target.endpoints or target.inside):
        if target.sources and not target.drop:
            found["filter", c(f"L-{digest}")] = (*(f"-s {cidr} -j {c('REFUSE')}" for cidr in target.sources), "-j DROP")
        return found
    if target.sources:
        found["nat", c(f"L-{digest}")] = tuple(f"-s {cidr} -j {c(f'F-{digest}')}" for cidr in target.sources)
    rules: list[str] = []
    if target.inside:
        inner, here = c(f"I-{digest}"), "-m addrtype --src-type LOCAL"
        rules += [f"-s {frame.pods} -j {inner}", f"{here} {_MARK}", f"{here} -j {inner}"]
        found["nat", inner] = _pick(frame, front, target, target.inside)
    if target.endpoints:
        rules += [*((_MARK,) if target.masquerade else ()), *_pick(frame, front, target, target.endpoints)]
    found["nat", c(f"F-{digest}")] = tuple(rules)
    if target.affinity_seconds:
        for endpoint in target.all_endpoints():
            name = f"E-{_digest(front, endpoint[:2])}"
            found["nat", c(name)] = (f"-p {front.protocol} -m recent --name {c(name)} --set {_to(endpoint)}",)
    return found


def _pick(frame: IpFrame, front: Front, target: Target, endpoints: tuple[Endpoint, ...]) -> tuple[str, ...]:
    names = [frame.chain(f"E-{_digest(front, endpoint[:2])}") for endpoint in endpoints]
    seconds = target.affinity_seconds
    known = [f"-m recent --name {name} --rcheck --seconds {seconds} --reap -j {name}" for name in names] if seconds else []
    goes = [f"-j {name}" for name in names] if seconds else [f"-p {front.protocol} {_to(endpoint)}" for endpoint in endpoints]
    return (*known, *(_at_random(rule, len(goes) - index) for index, rule in enumerate(goes)))


def _at_random(rule: str, left: int) -> str:
    """One of `left` that are left."""
    if left == 1:
        return rule
    protocol, _, rest = rule.rpartition("-j ")
    return f"{protocol}-m statistic --mode random --probability {1 / left:.11f} -j {rest}"


def _to(endpoint: Endpoint) -> str:
    address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"-j DNAT --to-destination {address}:{endpoint.port}"
