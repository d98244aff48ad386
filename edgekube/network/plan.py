"""What links, addresses, routes, neighbours and FDB entries this node should have: decided from Nodes alone. Pure.

Every peer costs one route per pod range, one neighbour and one FDB entry, as flannel's third scheme: nothing is learned, flooded or asked
for, so nothing can be forgotten. The MAC of a node's tunnel end is a hash of its pod range: a peer needs to know nothing but the Node.

    vxlan      10.42.M.0/24 via 10.42.M.0 dev ekv<instance> onlink src 10.42.N.1     neighbour 10.42.M.0 -> MAC(M)     FDB MAC(M) -> node M
               fd42:M::/64  via fe80::<MAC(M)> dev ekv<instance> src fd42:N::1       (over the same tunnel, whatever the underlay's family)
    host-gw    10.42.M.0/24 via <node M> dev <uplink> src 10.42.N.1                  for peers in a subnet of this host; others go by vxlan
               (flannel's DirectRouting: a flat LAN gets plain routes, a node behind a router still works)

Decision: a node whose address is not of the family of our own underlay, or whose range collides with another's, is refused with a reason
instead of half connected.
"""

import bisect
import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from edgekube.api.types import Obj
from edgekube.network.model import (
    HOST_GW,
    KUBELET_PORT,
    METRIC,
    VXLAN,
    Device,
    Forward,
    Local,
    NeighbourAt,
    OverlayConfig,
    Peer,
    RouteTo,
    Underlay,
    Wanted,
    family,
    own_address,
)

BACKENDS = (VXLAN, HOST_GW)
DEFAULT_MTU = {VXLAN: 1450, HOST_GW: 1500}
OVERHEAD = {4: 50, 6: 70}  # what VXLAN takes of an uplink's MTU, by the family of the underlay
LEAST_MTU = {4: 576, 6: 1280}
_WHOLE = {4: 32, 6: 128}
_NO_ADDRESS = "no interface of this node that is up has its address: is the cable out, or --node-ip wrong?"
NO_TUNNEL = "edgekube.io/no-vxlan"  # annotation of a Node whose kernel can not make the tunnel: others must know


@dataclass(frozen=True, slots=True)
class Overlay:
    """`refused`: peers that can not be reached, and why. `direct`: those that need no tunnel."""

    wanted: Wanted = field(default_factory=Wanted)
    refused: Mapping[str, str] = field(default_factory=dict)
    direct: frozenset[str] = frozenset()


def peer_of(node: Obj) -> Peer:
    """The facts of a Node object."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ranges = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    addresses = [entry.get("address", "") for entry in status.get("addresses") or () if entry.get("type") == "InternalIP"]
    port = (((status.get("daemonEndpoints") or {}).get("kubeletEndpoint")) or {}).get("Port") or KUBELET_PORT
    plain = (node["metadata"].get("annotations") or {}).get(NO_TUNNEL) == "true"
    return Peer(node["metadata"]["name"], tuple(ranges), tuple(filter(_is_address, addresses)), port, plain)


@lru_cache(4096)
def tunnel_mac(cidr: str) -> str:
    """MAC of the tunnel end of the node with this (first) pod range: unicast, locally administered."""
    digest = bytearray(hashlib.sha256(f"edgekube vtep {ipaddress.ip_network(cidr)}".encode()).digest()[:6])
    digest[0] = digest[0] & 0xFC | 0x02
    return digest.hex(":")


@lru_cache(4096)
def link_local(mac: str) -> str:
    """The IPv6 address by which the tunnel end with this MAC is a gateway."""
    octets = mac.replace(":", "")
    return str(ipaddress.IPv6Address(0xFE80 << 112 | int(octets, 16)))


def overlay_mtu(config: OverlayConfig, underlay: Underlay | None) -> int:
    """What a packet between pods of two nodes may measure, and so the MTU of pods' links."""
    wanted = config.mtu or DEFAULT_MTU[config.backend]
    if underlay is None or not underlay.mtu:
        return wanted
    room = underlay.mtu - (0 if config.backend == HOST_GW else OVERHEAD[family(underlay.address)])
    return max(min(wanted, room), LEAST_MTU[4])


def tunnel_mtu(config: OverlayConfig, underlay: Underlay) -> int:
    """The device's: also with host-gw a tunnelled packet must fit the uplink."""
    wanted = overlay_mtu(config, underlay)
    return max(min(wanted, underlay.mtu - OVERHEAD[family(underlay.address)]), LEAST_MTU[4]) if underlay.mtu else min(wanted, 1450)


