"""What a node remembers of the cluster so that it can live alone, and how soon a change of it must be on the disk. Pure.

The list is explicit: what is not in REMEMBERED is asked of the server or fails. A secret is remembered only while a pod of this node uses
it: it is watched by its name then, which is also all that node authorization lets a node read.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson

from edgekube.api.catalog import CONFIG_MAP, ENDPOINT_SLICE, NAMESPACE, NODE, POD, POLICY_SLICE, SECRET, SERVICE
from edgekube.api.kind import Kind
from edgekube.api.types import Key, Obj
from edgekube.client.reflector import Source


class Weight(IntEnum):
    """How soon a change must be durable."""

    NOTHING = 0  # a heartbeat: not worth a write
    LATER = 1  # with others, seldom
    SOON = 2  # a person or a controller decided something about this node's pods


Weigh = Callable[[Obj, Obj], Weight]
"""Old and new version -> what the change is worth."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of which a node remembers some sources."""

    kind: Kind
    covers: Callable[[Source], bool]
    weigh: Weigh
    first: Weight = Weight.LATER  # of an object that is new, or gone


def by_name(source: Source) -> str:
    """The one object a source is about; "": it is about several."""
    prefix = "metadata.name="
    return source.fields.removeprefix(prefix) if source.fields.startswith(prefix) and "," not in source.fields else ""


def _whole(source: Source) -> bool:
    return not source.labels and not source.namespace and (not source.fields or bool(by_name(source)))


def _one(source: Source) -> bool:
    return not source.labels and not source.namespace and bool(by_name(source))


def _single(source: Source) -> bool:
    return not source.labels and bool(source.namespace) and bool(by_name(source))


def _of_node(source: Source) -> bool:
    return not source.labels and not source.namespace and source.fields.startswith("spec.nodeName=") and "," not in source.fields


def _always(weight: Weight) -> Weigh:
    return lambda _old, _new: weight


def _asked(obj: Obj) -> object:
    """All of an object but what only versions it."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in ("resourceVersion", "managedFields", "generation")}
    return metadata, {name: value for name, value in obj.items() if name not in ("metadata", "status")}


def _runs(pod: Obj) -> object:
    """What restart counts and container ids follow from."""
    status = pod.get("status") or {}
    entries = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    seen = [(entry["name"], entry.get("restartCount"), entry.get("containerID"), *(entry.get("state") or ())) for entry in entries]
    return status.get("phase"), seen


def weigh_pod(old: Obj, new: Obj) -> Weight:
    """Readiness may flap for ever: it is not worth a write each time."""
    if _asked(old) != _asked(new) or _runs(old) != _runs(new):
        return Weight.SOON
    return Weight.LATER if old.get("status") != new.get("status") else Weight.NOTHING


def weigh_node(old: Obj, new: Obj) -> Weight:
    """Heartbeats and the list of images are no news to others."""
    same = _asked(old) == _asked(new) and _standing(old) == _standing(new)
    return Weight.NOTHING if same else Weight.LATER


def weigh_own_node(old: Obj, new: Obj) -> Weight:
    """Its pod range is what the network starts from."""
    return Weight.NOTHING if weigh_node(old, new) is Weight.NOTHING else Weight.SOON


def _standing(node: Obj) -> object:
    status: dict[str, Any] = {name: value for name, value in (node.get("status") or {}).items() if name != "images"}
    conditions = status.pop("conditions", None) or ()
    return status, [(entry.get("type"), entry.get("status")) for entry in conditions]


# The first that covers a source holds.
REMEMBERED: Sequence[Rule] = (
    Rule(POD, _of_node, weigh_pod, Weight.SOON),
    Rule(CONFIG_MAP, _single, _always(Weight.SOON), Weight.SOON),
    Rule(SECRET, _single, _always(Weight.SOON), Weight.SOON),
    Rule(NODE, _one, weigh_own_node, Weight.SOON),
    Rule(NODE, _whole, weigh_node),
    Rule(SERVICE, _whole, _always(Weight.SOON), Weight.SOON),
    Rule(NAMESPACE, _whole, _always(Weight.LATER)),
    Rule(ENDPOINT_SLICE, _whole, _always(Weight.LATER)),
    Rule(POLICY_SLICE, _whole, _always(Weight.LATER)),
)

PINNED = frozenset({(CONFIG_MAP, Key("kube-system", "edgekube-cluster"))})
"""Single objects that are kept although no pod refers to them: the cluster's settings."""


def members(raw: bytes | None, uids: Set[str]) -> set[tuple[str, ...]]:
    """Which of the pods `uids` an EndpointSlice leads to, and where."""
    entries = orjson.loads(raw).get("endpoints") or () if raw is not None and b'"targetRef"' in raw else ()
    found = {((entry.get("targetRef") or {}).get("uid") or "", *entry["addresses"]) for entry in entries}
    return {one for one in found if one[0] in uids}


def rule_for(source: Source) -> Rule | None:
    """The rule that makes `source` a remembered one."""
    return next((rule for rule in REMEMBERED if rule.kind == source.kind and rule.covers(source)), None)


def weigh_change(rule: Rule, old: bytes | None, new: bytes | None) -> Weight:
    """What going from one version's bytes to another's is worth."""
    if old is None or new is None:
        return rule.first
    if old == new:
        return Weight.NOTHING
    before, after = orjson.loads(old), orjson.loads(new)
    if before["metadata"].get("uid") != after["metadata"].get("uid"):
        return rule.first
    return rule.weigh(before, after)
