"""Deletes UDP flows that the kernel would keep sending to endpoints that are gone (or past a Service that had none).

A NAT decision is made once per flow; TCP clients reconnect, UDP clients with a fixed port would talk to the void for as long as they talk.
"""

import asyncio
import logging
import socket
from collections.abc import Iterable
from typing import Any

from edgekube.proxy.model import Endpoint, Front

log = logging.getLogger(__name__)

Stale = frozenset[tuple[str, int, str]]  # destination the client used ("" any local), its port, address that answers ("" untranslated)


def stale_flows(stale: Iterable[tuple[Front, Endpoint]]) -> Stale:
    return frozenset((front.address, front.port, endpoint.address) for front, endpoint in stale)


async def forget(stale: Stale) -> None:
    """Delete the matching UDP entries. Failing is not fatal: they time out after two minutes of silence."""
    if stale:
        try:
            deleted = await asyncio.to_thread(_forget, stale)
            log.debug("stale udp flows deleted", extra={"flows": deleted})
        except OSError as error:
            log.warning("stale udp flows not deleted", extra={"error": str(error)})


def _forget(stale: Stale) -> int:
    from pyroute2 import NFCTSocket
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

    with NFCTSocket() as table:
        doomed = [entry.get_attr("CTA_TUPLE_ORIG") for entry in list(table.dump()) if _matches(entry, stale)]
        for original in doomed:
            table.entry("del", tuple_orig=NFCTAttrTuple.from_netlink(socket.AF_INET, original))
    return len(doomed)


def _matches(entry: Any, stale: Stale) -> bool:
    original, reply = entry.get_attr("CTA_TUPLE_ORIG"), entry.get_attr("CTA_TUPLE_REPLY")
    if original is None or reply is None:
        return False
    protocol = original.get_attr("CTA_TUPLE_PROTO")
    if protocol.get_attr("CTA_PROTO_NUM") != 17:
        return False
    destination = original.get_attr("CTA_TUPLE_IP").get_attr("CTA_IP_V4_DST")
    port = protocol.get_attr("CTA_PROTO_DST_PORT")
    answers = reply.get_attr("CTA_TUPLE_IP").get_attr("CTA_IP_V4_SRC")
    translated = "" if answers == destination else answers
    return (destination, port, translated) in stale or ("", port, translated) in stale
