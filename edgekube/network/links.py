"""The kernel side: make, find and remove the links, addresses and routes of this node. Every `ensure_*` may run twice.

All functions run in the network thread and take its IPRoute first.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekube.network.thread import inside

GATEWAY = "169.254.1.1"
HOST_MAC = "ee:ee:ee:ee:ee:ee"
MTU = 1450  # what VXLAN leaves of an Ethernet frame: pods keep it whether or not a second node exists
_LABEL = "lo:edgekube"  # how our addresses on `lo` are told from others
_PERMANENT = 0x80
_SCOPE_LINK = 253


@dataclass(frozen=True, slots=True)
class Attachment:
    """One pod's end in the host: found in, or to be made in, the kernel."""

    uid: str
    link: str
    address: str


def link_name(instance: str, uid: str) -> str:
    """Name of the host end: 15 characters at most."""
    return "ek" + hashlib.sha256(f"{instance}/{uid}".encode()).hexdigest()[:12]


def _alias(instance: str, uid: str) -> str:
    return f"edgekube:{instance}:{uid}"


def set_sysctl(name: str, value: str) -> None:
    """Write a kernel setting unless it has the value. `name` with slashes, as below /proc/sys."""
    path = Path("/proc/sys") / name
    if path.read_text().strip() != value:
        path.write_text(value)


def _index(route: Any, name: str) -> int | None:
    found: Sequence[int] = route.link_lookup(ifname=name)
    return found[0] if found else None


def ensure_node(route: Any, *, own: str, service_cidr: str, dns: str) -> None:
    """The node's own addresses and the way to Services. Addresses on `lo` need no device that a kernel may lack."""
    set_sysctl("net/ipv4/ip_forward", "1")
    (lo,) = route.link_lookup(ifname="lo")
    route.link("set", index=lo, state="up")
    for address in (own, dns):
        route.addr("replace", index=lo, address=address, prefixlen=32, label=_LABEL)
    route.route("replace", dst=service_cidr, oif=lo, prefsrc=own, scope=_SCOPE_LINK)


def remove_node(route: Any) -> None:
    """Undo `ensure_node`, found by the label of its addresses (ip_forward stays: others may rely on it)."""
    (lo,) = route.link_lookup(ifname="lo")
    ours = [entry.get_attr("IFA_ADDRESS") for entry in route.get_addr(index=lo) if entry.get_attr("IFA_LABEL") == _LABEL]
    for entry in list(route.get_routes(family=2, oif=lo)):
        if entry.get_attr("RTA_PREFSRC") in ours and entry.get_attr("RTA_DST") not in ours:
            with _missing_is_fine():
                route.route("del", dst=f"{entry.get_attr('RTA_DST')}/{entry['dst_len']}", oif=lo, scope=_SCOPE_LINK)
    for address in ours:
        with _missing_is_fine():
            route.addr("del", index=lo, address=address, prefixlen=32)


def ensure_pod(route: Any, wanted: Attachment, *, instance: str, netns: str, source: str) -> None:
    """Connect a pinned namespace. A link left half-made, or of an earlier namespace, is replaced."""
    if _index(route, wanted.link) is not None and not _pod_whole(netns, wanted.address):
        remove_link(route, wanted.link)
    index = _index(route, wanted.link)
    if index is None:
        _make_veth(route, wanted.link, netns)
        _configure_pod(netns, wanted.address)
        index = _index(route, wanted.link)
    _configure_host(route, index, wanted, instance=instance, netns=netns, source=source)


def _make_veth(route: Any, link: str, netns: str) -> None:
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        peer = {"ifname": "eth0", "net_ns_fd": descriptor, "mtu": MTU}
        route.link("add", ifname=link, kind="veth", address=HOST_MAC, mtu=MTU, peer=peer)
    finally:
        os.close(descriptor)


def _pod_whole(netns: str, address: str) -> bool:
    with inside(netns) as pod:
        return any(entry.get_attr("IFA_ADDRESS") == address for entry in pod.get_addr(label="eth0"))


def _configure_pod(netns: str, address: str) -> None:
    with inside(netns) as pod:
        (lo,) = pod.link_lookup(ifname="lo")
        pod.link("set", index=lo, state="up")
        (eth0,) = pod.link_lookup(ifname="eth0")
        pod.link("set", index=eth0, state="up")
        pod.addr("replace", index=eth0, address=address, prefixlen=32)
        pod.neigh("replace", dst=GATEWAY, lladdr=HOST_MAC, ifindex=eth0, state=_PERMANENT)
        pod.route("replace", dst=f"{GATEWAY}/32", oif=eth0, scope=_SCOPE_LINK)
        pod.route("replace", dst="default", gateway=GATEWAY, oif=eth0)


def _configure_host(route: Any, index: int | None, wanted: Attachment, *, instance: str, netns: str, source: str) -> None:
    with inside(netns) as pod:
        (eth0,) = pod.link_lookup(ifname="eth0")
        (entry,) = pod.get_links(eth0)
        mac = entry.get_attr("IFLA_ADDRESS")
    set_sysctl(f"net/ipv4/conf/{wanted.link}/rp_filter", "1")
    set_sysctl(f"net/ipv4/conf/{wanted.link}/route_localnet", "1")  # NodePorts on 127.0.0.1; the proxy drops such packets from pods
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        set_sysctl(f"net/ipv6/conf/{wanted.link}/disable_ipv6", "1")
    route.link("set", index=index, state="up")
    route.neigh("replace", dst=wanted.address, lladdr=mac, ifindex=index, state=_PERMANENT)
    route.route("replace", dst=f"{wanted.address}/32", oif=index, scope=_SCOPE_LINK, prefsrc=source)
    route.link("set", index=index, ifalias=_alias(instance, wanted.uid))  # last: the alias marks a finished attachment


def remove_link(route: Any, link: str) -> None:
    """Delete the host end (the pod's end and the routes go with it)."""
    index = _index(route, link)
    if index is not None:
        with _missing_is_fine():
            route.link("del", index=index)


def attachments(route: Any, instance: str) -> Sequence[Attachment]:
    """What the kernel has of ours; an unfinished link has no address and its name as uid."""
    prefix = _alias(instance, "")
    addresses: dict[int, str] = {}
    for entry in route.get_routes(family=2):
        if entry["dst_len"] == 32 and (oif := entry.get_attr("RTA_OIF")) is not None:
            addresses[oif] = entry.get_attr("RTA_DST")
    found = []
    for entry in route.get_links():
        alias = entry.get_attr("IFLA_IFALIAS") or ""
        name = entry.get_attr("IFLA_IFNAME") or ""
        if alias.startswith(prefix) and entry["index"] in addresses:
            found.append(Attachment(alias.removeprefix(prefix), name, addresses[entry["index"]]))
        elif _unfinished(name, entry.get_attr("IFLA_ADDRESS") or "", alias):
            found.append(Attachment(name, name, ""))
    return found


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
