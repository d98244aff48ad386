"""Fenced fail-over: a pod of a lost node starts elsewhere only after its node must have ended it. Reads nodes, leases and pods; writes
leases, pods/status, deletes pods, writes Events.

    the node promises (annotation edgekube.io/fence-after-seconds = T on its Node): T seconds after it *sent* its last renewal that was
    answered, its fenced pods are dead, and none starts before it has been answered again
    we wait T + margin after the last renewal we *saw*, on our monotonic clock, and from our own start on: we have seen nothing before
    then we mark the Lease (annotation edgekube.io/fenced), only if it is still the one we looked at: the node's next renewal collides with
    the mark or finds it, and as long as it is there the node starts none of these pods
    then the pods are deleted for good, so that their owners make others; once the node renews again the mark goes, and it starts what is
    left and what is new

So a renewal and a fail-over of one node are ordered by the Lease itself, whatever network and clocks do: never two at once. A node that
promises nothing (an old one, or the server's own) is not fenced. Decisions are the functions below; tests/unit/controllers/
test_fencing_model.py runs them against random networks.
"""

import contextlib
import logging
import uuid
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from edgekube.api import nodeloss
from edgekube.api.catalog import LEASE, NODE, POD
from edgekube.api.item import Item
from edgekube.api.nodeloss import MARK, PROMISE
from edgekube.api.types import Key, Obj
from edgekube.client.derived import Derived
from edgekube.client.recorder import WARNING
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.nodelifecycle import LEASES, reference_of, renewed_at
from edgekube.controllers.tainteviction import mark_disrupted
from edgekube.errors import AlreadyExists, Conflict, NotFound

log = logging.getLogger(__name__)

_MARGIN = 1.0
_DRIFT = 0.1  # clocks of two machines differ in speed by far less


class Step(Enum):
    """What to do about one node now."""

    NOTHING = "nothing"
    WAIT = "wait"
    MARK = "mark"
    DELETE = "delete"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class View:
    """One node as the server sees it. `pods`: fenced pods that it has and that have not ended by themselves; `silent`: seconds since its
    last renewal that we saw, or since we began to look; `marked`: its Lease is; `mine`: by this process; `renewed`: it has renewed since.
    """

    promise: float | None
    pods: int
    silent: float
    marked: bool = False
    mine: bool = False
    renewed: bool = False


def plan_step(view: View) -> Step:
    """The next step. Nothing is deleted without a mark of our own, and the mark goes last: when nothing is left to delete of what was there
    when the node was silent."""
    if view.marked and view.mine:
        if view.renewed:
            return Step.RELEASE
        return Step.DELETE if view.pods else Step.NOTHING
    if view.marked and view.renewed:  # of an earlier process: its deletions ended with it
        return Step.RELEASE
    if not view.pods or view.promise is None:
        return Step.NOTHING
    return Step.MARK if view.silent >= patience(view.promise) else Step.WAIT


def patience(promise: float) -> float:
    """Seconds of silence after which the node has kept its promise."""
    return promise + max(_MARGIN, promise * _DRIFT)


def promise_of(node: Obj) -> float | None:
    """What the node promises; None if nothing that can be understood."""
    text = (node["metadata"].get("annotations") or {}).get(PROMISE, "")
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None


