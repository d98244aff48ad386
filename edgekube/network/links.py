"""The kernel side of pods: make, find and remove their links. Every `ensure_*` may run twice.

All functions run in the network thread and take its IPRoute first. What a link needs besides itself in the host (routes, neighbours) is
made here, at once, and kept by kernel.py.
"""

import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekube.network.changes import PROTOCOL
from edgekube.network.kernel import set_sysctl
from edgekube.network.model import HOST_MAC, METRIC, family
from edgekube.network.rtnl import NUD_PERMANENT, Reader
from edgekube.network.thread import inside, inside_of

GATEWAY = "169.254.1.1"
GATEWAY6 = "fe80::ecee:eeff:feee:eeee"  # what HOST_MAC makes
MTU = 1450  # what VXLAN leaves of an Ethernet frame: pods keep it whether or not a second node exists
_PERMANENT = 0x80
_SCOPE_LINK = 253
_NODAD = 0x02


class LinkRefused(Exception):
    """The kernel did not connect a pod; the message says what it refused."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One pod's end in the host: found in, or to be made in, the kernel. `mac`: of the pod's end, once known."""

    uid: str
    link: str
    addresses: tuple[str, ...]
    mac: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLink:
    """What is the same for all pods of this node. `sources`: the node's own addresses by family."""

    instance: str
    sources: Mapping[int, str]
    mtu: int = MTU


def link_name(instance: str, uid: str) -> str:
    """Name of the host end: 15 characters at most."""
    return "ek" + hashlib.sha256(f"{instance}/{uid}".encode()).hexdigest()[:12]


def _alias(instance: str, uid: str) -> str:
    return f"edgekube:{instance}:{uid}"


def _index(route: Any, name: str) -> int | None:
    found: Sequence[int] = route.link_lookup(ifname=name)
    return found[0] if found else None


