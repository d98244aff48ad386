"""Deletes UDP flows that the kernel would keep sending to endpoints that are gone (or past a Service that had none).

A NAT decision is made once per flow; TCP clients reconnect, UDP clients with a fixed port would talk to the void for as long as they talk.
What is deleted is judged by what should be, not by what was: flows that went stale while edgekube was away are found too.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

from edgekube.proxy.model import ANY4, ANY6, Endpoint, Front

log = logging.getLogger(__name__)

Right = Mapping[Front, frozenset[Endpoint]]  # UDP fronts and the endpoints that their flows may go to
_UDP = 17


class Flow(NamedTuple):
    """One UDP entry: what the client asked for and who answers (the same when nothing was translated)."""

    destination: tuple[str, int]
    answers: tuple[str, int]


async def forget(right: Right) -> None:
    """Delete the entries of these fronts that go elsewhere. Failing is not fatal: they time out after two minutes of silence."""
    if right:
        try:
            deleted = await asyncio.to_thread(_forget, right)
            log.debug("stale udp flows deleted", extra={"flows": deleted})
        except OSError as error:
            log.warning("stale udp flows not deleted", extra={"error": str(error)})


def is_stale(flow: Flow, right: Mapping[tuple[str, int], frozenset[tuple[str, int]]]) -> bool:
    """`right` by address and port; a wildcard address is a port of every address."""
    address, port = flow.destination
    for where in (address, ANY6 if ":" in address else ANY4):
        allowed = right.get((where, port))
        if allowed is not None:
            return flow.answers not in allowed
    return False


def _forget(right: Right) -> int:
    from pyroute2 import NFCTSocket
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

    plain = {(front.address, front.port): frozenset(e[:2] for e in endpoints) for front, endpoints in right.items()}
    deleted = 0
    for family in {socket.AF_INET6 if front.ipv6 else socket.AF_INET for front in right}:
        with NFCTSocket(nfgen_family=family) as table:
            doomed = []
            for entry in list(table.dump()):
                original = entry.get_attr("CTA_TUPLE_ORIG")
                flow = _flow(original, entry.get_attr("CTA_TUPLE_REPLY"))
                if flow is not None and is_stale(flow, plain):
                    doomed.append(original)
            for original in doomed:
                with contextlib.suppress(NetlinkError):  # it ended by itself meanwhile
                    table.entry("del", tuple_orig=NFCTAttrTuple.from_netlink(family, original))
                    deleted += 1
    return deleted


def _flow(original: Any, reply: Any) -> Flow | None:
    if original is None or reply is None:
        return None
    ports, reply_ports = original.get_attr("CTA_TUPLE_PROTO"), reply.get_attr("CTA_TUPLE_PROTO")
    if ports.get_attr("CTA_PROTO_NUM") != _UDP:
        return None
    asked, answering = original.get_attr("CTA_TUPLE_IP"), reply.get_attr("CTA_TUPLE_IP")
    return Flow(
        (_address(asked, "DST"), ports.get_attr("CTA_PROTO_DST_PORT")),
        (_address(answering, "SRC"), reply_ports.get_attr("CTA_PROTO_SRC_PORT")),
    )


def _address(part: Any, which: str) -> str:
    return str(part.get_attr(f"CTA_IP_V4_{which}") or part.get_attr(f"CTA_IP_V6_{which}"))
