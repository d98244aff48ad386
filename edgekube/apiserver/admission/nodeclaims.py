"""What Nodes and pods say of themselves that others go by: addresses, ranges, audiences of tokens. Pure."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def audiences(pod: Mapping[str, Any]) -> set[str]:
    """Of the tokens that its volumes hold; "" stands for the API server."""
    projected = [volume.get("projected") or {} for volume in (pod.get("spec") or {}).get("volumes") or ()]
    tokens = [source.get("serviceAccountToken") for one in projected for source in one.get("sources") or ()]
    return {str(token.get("audience") or "") for token in tokens if token}


def pod_addresses(pod: Mapping[str, Any]) -> Iterator[str]:
    status = pod.get("status") or {}
    yield from filter(None, (status.get("podIP"), *(entry.get("ip") for entry in status.get("podIPs") or ())))


def node_addresses(node: Mapping[str, Any]) -> set[str]:
    return {str(entry.get("address")) for entry in (node.get("status") or {}).get("addresses") or ()}


def networks(node: Mapping[str, Any]) -> list[Network]:
    """Its pod ranges."""
    return [ipaddress.ip_network(cidr) for cidr in (node.get("spec") or {}).get("podCIDRs") or ()]


def inside(text: str, ranges: Iterable[Network]) -> bool:
    """Names are in no range."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in ranges)
