"""ReplicaSet: keep `spec.replicas` pods that match the template. Reads replicasets and pods; writes pods, replicasets/status and Events.

Promises: pods are created in growing batches (1, 2, 4, ...) that end at the first failure, so that a refusal costs one request and not
five hundred; pods change hands only by owner reference; a second run after a crash finds its own pods and does nothing.
"""

import asyncio
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from edgekube.api import meta, selectors
from edgekube.api.catalog import POD, REPLICA_SET
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.derived import Derived
from edgekube.client.recorder import NORMAL, WARNING, reference
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.claims import Claimer
from edgekube.controllers.pods import PodFacts, steady
from edgekube.controllers.replicas import ReplicaPlan, next_check, plan_replicas, plan_status
from edgekube.errors import ApiError, NotFound
from edgekube.lib.clock import rfc3339


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the pods could not be brought to their number: a condition and a retry."""

    reason: str
    error: ApiError


class ReplicaSetController(Base):
    name = "replicaset-controller"
    primary = REPLICA_SET

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._claimer = Claimer(self.client, self.cache, REPLICA_SET, POD)
        self._selectors = Derived(self.cache, REPLICA_SET, lambda item: selectors.from_label_selector(item.decode()["spec"]["selector"]))

    def watches(self) -> Sequence[Owns | Maps]:
        return (Owns(POD), Maps(POD, self._of_orphan))

    def _of_orphan(self, _old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """A pod without a controller wakes every set that may want it."""
        if new is not None and not new.controller and not new.deleting:
            for item in self.cache.list(REPLICA_SET, new.namespace):
                if self._selectors(item).matches(new.labels):
                    yield item.key

    async def reconcile(self, key: Key) -> Result:
        item = self.cache.get(REPLICA_SET, key)
        if item is None:
            return DONE
        rs = item.decode()
        claimed = await self._claimer.claim(rs, self._selectors(item))
        minimum = rs["spec"].get("minReadySeconds", 0)
        pods = [(steady(self.pods(pod), self.clock) if minimum else self.pods(pod), pod) for pod in claimed]
        active = [(facts, pod.labels) for facts, pod in pods if facts.active]
        terminating = sum(facts.deleting and not facts.terminal for facts, _ in pods)
        now = self.clock.now()
        failure: Failure | None = None
        if not item.deleting:
            mine = [facts for facts, _ in active]
            related = self._related(item, mine)
            failure = await self._act(rs, plan_replicas(rs["spec"].get("replicas", 1), mine, related, now.timestamp()))
        shown = None if failure is None else {"reason": failure.reason, "message": failure.error.message}
        status = plan_status(rs, active, terminating, shown, now.timestamp(), rfc3339(now))
        if status != (rs.get("status") or {}):
            await self._write_status(rs, status)
        if failure is not None:
            raise failure.error
        return Result(after=next_check((facts for facts, _ in active), minimum, now.timestamp()))

    def _related(self, item: Item, mine: list[PodFacts]) -> Iterable[PodFacts]:
        """The pods of every set that has the same controller."""
        if not item.controller:
            return mine
        siblings = self.cache.owned(REPLICA_SET, item.controller)
        return [self.pods(pod) for sibling in siblings for pod in self.cache.owned(POD, sibling.uid)]

    async def _write_status(self, rs: Obj, status: Obj) -> None:
        try:
            await self.client.update(REPLICA_SET, rs | {"status": status}, subresource="status")
        except NotFound:
            return  # deleted meanwhile

    async def _act(self, rs: Obj, plan: ReplicaPlan) -> Failure | None:
        if plan.create:
            return await self._create(rs, plan.create)
        if plan.delete:
            return await self._delete(rs, plan.delete)
        return None

    async def _create(self, rs: Obj, count: int) -> Failure | None:
        pod = pod_from(rs)
        size = 1
        while count > 0:
            size = min(size, count)
            errors = [error for error in await asyncio.gather(*(self._create_one(rs, pod) for _ in range(size))) if error is not None]
            if errors:
                return None if all(map(is_namespace_terminating, errors)) else Failure("FailedCreate", errors[0])
            count -= size
            size *= 2
        return None

    async def _create_one(self, rs: Obj, pod: Obj) -> ApiError | None:
        ref = reference(rs, REPLICA_SET)
        try:
            made = await self.client.create(POD, pod, rs["metadata"]["namespace"])
        except ApiError as error:
            if not is_namespace_terminating(error):
                self.events.event(ref, WARNING, "FailedCreate", f"Error creating: {error.message}")
            return error
        self.events.event(ref, NORMAL, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return None

    async def _delete(self, rs: Obj, victims: Sequence[PodFacts]) -> Failure | None:
        errors = [error for error in await asyncio.gather(*(self._delete_one(rs, pod) for pod in victims)) if error is not None]
        return Failure("FailedDelete", errors[0]) if errors else None

    async def _delete_one(self, rs: Obj, pod: PodFacts) -> ApiError | None:
        ref = reference(rs, REPLICA_SET)
        try:
            await self.client.delete(POD, pod.key.name, pod.key.namespace, uid=pod.uid)
        except NotFound:
            return None
        except ApiError as error:
            self.events.event(ref, WARNING, "FailedDelete", f"Error deleting: {error.message}")
            return error
        self.events.event(ref, NORMAL, "SuccessfulDelete", f"Deleted pod: {pod.key.name}")
        return None


def pod_from(rs: Obj) -> Obj:
    """A pod as the template says, owned by `rs`; the server names it."""
    template = rs["spec"].get("template") or {}
    about = template.get("metadata") or {}
    copied = {name: about[name] for name in ("labels", "annotations", "finalizers") if about.get(name)}
    owner = meta.owner_reference(rs, REPLICA_SET, controller=True, block=True)
    metadata = {"generateName": f"{rs['metadata']['name']}-", "namespace": rs["metadata"]["namespace"], "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata | copied, "spec": template.get("spec") or {}}


def is_namespace_terminating(error: ApiError) -> bool:
    """The namespace is being deleted: nothing can be created in it, and that is no failure."""
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
