"""Pods leave nodes with NoExecute taints that they do not tolerate, or not for long. Reads nodes and pods; deletes pods, writes pods/status
and Events.

What is decided: evictions.py. Time counts from when this process saw the pod and its node's taints together, on the monotonic clock, as
upstream does it: a server that was away for a day evicts nobody for that day.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from edgekube.api.catalog import NODE, POD
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.derived import Derived
from edgekube.client.protocol import PatchType
from edgekube.client.recorder import NORMAL
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.evictions import NEVER, guest_of, no_execute, plan_stay
from edgekube.errors import NotFound
from edgekube.lib.clock import rfc3339


@dataclass(slots=True)
class _Waiting:
    uid: str
    since: float
    due: float


class TaintEvictionController(Base):
    """See the module."""

    name = "taint-eviction-controller"
    primary = None

    def __init__(self, tools: Tools, *, policy: str) -> None:
        super().__init__(tools)
        self._policy = policy
        self._guests = Derived(self.cache, POD, lambda item: guest_of(item.decode()))
        self._taints = Derived(self.cache, NODE, lambda item: no_execute(item.decode()))
        self._known: dict[str, object] = {}  # node -> its taints as last seen
        self._waiting: dict[Key, _Waiting] = {}

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(NODE, self._of_node), Maps(POD, self._of_pod))

    def _of_node(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """Its NoExecute taints changed."""
        item = new or old
        if item is None:
            return ()
        taints = () if new is None else self._taints(new)
        if taints == self._known.get(item.name, ()):
            return ()
        if taints:
            self._known[item.name] = taints
        else:
            self._known.pop(item.name, None)
        return [pod.key for pod in self.cache.by_index(POD, "spec.nodeName", item.name)]

    def _of_pod(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """It came to a tainted node, changed there, or went while it had to wait."""
        item = new or old
        if item is not None and (item.fields.get("spec.nodeName", "") in self._known or item.key in self._waiting):
            yield item.key

    async def reconcile(self, key: Key) -> Result:
        item = self.cache.get(POD, key)
        node = None if item is None else self.cache.get(NODE, Key("", item.fields.get("spec.nodeName", "")))
        if item is None or node is None:
            self._cancel(key)
            return DONE
        guest = self._guests(item)
        taints = self._taints(node)
        stay = NEVER if guest.deleting or guest.finished else plan_stay(guest, taints, self._policy)
        now = self.clock.monotonic()
        if stay == NEVER:
            self._cancel(key, told=not guest.deleting)
            return DONE
        waiting = self._waiting.get(key)
        if waiting is None or waiting.uid != guest.uid:
            waiting = self._waiting[key] = _Waiting(guest.uid, now, now + stay)
        waiting.due = min(waiting.since + stay, waiting.due) if stay else now
        if waiting.due > now:
            return Result(after=waiting.due - now)
        await self._evict(item)
        return DONE

    def _cancel(self, key: Key, *, told: bool = True) -> None:
        if self._waiting.pop(key, None) is not None and told:
            self.events.event(_reference(key), NORMAL, "TaintManagerEviction", f"Cancelling deletion of Pod {key.namespace}/{key.name}")

    async def _evict(self, item: Item) -> None:
        key = item.key
        self.events.event(_reference(key), NORMAL, "TaintManagerEviction", f"Marking for deletion Pod {key.namespace}/{key.name}")
        try:
            await mark_disrupted(self, item, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
            await self.client.delete(POD, item.name, item.namespace, uid=item.uid)
        except NotFound:
            pass
        self._waiting.pop(key, None)


async def mark_disrupted(controller: Base, item: Item, reason: str, message: str) -> None:
    """The pod's condition DisruptionTarget says why it goes. Raises NotFound."""
    stamp = rfc3339(controller.clock.now())
    target = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message, "lastTransitionTime": stamp}
    patch: Obj = {"metadata": {"uid": item.uid}, "status": {"conditions": [target]}}
    await controller.client.patch(POD, item.name, item.namespace, patch, patch_type=PatchType.STRATEGIC, subresource="status")


def _reference(key: Key) -> Obj:
    return {"kind": "Pod", "apiVersion": "v1", "name": key.name, "namespace": key.namespace}
