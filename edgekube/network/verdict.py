"""What the self-test found, in words: per peer, as conditions of the Node, and as the report of `edgekube check --network`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from edgekube.api.types import Obj

HEALTHY = "edgekube.io/OverlayHealthy"
UNAVAILABLE = "NetworkUnavailable"
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """About the path to one node. `fault`: the path, not the peer, is in the way. `again`: worth another look without any change."""

    peer: str
    address: str
    reason: str
    message: str
    mtu: int = 0
    ok: bool = False
    fault: bool = False

    @property
    def again(self) -> bool:
        return not self.ok


def whole(peer: str, address: str, mtu: int) -> Verdict:
    return Verdict(peer, address, "Passed", f"small packets and packets of {mtu} bytes pass", mtu, ok=True)


def unchecked(peer: str, address: str, mtu: int) -> Verdict:
    text = "checksums made by this host's hardware were wrong; they are made by software now (slower)"
    return Verdict(peer, address, "ChecksumOffloadOff", text, mtu, ok=True)


def narrow(peer: str, address: str, mtu: int, wanted: int) -> Verdict:
    text = f"packets of {wanted} bytes are lost on the way, {mtu} pass: routes to this node say so now"
    return Verdict(peer, address, "SmallerMTU", text, mtu, ok=True)


def tight(peer: str, address: str, wanted: int) -> Verdict:
    text = f"small packets pass, but none between 576 and {wanted} bytes: something on the way drops what is bigger"
    return Verdict(peer, address, "FullPacketsLost", text, fault=True)


def blocked(peer: str, address: str, port: int) -> Verdict:
    text = f"the machine {address} answers, but not through the overlay: UDP port {port} is blocked by a firewall on one of the two nodes "
    text += "or between them; allow it in both directions"
    return Verdict(peer, address, "PortBlocked", text, fault=True)


def unrouted(peer: str, address: str) -> Verdict:
    text = f"the machine {address} answers, but not for its pod range: a firewall or a switch in between drops packets from and to pods; "
    text += "allow the pod ranges, or use --network-backend=vxlan"
    return Verdict(peer, address, "PodRangeBlocked", text, fault=True)


def silent(peer: str, address: str) -> Verdict:
    return Verdict(peer, address, "NoAnswer", "its network answers, edgekube on it does not (yet): is it running there?")


def away(peer: str, address: str) -> Verdict:
    return Verdict(peer, address, "NodeUnreachable", f"the machine {address} does not answer at all: it is off, or there is no way to it")


def refused(peer: str, why: str) -> Verdict:
    return Verdict(peer, "", "Refused", why, fault=True)


def conditions(verdicts: Iterable[Verdict], troubles: Sequence[str], old: Iterable[Mapping[str, str]], now: str) -> list[Obj]:
    """The Node's conditions about the overlay that must change; none while there is nobody to reach and never was."""
    found = sorted(verdicts, key=lambda verdict: verdict.peer)
    known = {entry["type"]: entry for entry in old}
    faults = [verdict for verdict in found if verdict.fault]
    if not found and not troubles and HEALTHY not in known:
        return []
    wanted = [_healthy(found, faults, troubles)]
    if troubles or UNAVAILABLE in known:
        wanted.append(_unavailable(troubles))
    changed = []
    for entry in wanted:
        before = known.get(entry["type"], {})
        if all(before.get(name) == value for name, value in entry.items()):
            continue
        since = before["lastTransitionTime"] if before.get("status") == entry["status"] else now
        changed.append({**entry, "lastHeartbeatTime": now, "lastTransitionTime": since})
    return changed


def _healthy(found: Sequence[Verdict], faults: Sequence[Verdict], troubles: Sequence[str]) -> Obj:
    if troubles:
        return {"type": HEALTHY, "status": "False", "reason": "NoTunnel", "message": "; ".join(troubles[:_MOST_NAMED])}
    if faults:
        more = f" (and {len(faults) - _MOST_NAMED} more)" if len(faults) > _MOST_NAMED else ""
        text = "; ".join(f"node {verdict.peer}: {verdict.message}" for verdict in faults[:_MOST_NAMED]) + more
        return {"type": HEALTHY, "status": "False", "reason": faults[0].reason, "message": text[:1024]}
    remedied = [verdict for verdict in found if verdict.ok and verdict.reason != "Passed"]
    if remedied:
        text = "; ".join(f"node {verdict.peer}: {verdict.message}" for verdict in remedied[:_MOST_NAMED])
        return {"type": HEALTHY, "status": "True", "reason": remedied[0].reason, "message": text[:1024]}
    return {"type": HEALTHY, "status": "True", "reason": "PathsTested", "message": "every node that is up is reached"}


def _unavailable(troubles: Sequence[str]) -> Obj:
    if troubles:
        return {"type": UNAVAILABLE, "status": "True", "reason": "NoTunnel", "message": "; ".join(troubles[:_MOST_NAMED])}
    return {"type": UNAVAILABLE, "status": "False", "reason": "PodNetworkReady", "message": "pods are connected to other nodes"}


def report(node: str, address: str, verdicts: Iterable[Verdict], troubles: Sequence[str]) -> Obj:
    """The file that `edgekube check --network` reads."""
    peers = [asdict(verdict) for verdict in sorted(verdicts, key=lambda verdict: verdict.peer)]
    return {"node": node, "address": address, "troubles": list(troubles), "peers": peers}


def lines(found: Obj) -> list[tuple[bool, str]]:
    """The report for people: one line a peer, and whether it is good."""
    told = [(False, f"this node: {text}") for text in found.get("troubles", ())]
    peers = found.get("peers", ())
    told += [(bool(peer["ok"]), f"{peer['peer']} {peer['address'] or '-'}: {peer['reason']}: {peer['message']}") for peer in peers]
    return told or [(True, "there are no other nodes")]
