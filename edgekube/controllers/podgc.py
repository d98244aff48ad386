"""Pod garbage: pods whose node is gone, deleted pods that no node ever had, and the oldest finished ones beyond a limit.

Reads pods, nodes; writes pods/status, deletes pods. A node's absence is believed after 40 s and a question to the API server, as
upstream does; nothing is polled.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from edgekube.api import nodeloss
from edgekube.api.catalog import NODE, POD
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.protocol import PatchType
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.fencing import patience, promise_of
from edgekube.controllers.nodehealth import ready_of
from edgekube.controllers.pods import PodFacts
from edgekube.errors import ApiError, NotFound
from edgekube.lib.clock import rfc3339

QUARANTINE = 40.0
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Finished:
    """The key of the question whether too many finished pods are kept."""


class PodGCController(Base):
    name = "pod-garbage-collector"
    primary = POD

    def __init__(self, tools: Tools, *, keep: int, fence_after: float) -> None:
        super().__init__(tools)
        self._keep, self._fence_after = keep, fence_after
        self._missing_since: dict[str, float] = {}
        self._promises: dict[str, float] = {}  # of nodes that were deleted
        self.cache.add_index(POD, FINISHED, lambda item: (FINISHED,) if item.fields.get("status.phase") in ("Succeeded", "Failed") else ())
        self.cache.add_field_index(POD, "spec.nodeName")

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(NODE, self._of_node), Maps(POD, _of_finished))

    def _of_node(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """A node that went, came, or got a taint."""
        item = new or old
        if item is None:
            return ()
        if new is None and old is not None:
            self._promises[old.name] = promise_of(old.decode()) or 0.0
        if new is not None:
            self._missing_since.pop(item.name, None)
            self._promises.pop(item.name, None)
            if OUT_OF_SERVICE.encode() not in new.raw:
                return ()
        return [pod.key for pod in self.cache.by_index(POD, "spec.nodeName", item.name)]

    async def reconcile(self, key: Key | Finished) -> Result:
        if isinstance(key, Finished):
            await self._limit_finished()
            return DONE
        item = self.cache.get(POD, key)
        if item is None:
            return DONE
        node = item.fields.get("spec.nodeName", "")
        if not node:
            if item.deleting:
                await self._delete(item, "DeletionByPodGC", "PodGC: unscheduled and terminating")
            return DONE
        known = self.cache.get(NODE, Key("", node))
        if known is not None:
            if item.deleting and is_out_of_service(known):
                await self._delete(item, "DeletionByPodGC", "PodGC: node is out of service")
            return DONE
        return await self._orphaned(item, node)

    async def _orphaned(self, item: Item, node: str) -> Result:
        now = self.clock.monotonic()
        age = now - self._missing_since.setdefault(node, now)
        quarantine = self._quarantine(item, node)
        if age < quarantine:
            return Result(after=quarantine - age)
        try:
            await self.client.get(NODE, node)
        except NotFound:
            await self._delete(item, "DeletionByPodGC", "PodGC: node no longer exists")
        return DONE

    def _quarantine(self, item: Item, node: str) -> float:
        """The node may be running still, without a way to tell: a fenced pod is given up when it must have ended there."""
        if not nodeloss.fenced(item.decode()):
            return QUARANTINE
        return max(QUARANTINE, patience(self._promises.get(node, self._fence_after)))

    async def _delete(self, item: Item, reason: str, message: str) -> None:
        """Mark a pod that has not ended as failed for this reason, then delete it at once."""
        pod = item.decode()
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            patch = {"metadata": {"uid": item.uid}, "status": plan_failed(reason, message, rfc3339(self.clock.now()))}
            try:
                await self.client.patch(POD, item.name, item.namespace, patch, patch_type=PatchType.STRATEGIC, subresource="status")
            except NotFound:
                return
        try:
            await self.client.delete(POD, item.name, item.namespace, grace_seconds=0, uid=item.uid)
        except NotFound:
            return

    async def _limit_finished(self) -> None:
        finished = self.cache.by_index(POD, FINISHED, FINISHED)
        if self._keep <= 0 or len(finished) <= self._keep:
            return
        errors: list[ApiError] = []
        for pod in plan_finished([self.pods(item) for item in finished], self._keep):
            try:
                await self.client.delete(POD, pod.key.name, pod.key.namespace, grace_seconds=0, uid=pod.uid)
            except NotFound:
                continue
            except ApiError as error:
                errors.append(error)
        if errors:
            raise errors[0]


def _of_finished(old: Item | None, new: Item | None) -> Iterable[Hashable]:
    if new is not None and new.fields.get("status.phase") in ("Succeeded", "Failed") and (old is None or old.fields != new.fields):
        yield Finished()


def is_out_of_service(node: Item) -> bool:
    """Somebody declared the node dead, and it does not say otherwise; what it runs may be forgotten."""
    obj = node.decode()
    taints = obj.get("spec", {}).get("taints") or ()
    return any(taint.get("key") == OUT_OF_SERVICE for taint in taints) and (ready_of(obj) or {}).get("status") != "True"


def plan_finished(pods: Sequence[PodFacts], keep: int) -> Sequence[PodFacts]:
    """The oldest beyond `keep`."""
    ordered = sorted(pods, key=lambda pod: (pod.created_at, pod.key))
    return ordered[: max(0, len(ordered) - keep)]


def plan_failed(reason: str, message: str, stamp: str) -> Obj:
    """What a pod that was lost gets into its status: Failed, with the disruption named. A strategic patch, which keeps other conditions."""
    target = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message, "lastTransitionTime": stamp}
    return {"phase": "Failed", "conditions": [target]}
