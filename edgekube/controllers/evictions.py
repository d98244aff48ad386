"""Which pods leave a node because of its NoExecute taints, and when. Pure; upstream's pkg/controller/tainteviction, plus a choice for lost
nodes.

    every taint tolerated for ever          -> stays
    some taint not tolerated                -> leaves now
    tolerated for so many seconds at least  -> leaves then, counted from when the taints were seen
    the two taints of lost nodes            -> the pod's annotation edgekube.io/node-loss, else the cluster's policy:
        stay    the pod keeps its node: a box in a shed has no other, and a node that lost its link still works
        fenced  the node itself promises to end the pod; fencing.py moves it when that time is over (see api.nodeloss)
        evict   as upstream
    A toleration with seconds of its own (not the 300 that everybody gets) has chosen: as upstream.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekube.api.nodeloss import EVICT, LOST_TAINTS, choice, has_chosen
from edgekube.api.types import Obj

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Guest:
    """What of a pod decides. `choice` is its own word, "" if it has none."""

    node: str
    uid: str
    tolerations: Sequence[Mapping[str, Any]]
    choice: str
    deleting: bool
    finished: bool


def guest_of(pod: Obj) -> Guest:
    spec, about = pod.get("spec") or {}, pod["metadata"]
    finished = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return Guest(
        spec.get("nodeName", ""),
        about.get("uid", ""),
        tuple(spec.get("tolerations") or ()),
        choice(pod),
        "deletionTimestamp" in about,
        finished,
    )


def no_execute(node: Obj) -> tuple[Mapping[str, Any], ...]:
    """The taints that matter here."""
    return tuple(taint for taint in (node.get("spec") or {}).get("taints") or () if taint.get("effect") == "NoExecute")


def plan_stay(guest: Guest, taints: Sequence[Mapping[str, Any]], policy: str) -> float:
    """Seconds the pod may stay, from when it and all of `taints` were first there: 0 is not at all, NEVER for ever."""
    shortest = NEVER
    for taint in taints:
        matching = next((one for one in guest.tolerations if tolerates(one, taint)), None)
        if taint.get("key") in LOST_TAINTS and not _leaves_lost(guest, matching, policy):
            continue
        if matching is None:
            return 0.0
        if matching.get("tolerationSeconds") is not None:
            shortest = min(shortest, max(0.0, float(matching["tolerationSeconds"])))
    return shortest


def _leaves_lost(guest: Guest, matching: Mapping[str, Any] | None, policy: str) -> bool:
    if guest.choice:
        return guest.choice == EVICT
    return policy == EVICT or (matching is not None and has_chosen(matching))


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """As upstream's ToleratesTaint."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    return bool(toleration.get("key")) and operator == "Equal" and (toleration.get("value") or "") == (taint.get("value") or "")
