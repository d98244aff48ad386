"""Addresses of this machine, as the settings have them followed."""

from collections.abc import Sequence

from edgekube.config import Settings
from edgekube.network.addresses import HostAddresses


def follow_addresses(settings: Settings) -> HostAddresses:
    """Those of the host and the node's among them: a look now; `start` follows them."""
    return HostAddresses(
        node_ips=settings.node_ips, cluster=settings.cluster_cidrs, excluded=(*settings.service_cidrs, *settings.dns_addresses)
    )


def server_addresses(settings: Settings, addresses: HostAddresses) -> Sequence[str]:
    """Where agents can reach the API of this machine now, HOST:PORT, the best first."""
    hosts = server_hosts(settings, addresses)
    return [f"[{each}]:{settings.https_port}" if ":" in each else f"{each}:{settings.https_port}" for each in hosts]


def server_hosts(settings: Settings, addresses: HostAddresses) -> Sequence[str]:
    """The same without the port."""
    return list(dict.fromkeys(filter(None, (settings.advertise_address, *addresses.view.addresses))))
