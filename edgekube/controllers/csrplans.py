"""What to do about one signing request: read it, judge a serving certificate's names, say when it is old, make its certificate. No API."""

import asyncio
import base64
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from edgekube.api import signers
from edgekube.api.kinds.certificatesigningrequest import conditions
from edgekube.api.nodeidentity import MACHINE_ANNOTATION
from edgekube.api.types import Obj
from edgekube.lib import csr
from edgekube.lib.clock import Clock, parse_rfc3339
from edgekube.lib.csr import SigningRequest

PENDING_SECONDS = 24 * 3600.0  # upstream's csrcleaner: what nobody decided on
DONE_SECONDS = 3600.0  # what was granted, denied or failed
_SHORTEST = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, read."""

    name: str
    user: str
    signer: str
    usages: Sequence[str]
    request: SigningRequest
    seconds: int | None
    machine: str


def read_request(found: Obj) -> Asked | None:
    """None for one that cannot be read: validation lets none in, but what is stored may be older than validation."""
    spec, about = found["spec"], found["metadata"]
    try:
        request = csr.parse(base64.b64decode(spec.get("request") or ""))
    except ValueError:
        return None
    machine = (about.get("annotations") or {}).get(MACHINE_ANNOTATION, "")
    user, signer = spec.get("username", ""), spec.get("signerName", "")
    return Asked(about["name"], user, signer, spec.get("usages") or (), request, spec.get("expirationSeconds"), machine)


def serving_problem(asked: Asked, nodes: Sequence[Obj]) -> str:
    """Why a node may not serve under these names and addresses; "" if they are its own.

    Its one name is that of its Node: what else it says it is called, only it says. A node that has not said its addresses yet has those it
    asks for, unless they are another node's.
    """
    node = signers.node_of(asked.request.common_name)
    own = next((one for one in nodes if one["metadata"]["name"] == node), None)
    known = _addresses(own or {})
    foreign = [name for name in asked.request.names if name != node]
    if foreign:
        return f"{foreign[0]} is not a name of node {node}"
    addresses = {_normal(value) for type, value in known if type in ("InternalIP", "ExternalIP")}
    if addresses:
        foreign = [address for address in asked.request.addresses if _normal(address) not in addresses]
        return f"{foreign[0]} is not an address of node {node}" if foreign else ""
    others = {_normal(value): one["metadata"]["name"] for one in nodes if one is not own for _, value in _addresses(one)}
    for address in asked.request.addresses:
        if _normal(address) in others:
            return f"{address} is an address of node {others[_normal(address)]}"
    return ""


def _addresses(node: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    return [(str(one.get("type")), str(one.get("address"))) for one in (node.get("status") or {}).get("addresses") or ()]


def _normal(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def plan_cleanup(found: Obj, clock: Clock) -> float | None:
    """Seconds until the request may be deleted (0: now), None if never. A clock that jumped does not age it."""
    created, status = found["metadata"].get("creationTimestamp"), found.get("status") or {}
    if not (status.get("conditions") or ()):
        return _left(created, PENDING_SECONDS, clock)
    issued = bool(status.get("certificate"))
    ends = [*conditions(found, "Denied"), *conditions(found, "Failed"), *(conditions(found, "Approved") if issued else ())]
    left = [_left(one.get("lastUpdateTime"), DONE_SECONDS, clock) for one in ends]
    known = [one for one in left if one is not None]
    return min(known) if known else None


def _left(since: str | None, seconds: float, clock: Clock) -> float | None:
    if not since:
        return None
    try:
        return max(0.0, seconds - clock.age(parse_rfc3339(since)))
    except ValueError:
        return None


async def plan_signature(
    authority: Path, asked: Asked, *, now: datetime, life: timedelta, reserved: frozenset[str] = frozenset()
) -> str:
    """The certificate as status.certificate says it: for as long as asked, but no longer than `life`; for no `reserved` name or address."""
    if asked.seconds is not None:
        life = min(life, max(timedelta(seconds=asked.seconds), _SHORTEST))
    return base64.b64encode(await asyncio.to_thread(_signed, authority, asked, now, life, reserved)).decode()


def _signed(authority: Path, asked: Asked, now: datetime, life: timedelta, reserved: frozenset[str]) -> bytes:
    return csr.issue(authority.read_bytes(), asked.request, asked.usages, now=now, life=life, without=reserved)
