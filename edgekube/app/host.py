"""Addresses of this machine, found without sending a packet and without needing a default route or any uplink."""

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Sequence

from edgekube.config import Settings

_SIOCGIFADDR = 0x8915
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 1


def node_address(settings: Settings) -> str:
    """`--node-ip`, else the address the default route would use, else any address of the host, else the node's own in the pod range
    (which needs nothing but `lo`)."""
    if settings.node_ip:
        return settings.node_ip
    found = _default_route_address() or next(iter(host_addresses(settings)), "")
    return found or str(ipaddress.ip_network(settings.cluster_cidr)[1])


def server_addresses(settings: Settings, address: str) -> Sequence[str]:
    """Where agents can reach the API of this machine now, HOST:PORT, the best first."""
    found = dict.fromkeys(filter(None, (settings.advertise_address, address, *host_addresses(settings))))
    return [f"[{each}]:{settings.https_port}" if ":" in each else f"{each}:{settings.https_port}" for each in found]


def _default_route_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: UDP connect only looks at the routes
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
    return "" if address.startswith("127.") else address


def host_addresses(settings: Settings) -> Sequence[str]:
    """The first IPv4 address of every interface that is up, without loopback, link-local and the cluster's own."""
    own = [ipaddress.ip_network(cidr) for cidr in (settings.cluster_cidr, settings.service_cidr)]
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                (flags,) = struct.unpack_from("H", fcntl.ioctl(probe, _SIOCGIFFLAGS, request), 16)
                address = ipaddress.ip_address(fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24])
            except OSError:
                continue  # an interface without an IPv4 address
            usable = not (address.is_loopback or address.is_link_local or any(address in network for network in own))
            if flags & _IFF_UP and usable:
                found.append(str(address))
    return found
