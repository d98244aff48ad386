"""The rules for addresses and ranges of them, strict as since v1.36. Pure; each returns upstream's messages, empty if all is well.

Source of the rules: k8s.io/apimachinery/pkg/util/validation/ip.go. Answers are remembered.
"""

import functools
import ipaddress
import re
from collections.abc import Iterator, Sequence

from edgekube.api import problems
from edgekube.errors import Problem

_IP_TEXT = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_CIDR_TEXT = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


_LEADING_ZERO = re.compile(r"(?<![0-9])0+(?=[0-9])")


def _address(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address | None, bool]:
    """ParseIPSloppy: the address, and whether zeros in front of its IPv4 parts had to be left out to read it."""
    head = text if ":" not in text else ""
    for attempt, sloppy in ((text, False), (_LEADING_ZERO.sub("", head), True)):
        try:
            found = ipaddress.ip_address(attempt)
        except ValueError:
            continue
        if "%" not in attempt:
            return found, sloppy
    return None, False


@functools.lru_cache(maxsize=1024)
def ip(text: str) -> Sequence[str]:
    """IsValidIPForLegacyField, strictly: no leading zeros, no IPv4-mapped IPv6."""
    address, sloppy = _address(text)
    if address is None:
        return (_IP_TEXT,)
    if sloppy:
        return ("must not have leading 0s",)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return ("must not be an IPv4-mapped IPv6 address",)
    return ()


@functools.lru_cache(maxsize=1024)
def cidr(text: str) -> Sequence[str]:
    """IsValidCIDRForLegacyField, strictly: no leading zeros, no host bits."""
    head, slash, size = text.partition("/")
    address, sloppy = _address(head)
    if not slash or address is None or not (size.isascii() and size.isdigit()) or int(size) > address.max_prefixlen:
        return (_CIDR_TEXT,)
    if sloppy or (len(size) > 1 and size[0] == "0"):
        return ("must not have leading 0s in IP or prefix length",)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return ("must not have an IPv4-mapped IPv6 address",)
    if ipaddress.ip_network(text, strict=False).network_address != address:
        return ("must not have bits set beyond the prefix length",)
    return ()


def is_ipv6(text: str) -> bool:
    return ":" in text


_LOCAL_MULTICAST = (ipaddress.ip_network("224.0.0.0/24"), ipaddress.ip_network("ff02::/16"))


def non_special_ip(field: str, text: str) -> Iterator[Problem]:
    """ValidateNonSpecialIP: an address that traffic may go to."""
    address, _ = _address(text)
    if address is None:
        yield problems.invalid(field, text, "must be a valid IP address")
        return
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified:
        yield problems.invalid(field, text, f"may not be unspecified ({text})")
    if address.is_loopback:
        yield problems.invalid(field, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if address.is_link_local:
        yield problems.invalid(field, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if any(address in network for network in _LOCAL_MULTICAST):
        yield problems.invalid(field, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
