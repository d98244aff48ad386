"""One reconcile of a Deployment at work on its ReplicaSets: find or make the newest, scale, clean up, write the status.

Reads what the controller hands it; writes replicasets, deployments/status and Events. Each step is safe to repeat after a crash: the new
set is found by its template, sizes are absolute, and the annotations that carry the rollout's memory are written with the size.
"""

import logging
from collections.abc import Mapping, Sequence

from edgekube.api import meta
from edgekube.api.catalog import DEPLOYMENT, REPLICA_SET
from edgekube.api.types import Obj
from edgekube.client.recorder import NORMAL, WARNING, reference
from edgekube.controllers import rolloutstatus as words
from edgekube.controllers.base import Base
from edgekube.controllers.replicaset import is_namespace_terminating
from edgekube.controllers.rollout import (
    DESIRED,
    MAXIMUM,
    REVISION,
    DeploymentFacts,
    SetFacts,
    deployment_facts,
    plan_annotations,
    plan_cleanup,
    plan_new_replicas,
    set_facts,
)
from edgekube.controllers.template import bare, new_replica_set, template_hash
from edgekube.errors import AlreadyExists, ApiError, NotFound

log = logging.getLogger(__name__)


class Retry(Exception):
    """The state changed under us in a way that the next reconcile will understand."""


