"""Make the kernel have what is wanted: read (rtnl), compare (changes), change (pyroute2). In the network thread; may run twice.

A refusal of one entry does not stop the others: it is returned, and the caller tries again.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekube.lib.receipt import NoNotes, Notes
from edgekube.network.changes import LABEL, PROTOCOL, Changes, DeviceChanges, Picture, changes, device_changes
from edgekube.network.model import Device, Forward, Local, NeighbourAt, OverlayConfig, RouteTo, Thing, Wanted, family
from edgekube.network.rtnl import Link, Reader

_VNI = 1
_PERMANENT, _STATIC_FORWARD, _SELF = 0x80, 0xC0, 2
_SCOPE_LINK, _SCOPE_HOST = 253, 254
_UNKNOWN_KIND = os.strerror(errno.EOPNOTSUPP)
_NO_NOTES = NoNotes()
_GONE = (2, 3, 6, 19, 99)  # ENOENT, ESRCH, ENXIO, ENODEV, EADDRNOTAVAIL


@dataclass(frozen=True, slots=True)
class Outcome:
    """`repairs`: how many things were not as wanted. `refusals`: what the kernel did not do, and why. `links`: names by number.

    `anew`: the tunnel was made just now; `no_tunnel`: this kernel can not make one.
    """

    repairs: int
    refusals: Sequence[str]
    links: Mapping[int, str]
    anew: bool = False
    no_tunnel: bool = False


def reconcile(
    route: Any,
    wanted: Wanted,
    config: OverlayConfig,
    *,
    pods: Collection[str],
    families: Collection[int] = (4,),
    receipt: Notes = _NO_NOTES,
) -> Outcome:
    """One pass. `pods`: names of the pods' links. The tunnel comes first: what stood on an old one went with it."""
    refusals: list[str] = []
    _try(refusals, "enable forwarding", enable_forwarding, families, receipt)
    with contextlib.closing(Reader()) as reader:
        links = reader.links()
        about = device_changes(wanted.device, links, name=config.device, alias=config.alias)
        repairs = len(about.remove) + about.create + about.adjust
        if repairs:
            _change_device(route, wanted.device, about, families, refusals)
            links = reader.links()
        found = changes(wanted, _picture(reader, links, config.device, families), ours={config.device, *pods})
        _apply(route, found, {link.name: link.ifindex for link in links}, refusals)
        repairs += len(found.up) + len(found.ensure) + len(found.remove)
        names = {link.ifindex: link.name for link in links}
        no_tunnel = about.create and config.device not in names.values() and any(_UNKNOWN_KIND in text for text in refusals)
        return Outcome(repairs, refusals, names, about.create and config.device in names.values(), no_tunnel)


def smaller_routes(_route: Any) -> Mapping[str, int]:
    """MTU by destination, of our routes that have one."""
    with contextlib.closing(Reader()) as reader:
        found = [*reader.routes(socket.AF_INET), *reader.routes(socket.AF_INET6)]
    return {route.dst: route.mtu for route in found if route.protocol == PROTOCOL and route.mtu}


def enable_forwarding(families: Collection[int], receipt: Notes = _NO_NOTES) -> None:
    """This host passes packets on. An interface that learns its IPv6 routes from advertisements must be told to go on doing so."""
    if 4 in families:
        _forward("net/ipv4/ip_forward", "net/ipv4/conf", receipt, {"all/accept_redirects": "1"})
    if 6 in families:
        for setting in Path("/proc/sys/net/ipv6/conf").glob("*/accept_ra"):
            if setting.read_text().strip() == "1":
                receipt.note("sysctl", str(setting.relative_to("/proc/sys")), before="1", after="2")
                setting.write_text("2")
        _forward("net/ipv6/conf/all/forwarding", "net/ipv6/conf", receipt, {})


def _forward(name: str, folder: str, receipt: Notes, resets: Mapping[str, str]) -> None:
    """Turning it on or off sets others along: what they will be once it is off again is noted where they were something else."""
    if (found := _value(name)) == "1":
        return
    base = Path("/proc/sys") / folder
    off = {f"{folder}/{path.parent.name}/forwarding": "0" for path in base.glob("*/forwarding")} | {
        f"{folder}/{rest}": value for rest, value in resets.items()
    }
    others = {other: value for other in off if other != name and (value := _value(other)) != off[other]}
    for other, value in others.items():
        receipt.note("sysctl", other, before=value, after=off[other])
    receipt.note("sysctl", name, before=found, after="1")
    set_sysctl(name, "1")


def _value(name: str) -> str:
    return (Path("/proc/sys") / name).read_text().strip()


def set_sysctl(name: str, value: str) -> None:
    """Write a kernel setting unless it has the value. `name` with slashes, as below /proc/sys."""
    path = Path("/proc/sys") / name
    if path.read_text().strip() != value:
        path.write_text(value)


def remove(route: Any, config: OverlayConfig) -> None:
    """For uninstall: the tunnel and every route and address of ours, found by their marks."""
    reconcile(route, Wanted(), config, pods=(), families=())


def _picture(reader: Reader, links: Collection[Link], device: str, families: Collection[int]) -> Picture:
    numbers = [socket.AF_INET6 if kind == 6 else socket.AF_INET for kind in families or (4, 6)]
    tunnel = next((link.ifindex for link in links if link.name == device), 0)
    return Picture(
        tuple(links),
        reader.addresses(),
        [route for number in numbers for route in reader.routes(number)],
        [entry for number in numbers for entry in reader.neighbours(number)],
        reader.forwards(tunnel) if tunnel else (),
    )