def plan_overlay(
    own: Peer, peers: Iterable[Peer], *, underlay: Underlay | None, config: OverlayConfig, path_mtu: Mapping[str, int] | None = None
) -> Overlay:
    """How this node reaches the others. `path_mtu`: smaller than the link's towards these peers."""
    others = sorted((peer for peer in peers if peer.name != own.name and peer.ranges), key=lambda peer: peer.name)
    if not own.ranges or not others:
        return Overlay()
    if underlay is None:
        return Overlay(refused={peer.name: _NO_ADDRESS for peer in others})
    routes: set[RouteTo] = set()
    neighbours: set[NeighbourAt] = set()
    forwards: set[Forward] = set()
    refused: dict[str, str] = {}
    direct: set[str] = set()
    claims = _Claims(own)
    for peer in others:
        limit = (path_mtu or {}).get(peer.name, 0)
        why = claims.collision(peer)
        remote = next((address for address in peer.addresses if family(address) == family(underlay.address)), "")
        if not why and not remote:
            why = f"it has no IPv{family(underlay.address)} address"
        elif not why and remote == underlay.address:
            why = f"it says its address is {remote}, which is ours"
        if why:
            refused[peer.name] = why
            continue
        tunnelless = own.plain or peer.plain
        plain = _direct_routes(own, peer, underlay, limit) if config.backend == HOST_GW or tunnelless else {}
        if tunnelless and len(plain) < len(peer.ranges):
            refused[peer.name] = _without_tunnel(own, peer)
            continue
        claims.add(peer)
        routes |= set(plain.values())
        tunnelled = [cidr for cidr in peer.ranges if cidr not in plain]
        if not tunnelled:
            direct.add(peer.name)
            continue
        mac = tunnel_mac(peer.ranges[0])
        forwards.add(Forward(config.device, mac, remote))
        for cidr in tunnelled:
            gateway = _network(cidr).partition("/")[0] if family(cidr) == 4 else link_local(mac)
            source = _source(own, cidr)
            if source:
                neighbours.add(NeighbourAt(config.device, gateway, mac))
                routes.add(RouteTo(_network(cidr), config.device, gateway, source, _limit(limit, cidr), METRIC[family(cidr)]))
    device = _device(own, underlay, config) if forwards else None
    links = frozenset((config.device,)) if device else frozenset[str]()
    wanted = Wanted(device, links, frozenset(), frozenset(routes), frozenset(neighbours), frozenset(forwards))
    return Overlay(wanted, refused, frozenset(direct))


def plan_node(own: Peer, *, services: Sequence[str], dns: Sequence[str]) -> Wanted:
    """The node's own addresses and the way to Services, on `lo`: they need no device that a kernel may lack."""
    addresses = {Local("lo", f"{address}/{_WHOLE[family(address)]}") for address in own.own}
    addresses |= {Local("lo", f"{address}/{_WHOLE[family(address)]}", passive=True) for address in dns}
    routes = {RouteTo(_network(cidr), "lo", "", source, 0, METRIC[family(cidr)]) for cidr in services if (source := _source(own, cidr))}
    return Wanted(None, frozenset(("lo",)), frozenset(addresses), frozenset(routes))


def plan_pod(sources: Mapping[int, str], link: str, addresses: Sequence[str], mac: str) -> Wanted:
    """The host's side of one attached pod. `sources`: the node's own addresses by family. `mac` "": not known, neighbours stay."""
    routes = {
        RouteTo(f"{address}/{_WHOLE[family(address)]}", link, "", sources.get(family(address), ""), 0, METRIC[family(address)])
        for address in addresses
    }
    neighbours = {NeighbourAt(link, address, mac) for address in addresses if mac}
    return Wanted(None, frozenset((link,)), frozenset(), frozenset(routes), frozenset(neighbours))


def _device(own: Peer, underlay: Underlay, config: OverlayConfig) -> Device:
    mac, mtu = tunnel_mac(own.ranges[0]), tunnel_mtu(config, underlay)
    return Device(config.device, config.alias, mac, underlay.address, underlay.index, config.port, mtu)


class _Claims:
    """Which pod ranges belong to whom: found by order, since there are as many as nodes."""

    def __init__(self, own: Peer) -> None:
        self._spans: list[tuple[int, int, int, str]] = []  # family, first, last, node
        self.add(own)

    def add(self, peer: Peer) -> None:
        for cidr in peer.ranges:
            bisect.insort(self._spans, (*_span(cidr), peer.name))

    def collision(self, peer: Peer) -> str:
        """Why the peer's ranges can not be its own, or nothing."""
        for cidr in peer.ranges:
            kind, first, last = _span(cidr)
            at = bisect.bisect_right(self._spans, (kind, last, 1 << 129, ""))
            for other_kind, _, other_last, name in self._spans[max(0, at - 1) : at]:
                if other_kind == kind and other_last >= first:
                    return f"its pod range {cidr} overlaps that of node {name}"
        return ""


@lru_cache(4096)
def _span(cidr: str) -> tuple[int, int, int]:
    network = ipaddress.ip_network(cidr)
    return network.version, int(network.network_address), int(network.broadcast_address)


def _direct_routes(own: Peer, peer: Peer, underlay: Underlay, limit: int) -> dict[str, RouteTo]:
    """By range of the peer: where one of its addresses of the same family is in a subnet of this host."""
    found: dict[str, RouteTo] = {}
    for cidr in peer.ranges:
        for address in peer.addresses:
            link = next((subnet.link for subnet in underlay.subnets if _inside(address, subnet.cidr)), "")
            if link and family(address) == family(cidr) and (source := _source(own, cidr)):
                found[cidr] = RouteTo(_network(cidr), link, address, source, _limit(limit, cidr), METRIC[family(cidr)])
                break
    return found


def _without_tunnel(own: Peer, peer: Peer) -> str:
    whose = "this node" if own.plain else f"node {peer.name}"
    return f"the kernel of {whose} has no VXLAN (modprobe vxlan), and the two nodes are not in the same subnet, which would do without"


def _limit(mtu: int, cidr: str) -> int:
    return max(mtu, LEAST_MTU[family(cidr)]) if mtu else 0


def _source(own: Peer, cidr: str) -> str:
    """Our own address in the family of `cidr`."""
    return next((own_address(mine) for mine in own.ranges if family(mine) == family(cidr)), "")


def _inside(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr)


@lru_cache(4096)
def _network(cidr: str) -> str:
    return str(ipaddress.ip_network(cidr))


def _is_address(text: str) -> bool:
    try:
        return not ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False