class FencingController(Base):
    """Keys are nodes."""

    name = "fencing-controller"
    primary = None

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._fenced = Derived(self.cache, POD, lambda item: nodeloss.fenced(item.decode()))
        self._promises = Derived(self.cache, NODE, lambda item: promise_of(item.decode()))
        self._started = self.clock.monotonic()
        self._seen: dict[str, float] = {}  # when the last renewal was seen
        self._renewing: set[str] = set()  # nodes of which a renewal was seen
        self._marked_at: dict[str, str] = {}  # the renewal that was the last one then

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(LEASE, self._of_lease), Maps(POD, self._of_pod), Maps(NODE, self._of_node))

    def _of_lease(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """A renewal is only noted; what concerns a mark wakes the node."""
        item = new or old
        if item is None or item.namespace != LEASES:
            return
        if new is not None and (old is None or renewed_at(old) != renewed_at(new)):
            self._seen[new.name] = self.clock.monotonic()
            if old is not None:
                self._renewing.add(new.name)
        if new is None or MARK.encode() in new.raw:
            yield item.name

    def _of_pod(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        item = new or old
        if item is not None and (node := item.fields.get("spec.nodeName", "")) and self._is_fenced(item):
            yield node

    def _of_node(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        if new is not None and (old is None or self._promises(new) != promise_of(old.decode())):
            yield new.name

    def _is_fenced(self, item: Item) -> bool:
        return item.fields.get("status.phase") not in ("Succeeded", "Failed") and self._fenced(item)

    async def reconcile(self, key: str) -> Result:
        node, lease = self.cache.get(NODE, Key("", key)), self.cache.get(LEASE, Key(LEASES, key))
        if node is None:
            return DONE  # pods of a node that is gone: podgc.py
        pods = [item for item in self.cache.by_index(POD, "spec.nodeName", key) if self._is_fenced(item)]
        view = self._view(node, lease, len(pods))
        match plan_step(view):
            case Step.WAIT:
                return Result(after=patience(view.promise or 0.0) - view.silent)
            case Step.MARK:
                await self._mark(node, lease, len(pods))
                return Result(after=0.0)
            case Step.DELETE:
                await self._delete(pods)
            case Step.RELEASE:
                await self._release(key, lease)
            case Step.NOTHING:
                pass
        return DONE

    def _view(self, node: Item, lease: Item | None, pods: int) -> View:
        name, is_marked = node.name, marked(lease)
        if not is_marked:
            self._marked_at.pop(name, None)
        mine = name in self._marked_at
        renewed = lease is not None and (renewed_at(lease) != self._marked_at[name] if mine else name in self._renewing)
        silent = self.clock.monotonic() - self._seen.get(name, self._started)
        return View(self._promises(node), pods, silent, is_marked, mine, is_marked and renewed)

    async def _mark(self, node: Item, lease: Item | None, pods: int) -> None:
        """Only on the very Lease that was looked at. Losing that race is good news: the node is back."""
        name = node.name
        value = uuid.uuid4().hex  # a mark of an earlier process is replaced: even that must collide with a renewal
        try:
            if lease is None:
                metadata: Obj = {"name": name, "namespace": LEASES, "annotations": {MARK: value}}
                metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.uid}]
                fresh: Obj = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
                await self.client.create(LEASE, fresh | {"spec": {"holderIdentity": name}}, LEASES)
            else:
                await self.client.update(LEASE, with_mark(lease.decode(), value))
        except (Conflict, AlreadyExists, NotFound):
            self._seen[name] = self.clock.monotonic()
            return
        self._marked_at[name] = "" if lease is None else renewed_at(lease)
        log.warning("node is fenced", extra={"node": name, "pods": pods})
        message = f"Node {name} was not heard of for longer than it keeps fenced pods: {pods} of them start elsewhere"
        self.events.event(reference_of(node), WARNING, "NodeFenced", message)

    async def _delete(self, pods: Sequence[Item]) -> None:
        for item in pods:
            try:
                await mark_disrupted(self, item, "DeletionByFencing", "Fencing: the node is not heard of and has ended the pod")
                await self.client.delete(POD, item.name, item.namespace, grace_seconds=0, uid=item.uid)
            except (NotFound, Conflict):
                continue  # gone, or another pod has the name by now

    async def _release(self, name: str, lease: Item | None) -> None:
        if lease is not None:
            with contextlib.suppress(NotFound):
                await self.client.update(LEASE, with_mark(lease.decode(), ""))
        self._marked_at.pop(name, None)
        log.info("node is no longer fenced", extra={"node": name})


def marked(lease: Item | None) -> bool:
    return lease is not None and MARK.encode() in lease.raw and MARK in (lease.decode()["metadata"].get("annotations") or {})


def with_mark(lease: Obj, value: str) -> Obj:
    """The same Lease with the mark, or without if `value` is empty; its revision stays, so that it is written only over what was read."""
    about = lease["metadata"]
    annotations = {name: text for name, text in (about.get("annotations") or {}).items() if name != MARK}
    if value:
        annotations[MARK] = value
    return {**lease, "metadata": {**about, "annotations": annotations}}
