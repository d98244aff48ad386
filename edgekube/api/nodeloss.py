"""What a pod wants to happen when its node is lost: the annotation edgekube.io/node-loss, set in its workload's template. Pure.

    stay    it keeps its node     fenced  its node ends it after a while without contact, then it starts elsewhere     evict  as upstream

`fenced` is a promise between server and node, so it is fixed when the pod is made (admission.nodeloss).
"""

from collections.abc import Mapping
from typing import Any

from edgekube.api.types import Obj

ANNOTATION = "edgekube.io/node-loss"
PROMISE = "edgekube.io/fence-after-seconds"  # of a Node: how long it keeps fenced pods without contact
MARK = "edgekube.io/fenced"  # of a node's Lease: the server gives its fenced pods to others
STAY, FENCED, EVICT = "stay", "fenced", "evict"
CHOICES = (STAY, FENCED, EVICT)
INJECTED_SECONDS = 300  # tolerationSeconds that everybody gets for the taints of lost nodes
LOST_TAINTS = frozenset(("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"))


def choice(pod: Obj) -> str:
    """Its own word, "" if it has none that is known."""
    found = (pod["metadata"].get("annotations") or {}).get(ANNOTATION, "")
    return found if found in CHOICES else ""


def fenced(pod: Obj) -> bool:
    return choice(pod) == FENCED


def has_chosen(toleration: Mapping[str, Any]) -> bool:
    """Somebody decided how long the pod bears a lost node."""
    seconds = toleration.get("tolerationSeconds")
    return seconds is not None and seconds != INJECTED_SECONDS and toleration.get("key", "") in (*LOST_TAINTS, "")