def _change_device(route: Any, device: Device | None, about: DeviceChanges, families: Collection[int], refusals: list[str]) -> None:
    for index in about.remove:
        _try(refusals, f"remove interface {index}", route.link, "del", index=index)
    if device is not None and about.create:
        _try(refusals, f"make the tunnel {device.name}", _create, route, device, families)
    elif device is not None and about.adjust:
        index = route.link_lookup(ifname=device.name)[0]
        _try(refusals, f"set up {device.name}", route.link, "set", index=index, mtu=device.mtu, ifalias=device.alias)


def _create(route: Any, device: Device, families: Collection[int]) -> None:
    local: dict[str, Any] = {"vxlan_local6": device.local} if family(device.local) == 6 else {"vxlan_local": device.local}
    if family(device.local) == 4:
        local["vxlan_udp_csum"] = 0  # what is inside has its own: one thing less that devices and NAT get wrong
    bound = {"vxlan_link": device.uplink} if device.uplink else {}
    route.link(
        "add", ifname=device.name, kind="vxlan", vxlan_id=_VNI, vxlan_port=device.port, vxlan_learning=False,
        address=device.mac, mtu=device.mtu, ifalias=device.alias, **local, **bound,
    )  # fmt: skip
    (index,) = route.link_lookup(ifname=device.name)
    set_sysctl(f"net/ipv4/conf/{device.name}/route_localnet", "1")  # NodePorts on 127.0.0.1; the proxy drops what comes in so
    with contextlib.suppress(OSError):  # a kernel without IPv6
        setting = Path(f"/proc/sys/net/ipv6/conf/{device.name}")
        (setting / "disable_ipv6").write_text("0" if 6 in families else "1")
        (setting / "addr_gen_mode").write_text("1")  # no address of its own: it is not needed, and would be announced
    route.link("set", index=index, ifalias=device.alias, state="up")


def _apply(route: Any, found: Changes, numbers: dict[str, int], refusals: list[str]) -> None:
    for name in found.up:
        _try(refusals, f"set {name} up", route.link, "set", index=numbers[name], state="up")
    for thing in found.ensure:
        _try(refusals, f"add {thing}", _ensure, route, thing, numbers[thing.link])
    for thing in found.remove:
        _try(refusals, f"remove {thing}", _remove, route, thing, numbers[thing.link])


def _ensure(route: Any, thing: Thing, index: int) -> None:
    if isinstance(thing, Local):
        address, _, prefix = thing.address.partition("/")
        more: dict[str, Any] = {} if family(address) == 6 else {"label": LABEL}
        if thing.passive:
            more["scope"] = _SCOPE_HOST
        route.addr("replace", index=index, address=address, prefixlen=int(prefix), **more)
    elif isinstance(thing, NeighbourAt):
        route.neigh("replace", dst=thing.address, lladdr=thing.mac, ifindex=index, state=_PERMANENT)
    elif isinstance(thing, Forward):
        route.fdb("replace", ifindex=index, lladdr=thing.mac, dst=thing.address, state=_STATIC_FORWARD, flags=_SELF)
    else:
        route.route("replace", **_route(thing, index))


def _route(thing: RouteTo, index: int) -> dict[str, Any]:
    wanted: dict[str, Any] = {"dst": thing.dst, "oif": index, "proto": PROTOCOL, "family": _number(thing.dst)}
    if thing.gateway:
        wanted["gateway"] = thing.gateway
        if family(thing.gateway) == 4:
            wanted["flags"] = ["onlink"]
    elif family(thing.dst) == 4:
        wanted["scope"] = _SCOPE_LINK
    if thing.source:
        wanted["prefsrc"] = thing.source
    if thing.metric:
        wanted["priority"] = thing.metric
    if thing.mtu:
        wanted["metrics"] = {"mtu": thing.mtu, "advmss": thing.mtu - (40 if family(thing.dst) == 4 else 60)}
    return wanted


def _remove(route: Any, thing: Thing, index: int) -> None:
    if isinstance(thing, Local):
        address, _, prefix = thing.address.partition("/")
        route.addr("del", index=index, address=address, prefixlen=int(prefix))
    elif isinstance(thing, NeighbourAt):
        route.neigh("del", dst=thing.address, ifindex=index)
    elif isinstance(thing, Forward):
        route.fdb("del", ifindex=index, lladdr=thing.mac, dst=thing.address, flags=_SELF)
    else:
        wanted = {"dst": thing.dst, "oif": index, "family": _number(thing.dst)}
        optional = {"gateway": thing.gateway, "priority": thing.metric, "scope": None}
        route.route("del", **wanted, **{name: value for name, value in optional.items() if value})


def _number(text: str) -> int:
    return socket.AF_INET6 if family(text) == 6 else socket.AF_INET


def _try(refusals: list[str], what: str, work: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    """That something is not there is no refusal: it went meanwhile, which wakes us again."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        work(*args, **kwargs)
    except NetlinkError as error:
        if error.code not in _GONE:
            refusals.append(f"{what}: {os.strerror(error.code)}")
    except (OSError, IndexError) as error:
        refusals.append(f"{what}: {error}")
