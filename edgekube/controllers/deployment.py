"""Deployment: move pods from old templates to the newest, by its strategy, never below its promised availability.

Reads deployments, replicasets and, for Recreate, pods; writes replicasets, deployments/status and Events (through Rollout).

    being deleted -> numbers only        paused or scaled -> share the size, no new template
    RollingUpdate -> grow new, else shrink old        Recreate -> empty old, wait until their pods ended, then new
"""

from collections.abc import Hashable, Iterable, Sequence

from edgekube.api import selectors
from edgekube.api.catalog import DEPLOYMENT, POD, REPLICA_SET
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.derived import Derived
from edgekube.client.recorder import WARNING, reference
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.claims import Claimer
from edgekube.controllers.deploymentsets import Retry, Rollout
from edgekube.controllers.rollout import active, is_scaling, plan_new_replicas, plan_old_replicas, plan_scale
from edgekube.controllers.rolloutstatus import is_complete, plan_paused


class DeploymentController(Base):
    name = "deployment-controller"
    primary = DEPLOYMENT

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._claimer = Claimer(self.client, self.cache, DEPLOYMENT, REPLICA_SET)
        self._selectors = Derived(self.cache, DEPLOYMENT, lambda item: selectors.from_label_selector(item.decode()["spec"]["selector"]))

    def watches(self) -> Sequence[Owns | Maps]:
        return (Owns(REPLICA_SET), Maps(REPLICA_SET, self._of_orphan), Maps(POD, self._of_ended_pod))

    def _of_orphan(self, _old: Item | None, new: Item | None) -> Iterable[Hashable]:
        if new is not None and not new.controller and not new.deleting:
            for item in self.cache.list(DEPLOYMENT, new.namespace):
                if self._selectors(item).matches(new.labels):
                    yield item.key

    def _of_ended_pod(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """Recreate waits for pods to be gone."""
        if new is None and old is not None and old.controller:
            rs = self.cache.by_uid(REPLICA_SET, old.controller)
            deployment = self.cache.by_uid(DEPLOYMENT, rs.controller) if rs is not None and rs.controller else None
            if deployment is not None:
                yield deployment.key

    async def reconcile(self, key: Key) -> Result:
        item = self.cache.get(DEPLOYMENT, key)
        if item is None:
            return DONE
        deployment = item.decode()
        if not deployment["spec"].get("selector"):
            return await self._selects_all(deployment)
        sets = await self._claimer.claim(deployment, self._selectors(item))
        rollout = Rollout(self, deployment, [rs.decode() for rs in sets])
        try:
            return Result(after=await self._roll(rollout))
        except Retry:
            return Result(after=0.0)

    async def _roll(self, rollout: Rollout) -> float | None:
        deployment = rollout.deployment
        if "deletionTimestamp" in deployment["metadata"]:
            await rollout.write_counts()
            return None
        conditions = plan_paused(deployment, self.clock.now())
        if conditions is not None:
            rollout.set_conditions(conditions)
        if deployment["spec"].get("paused") or is_scaling(rollout.facts, rollout.all):
            await rollout.ensure_new(create=False)
            await rollout.resize(plan_scale(rollout.facts, rollout.new, rollout.old))
            if deployment["spec"].get("paused"):
                await rollout.clean_up()
            await rollout.write_counts()
            return None
        if rollout.facts.rolling:
            await self._rolling(rollout)
        else:
            await self._recreate(rollout)
        return await rollout.write_rollout_status()

    async def _rolling(self, rollout: Rollout) -> None:
        await rollout.ensure_new(create=True)
        new, facts = rollout.new, rollout.facts
        if new is None:
            return
        size = plan_new_replicas(facts, new, rollout.old)
        if size != new.replicas and await rollout.resize({new.name: size}):
            return
        if await rollout.resize(plan_old_replicas(facts, new, rollout.old)):
            return
        if is_complete(rollout.deployment, rollout.deployment.get("status") or {}):
            await rollout.clean_up()

    async def _recreate(self, rollout: Rollout) -> None:
        await rollout.ensure_new(create=False)
        if await rollout.resize({rs.name: 0 for rs in active(rollout.old)}):
            return
        if self._old_pods_run(rollout):
            return
        await rollout.ensure_new(create=True)
        new = rollout.new
        if new is not None and new.replicas != rollout.facts.replicas:
            await rollout.resize({new.name: rollout.facts.replicas})
        if is_complete(rollout.deployment, rollout.deployment.get("status") or {}):
            await rollout.clean_up()

    def _old_pods_run(self, rollout: Rollout) -> bool:
        if any(rs.actual > 0 for rs in rollout.old):
            return True
        pods = (self.pods(pod) for rs in rollout.old for pod in self.cache.owned(POD, rs.uid))
        return any(not pod.terminal for pod in pods)

    async def _selects_all(self, deployment: Obj) -> Result:
        message = "This deployment is selecting all pods. A non-empty selector is required."
        self.events.event(reference(deployment, DEPLOYMENT), WARNING, "SelectingAll", message)
        status, generation = deployment.get("status") or {}, deployment["metadata"].get("generation", 0)
        if status.get("observedGeneration", 0) < generation:
            fresh = deployment | {"status": status | {"observedGeneration": generation}}
            await self.client.update(DEPLOYMENT, fresh, subresource="status")
        return DONE