def ensure_pod(route: Any, wanted: Attachment, common: PodLink, *, netns: str) -> Attachment:
    """Connect a pinned namespace; the attachment as it is then. A link left half-made, or of an earlier namespace, is replaced.

    Raises LinkRefused.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        return _ensure_pod(route, wanted, common, netns)
    except (NetlinkError, OSError, ValueError) as error:
        raise LinkRefused(f"link {wanted.link}: {error}") from error


def _ensure_pod(route: Any, wanted: Attachment, common: PodLink, netns: str) -> Attachment:
    if _index(route, wanted.link) is None:
        _remove_renamed(route, _alias(common.instance, wanted.uid))
    elif not _pod_whole(netns, wanted.addresses):
        remove_link(route, wanted.link)
    index = _index(route, wanted.link)
    if index is None:
        _make_veth(route, wanted.link, netns, common.mtu)
        _configure_pod(netns, wanted.addresses)
        index = _index(route, wanted.link)
    return _configure_host(route, index, wanted, common, netns=netns)


def _remove_renamed(route: Any, alias: str) -> None:
    """A link of this pod that somebody gave another name."""
    for entry in route.get_links():
        if entry.get_attr("IFLA_IFALIAS") == alias:
            with _missing_is_fine():
                route.link("del", index=entry["index"])


def _make_veth(route: Any, link: str, netns: str, mtu: int = MTU) -> None:
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        peer = {"ifname": "eth0", "net_ns_fd": descriptor, "mtu": mtu}
        route.link("add", ifname=link, kind="veth", address=HOST_MAC, mtu=mtu, peer=peer)
    finally:
        os.close(descriptor)


def _pod_whole(netns: str, addresses: Sequence[str]) -> bool:
    with inside(netns) as pod:
        if not (found := pod.link_lookup(ifname="eth0")):
            return False
        have = {entry.get_attr("IFA_ADDRESS") for entry in pod.get_addr(index=found[0])}
    return have.issuperset(addresses)


def _configure_pod(netns: str, addresses: Sequence[str]) -> None:
    dual = any(family(address) == 6 for address in addresses)
    with inside_of(netns), contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        set_sysctl("net/ipv6/conf/eth0/accept_ra", "0")
        if dual:
            set_sysctl("net/ipv6/conf/eth0/disable_ipv6", "0")
    with inside(netns) as pod:
        (lo,) = pod.link_lookup(ifname="lo")
        pod.link("set", index=lo, state="up")
        (eth0,) = pod.link_lookup(ifname="eth0")
        pod.link("set", index=eth0, state="up")
        for address in addresses:
            if family(address) == 4:
                pod.addr("replace", index=eth0, address=address, prefixlen=32)
                gateway, scope, number = GATEWAY, {"scope": _SCOPE_LINK}, socket.AF_INET
                pod.neigh("replace", dst=gateway, lladdr=HOST_MAC, ifindex=eth0, state=_PERMANENT)
                pod.route("replace", dst=f"{gateway}/32", oif=eth0, **scope)
            else:
                pod.addr("replace", index=eth0, address=address, prefixlen=128, flags=_NODAD)
                gateway, number = GATEWAY6, socket.AF_INET6
                pod.neigh("replace", dst=gateway, lladdr=HOST_MAC, ifindex=eth0, state=_PERMANENT)
            pod.route("replace", dst="default", gateway=gateway, oif=eth0, family=number)


def _configure_host(route: Any, index: int | None, wanted: Attachment, common: PodLink, *, netns: str) -> Attachment:
    dual = any(family(address) == 6 for address in wanted.addresses)
    with inside(netns) as pod:
        (eth0,) = pod.link_lookup(ifname="eth0")
        (entry,) = pod.get_links(eth0)
        mac = entry.get_attr("IFLA_ADDRESS")
    set_sysctl(f"net/ipv4/conf/{wanted.link}/rp_filter", "1")
    set_sysctl(f"net/ipv4/conf/{wanted.link}/route_localnet", "1")  # NodePorts on 127.0.0.1; the proxy drops such packets from pods
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        set_sysctl(f"net/ipv6/conf/{wanted.link}/disable_ipv6", "0" if dual else "1")
        if dual:
            set_sysctl(f"net/ipv6/conf/{wanted.link}/accept_ra", "0")
    route.link("set", index=index, state="up")
    for address in wanted.addresses:
        kind = family(address)
        route.neigh("replace", dst=address, lladdr=mac, ifindex=index, state=_PERMANENT)
        more: dict[str, Any] = {"scope": _SCOPE_LINK} if kind == 4 else {"priority": METRIC[6], "family": socket.AF_INET6}
        source = {"prefsrc": common.sources[kind]} if kind in common.sources else {}
        route.route("replace", dst=f"{address}/{32 if kind == 4 else 128}", oif=index, proto=PROTOCOL, **source, **more)
    route.link("set", index=index, ifalias=_alias(common.instance, wanted.uid))  # last: the alias marks a finished attachment
    return replace(wanted, mac=mac)


def remove_link(route: Any, link: str) -> None:
    """Delete the host end (the pod's end and the routes go with it)."""
    index = _index(route, link)
    if index is not None:
        with _missing_is_fine():
            route.link("del", index=index)


def attachments(_route: Any, instance: str) -> Sequence[Attachment]:
    """What the kernel has of ours; an unfinished link has no address and its name as uid."""
    prefix = _alias(instance, "")
    with contextlib.closing(Reader()) as reader:
        links = reader.links()
        found: dict[int, list[str]] = {}
        for number, whole in ((socket.AF_INET, "/32"), (socket.AF_INET6, "/128")):
            for entry in reader.routes(number):
                if entry.dst.endswith(whole) and not entry.gateway:
                    found.setdefault(entry.ifindex, []).append(entry.dst.removesuffix(whole))
        macs = {entry.ifindex: entry.mac for entry in reader.neighbours(0) if entry.state & NUD_PERMANENT}
    known = []
    for link in links:
        if link.alias.startswith(prefix) and link.ifindex in found:
            known.append(Attachment(link.alias.removeprefix(prefix), link.name, tuple(found[link.ifindex]), macs.get(link.ifindex, "")))
        elif _unfinished(link.name, link.mac, link.alias):
            known.append(Attachment(link.name, link.name, ()))
    return known


def _unfinished(name: str, mac: str, alias: str) -> bool:
    return name.startswith("ek") and len(name) == 14 and mac == HOST_MAC and not alias


@contextlib.contextmanager
def _missing_is_fine() -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code not in (3, 19, 99):  # ESRCH, ENODEV, EADDRNOTAVAIL
            raise