class Rollout:
    """`deployment` and `sets` are decoded copies that belong to this object; it keeps them as the server last answered."""

    def __init__(self, base: Base, deployment: Obj, sets: Sequence[Obj]) -> None:
        self._client, self._events, self._clock = base.client, base.events, base.clock
        self.deployment = deployment
        self._stored_status = deployment.get("status") or {}
        self._stored_annotations = dict(meta.annotations(deployment))
        self._sets = {rs["metadata"]["name"]: rs for rs in sets}
        wanted = bare(deployment["spec"]["template"])
        same = [rs for rs in sets if bare(rs["spec"].get("template") or {}) == wanted]
        newest = min(same, key=lambda rs: (rs["metadata"].get("creationTimestamp") or "", rs["metadata"]["name"]), default=None)
        self._new_name = newest["metadata"]["name"] if newest else None

    # what there is

    @property
    def facts(self) -> DeploymentFacts:
        return deployment_facts(self.deployment)

    @property
    def new(self) -> SetFacts | None:
        return set_facts(self._sets[self._new_name]) if self._new_name is not None else None

    @property
    def old(self) -> list[SetFacts]:
        return [set_facts(rs) for name, rs in self._sets.items() if name != self._new_name]

    @property
    def all(self) -> list[SetFacts]:
        return [set_facts(rs) for rs in self._sets.values()]

    # the newest set

    async def ensure_new(self, *, create: bool) -> None:
        """Bring the newest set's annotations and revision up to date; make it if there is none and `create` says so."""
        revision = max((rs.revision for rs in self.old), default=0) + 1
        if self._new_name is not None:
            await self._refresh_new(self._new_name, revision)
        elif create:
            await self._create_new(revision)

    async def _refresh_new(self, name: str, revision: int) -> None:
        rs = self._sets[name]
        annotations = plan_annotations(meta.annotations(self.deployment), meta.annotations(rs), revision)
        minimum = self.deployment["spec"].get("minReadySeconds", 0)
        if annotations != dict(meta.annotations(rs)) or rs["spec"].get("minReadySeconds", 0) != minimum:
            rs["metadata"]["annotations"] = annotations
            rs["spec"]["minReadySeconds"] = minimum
            self._sets[name] = rs = await self._client.update(REPLICA_SET, rs)
        self._note_revision(meta.annotations(rs).get(REVISION, ""))
        status = self._status()
        if words.progress_deadline(self.deployment) is not None and words.find(status.get("conditions") or (), "Progressing") is None:
            self._condition("True", "FoundNewReplicaSet", f'Found new replica set "{name}"')

    async def _create_new(self, revision: int) -> None:
        deployment = self.deployment
        hashed = template_hash(deployment["spec"]["template"], self._status().get("collisionCount"))
        rs = new_replica_set(deployment, hashed)
        name = rs["metadata"]["name"]
        facts = self.facts
        rs["metadata"]["annotations"] = plan_annotations(meta.annotations(deployment), {}, revision) | _sizes(facts)
        rs["metadata"]["ownerReferences"] = [meta.owner_reference(deployment, DEPLOYMENT, controller=True, block=True)]
        rs["spec"]["replicas"] = plan_new_replicas(facts, SetFacts(name=name, uid="", created="", replicas=0), self.old)
        fresh = True
        try:
            made = await self._client.create(REPLICA_SET, rs, deployment["metadata"]["namespace"])
        except AlreadyExists:
            made, fresh = await self._existing(name, rs), False
        except ApiError as error:
            await self._creation_failed(name, error)
            raise
        self._sets[name], self._new_name = made, name
        if fresh and rs["spec"]["replicas"] > 0:
            self._scaled("up", name, 0, rs["spec"]["replicas"])
        self._note_revision(meta.annotations(made).get(REVISION, str(revision)))
        if fresh and words.progress_deadline(deployment) is not None:
            self._condition("True", "NewReplicaSetCreated", f'Created new replica set "{name}"')

    async def _existing(self, name: str, wanted: Obj) -> Obj:
        """Ours from a try whose answer was lost, or somebody else's of the same hash: then the collision count changes the next hash."""
        about = self.deployment["metadata"]
        found = await self._client.get(REPLICA_SET, name, about["namespace"])
        owner = meta.controller_of(found)
        ours = owner is not None and owner["uid"] == about["uid"]
        if ours and bare(found["spec"]["template"]) == bare(wanted["spec"]["template"]):
            return found
        self._status()["collisionCount"] = (self._status().get("collisionCount") or 0) + 1
        log.info("hash collision", extra={"deployment": f"{about['namespace']}/{about['name']}", "replicaset": name})
        await self.write_status(self._status())
        raise Retry

    async def _creation_failed(self, name: str, error: ApiError) -> None:
        if is_namespace_terminating(error):
            return
        message = f'Failed to create new replica set "{name}": {error.message}'
        self._event(WARNING, "ReplicaSetCreateError", message)
        if words.progress_deadline(self.deployment) is not None:
            self._condition("False", "ReplicaSetCreateError", message)
            await self.write_status(self._status())

    # scaling

    async def resize(self, sizes: Mapping[str, int]) -> bool:
        """Give the named sets their sizes, and annotations that say for which size of the Deployment. Tells whether a size changed."""
        changed = False
        for name, size in sizes.items():
            rs = self._sets[name]
            before = rs["spec"].get("replicas", 1)
            annotations = dict(meta.annotations(rs)) | _sizes(self.facts)
            if before == size and annotations == dict(meta.annotations(rs)):
                continue
            rs["spec"]["replicas"] = size
            rs["metadata"]["annotations"] = annotations
            self._sets[name] = await self._client.update(REPLICA_SET, rs)
            if before != size:
                changed = True
                self._scaled("up" if size > before else "down", name, before, size)
        return changed

    async def clean_up(self) -> None:
        """Delete old sets beyond the history limit."""
        for name in plan_cleanup(self.deployment["spec"].get("revisionHistoryLimit"), self.old):
            about = self._sets[name]["metadata"]
            try:
                await self._client.delete(REPLICA_SET, name, about["namespace"], uid=about["uid"])
            except NotFound:
                pass
            else:
                log.info("old replica set deleted", extra={"replicaset": f"{about['namespace']}/{name}"})

    # status

    def failures(self) -> list[Obj]:
        """ReplicaFailure conditions, the newest set's before the others'."""
        ordered = sorted(self._sets, key=lambda name: name != self._new_name)
        found = (words.find((self._sets[name].get("status") or {}).get("conditions") or (), "ReplicaFailure") for name in ordered)
        return [condition for condition in found if condition is not None]

    async def write_rollout_status(self) -> float | None:
        """The status during a rollout; returns when progress has to be checked again."""
        time = words.Time(self._clock.now(), self._clock.age)
        status = words.plan_rollout_status(self.deployment, self.all, self.new, self.failures(), time)
        await self.write_status(status)
        return words.next_progress_check(self.deployment, status, time)

    async def write_counts(self) -> None:
        """Only numbers and availability: while paused, scaling or being deleted."""
        await self.write_status(words.plan_counts(self.deployment, self.all, self.new, self._clock.now()))

    async def write_status(self, status: Obj) -> None:
        """Write if anything differs from what is stored; the revision annotation travels with it, as upstream does it."""
        if status == self._stored_status and dict(meta.annotations(self.deployment)) == self._stored_annotations:
            return
        answer = await self._client.update(DEPLOYMENT, self.deployment | {"status": status}, subresource="status")
        self.deployment = answer
        self._stored_status, self._stored_annotations = answer.get("status") or {}, dict(meta.annotations(answer))

    def _status(self) -> Obj:
        status = self.deployment.get("status")
        if status is self._stored_status or status is None:
            # The stored one stays as it was read, to tell whether a write is needed.
            status = self.deployment["status"] = dict(self._stored_status)
        found: Obj = status
        return found

    def set_conditions(self, conditions: list[Obj]) -> None:
        """Change the conditions in memory; written with the next status."""
        self._status()["conditions"] = conditions

    def _condition(self, status: str, reason: str, message: str) -> None:
        now = self._clock.now()
        current = self._status().get("conditions") or []
        self.set_conditions(words.with_condition(current, words.condition("Progressing", status, reason, message, now)))

    def _note_revision(self, revision: str) -> None:
        annotations = dict(meta.annotations(self.deployment))
        if revision and annotations.get(REVISION) != revision:
            self.deployment["metadata"]["annotations"] = annotations | {REVISION: revision}

    def _scaled(self, way: str, name: str, before: int, after: int) -> None:
        self._event(NORMAL, "ScalingReplicaSet", f"Scaled {way} replica set {name} from {before} to {after}")

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._events.event(reference(self.deployment, DEPLOYMENT), kind, reason, message)


def _sizes(facts: DeploymentFacts) -> dict[str, str]:
    return {DESIRED: str(facts.replicas), MAXIMUM: str(facts.replicas + facts.surge)}
