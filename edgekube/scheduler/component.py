"""The scheduler: watches pods and nodes, gives each waiting pod a node, says why when it can not.

Reads pods, nodes, namespaces; writes pods/binding, pods/status (the condition PodScheduled) and Events. Restarting loses nothing: what
waits is what has no node. Killed between decision and binding, the pod is simply placed again.
"""

import asyncio
import logging
import random

from edgekube.api import meta
from edgekube.api.catalog import NAMESPACE, NODE, POD
from edgekube.api.item import Item
from edgekube.api.types import Obj
from edgekube.client.cache import Cache
from edgekube.client.protocol import Client, PatchType
from edgekube.client.recorder import NORMAL, WARNING, Recorder, reference
from edgekube.errors import ApiError, NotFound
from edgekube.lib.clock import Clock, rfc3339
from edgekube.lib.metrics import counter, histogram
from edgekube.lib.tasks import TaskScope
from edgekube.scheduler import framework
from edgekube.scheduler.cycle import Unfit, find_node
from edgekube.scheduler.plugins import Plugins
from edgekube.scheduler.queue import SchedulingQueue, Waiting
from edgekube.scheduler.snapshot import Cluster, PodInfo, pod_info

log = logging.getLogger(__name__)

PROFILE = "default-scheduler"
BINDINGS = 100  # at the same time
_SLICE = 0.002  # seconds of cycles before the loop gets a turn

_BUCKETS = tuple(0.001 * 2**power for power in range(15))
ATTEMPTS = counter("scheduler_schedule_attempts_total", "Attempts to schedule pods, by result.", ("result", "profile"))
ATTEMPT_SECONDS = histogram(
    "scheduler_scheduling_attempt_duration_seconds", "Time of one attempt, binding included.", ("result", "profile"), buckets=_BUCKETS
)
CYCLE_SECONDS = histogram("scheduler_scheduling_algorithm_duration_seconds", "Time to choose a node.", buckets=_BUCKETS)
POD_ATTEMPTS = histogram("scheduler_pod_scheduling_attempts", "Attempts until a pod had its node.", buckets=(1, 2, 4, 8, 16))
POD_SECONDS = histogram(
    "scheduler_pod_scheduling_sli_duration_seconds",
    "Time from first seen to bound.",
    ("attempts",),
    buckets=tuple(0.01 * 2**power for power in range(20)),
)
_RESULTS = ("scheduled", "unschedulable", "error")
for _result in _RESULTS:
    ATTEMPTS.labels(_result, PROFILE)


class Scheduler:
    """Component."""

    name = "scheduler"

    def __init__(self, *, client: Client, clock: Clock, chance: random.Random | None = None) -> None:
        self._client, self._clock = client, clock
        self._chance = chance or random.Random()
        self._cluster = Cluster()
        self._plugins = Plugins(self._namespace_labels)
        wakes = {
            change: frozenset(plugin.name for plugin in self._plugins.filters if change in plugin.wakes_on) for change in framework.CHANGES
        }
        self._queue = SchedulingQueue(clock, wakes)
        self._recorder = Recorder(client=client, component=PROFILE, clock=clock, series=True)
        self._cache = Cache(client=client, sources=(POD, NODE, NAMESPACE))
        self._cache.on_change(NODE, self._on_node)
        self._cache.on_change(POD, self._on_pod)
        self._slots = asyncio.Semaphore(BINDINGS)

    async def run(self, ready: asyncio.Event) -> None:
        """Schedule until cancelled."""
        async with TaskScope("scheduler") as scope, asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run(), name="events")
            group.create_task(self._cache.run(), name="cache")
            await self._cache.wait_synced()
            ready.set()
            await self._schedule(scope)

    async def _schedule(self, scope: TaskScope) -> None:
        turn = self._clock.monotonic()
        while True:
            await self._slots.acquire()  # before taking a pod: from then to its placement nothing may come in between
            entry = self._queue.pop_now() or await self._queue.pop()
            if not self._one(entry, scope):
                self._slots.release()
            if self._clock.monotonic() - turn > _SLICE:
                await asyncio.sleep(0)
                turn = self._clock.monotonic()

    def _one(self, entry: Waiting, scope: TaskScope) -> bool:
        """One cycle. True: a task was started, which gives the slot back."""
        pod = entry.pod
        item = self._cache.get(POD, pod.key)
        if item is None or item.uid != pod.uid or self._cluster.placed(pod.uid):
            return False
        if item.deleting:
            self._tell(item, WARNING, "FailedScheduling", f"skip schedule deleting pod: {pod.key}", "Scheduling")
            return False
        start = self._clock.monotonic()
        found = find_node(pod, self._cluster.nodes(), self._plugins, self._chance)
        CYCLE_SECONDS.observe(self._clock.monotonic() - start)
        if isinstance(found, Unfit):
            self._queue.reject(entry, found.rejecters)
            self._count("unschedulable", start)
            scope.spawn(self._refused(item, "Unschedulable", found.message), name=f"refuse/{pod.key}")
            return True
        self._cluster.assume(pod, found)
        scope.spawn(self._bind(entry, item, found, start), name=f"bind/{pod.key}")
        return True

    async def _bind(self, entry: Waiting, item: Item, node: str, start: float) -> None:
        """Tell the API. Gives the slot back."""
        pod = entry.pod
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid},
            "target": {"kind": "Node", "name": node},
        }
        try:
            await self._client.create(POD, binding, pod.key.namespace, subresource="binding", name=pod.key.name)
        except ApiError as error:
            self._count("error", start)
            await self._not_bound(entry, item, error)
            return
        finally:
            self._slots.release()
        self._count("scheduled", start)
        POD_ATTEMPTS.observe(entry.attempts)
        POD_SECONDS.labels(str(entry.attempts) if entry.attempts < 16 else "16+").observe(self._clock.monotonic() - entry.first)
        log.info("pod bound", extra={"pod": str(pod.key), "node": node})
        self._tell(item, NORMAL, "Scheduled", f"Successfully assigned {pod.key} to {node}", "Binding")

    async def _not_bound(self, entry: Waiting, item: Item, error: ApiError) -> None:
        uid = entry.pod.uid
        if not self._cluster.forget(uid):
            return  # bound after all, or gone: the watch has told
        self._wake(framework.POD_DELETE)
        current = self._cache.get(POD, entry.pod.key)
        if isinstance(error, NotFound) or current is None or current.uid != uid:
            return
        log.info("pod not bound", extra={"pod": str(entry.pod.key), "why": error.message})
        entry.pod = pod_info(current)
        self._queue.retry(entry)
        await self._say(item, "SchedulerError", f'running Bind plugin "DefaultBinder": {error.message}')

    async def _refused(self, item: Item, reason: str, message: str) -> None:
        """Gives the slot back."""
        try:
            await self._say(item, reason, message)
        finally:
            self._slots.release()

    async def _say(self, item: Item, reason: str, message: str) -> None:
        """Event and condition: why the pod still waits."""
        self._tell(item, WARNING, "FailedScheduling", message, "Scheduling")
        pod = (self._cache.get(POD, item.key) or item).decode()
        patch = plan_condition(pod, reason, message, rfc3339(self._clock.now()))
        if patch is None:
            return
        try:
            await self._client.patch(POD, item.name, item.namespace, patch, patch_type=PatchType.STRATEGIC, subresource="status")
        except NotFound:
            return
        except ApiError as error:
            log.info("pod condition not written", extra={"pod": str(item.key), "why": error.message})

    def _tell(self, item: Item, kind: str, reason: str, message: str, action: str) -> None:
        self._recorder.event(reference(item.decode(), POD), kind, reason, message, action=action)

    def _count(self, result: str, start: float) -> None:
        ATTEMPTS.labels(result, PROFILE).inc()
        ATTEMPT_SECONDS.labels(result, PROFILE).observe(self._clock.monotonic() - start)

    def _namespace_labels(self) -> dict[str, dict[str, str]]:
        return {item.name: item.labels for item in self._cache.list(NAMESPACE)}

    # what happens in the cluster

    def _wake(self, change: str) -> None:
        self._queue.on_change(change)

    def _on_node(self, old: Item | None, new: Item | None) -> None:
        if new is None:
            if old is not None:
                self._cluster.drop_node(old.name)
            return
        node = self._cluster.node(new.name)
        before = (node.allocatable, node.labels, (node.taints, node.unschedulable))
        self._cluster.set_node(new)
        if old is None:
            self._wake(framework.NODE_ADD)
            return
        after = (node.allocatable, node.labels, (node.taints, node.unschedulable))
        changes = (framework.NODE_ALLOCATABLE, framework.NODE_LABEL, framework.NODE_TAINT)
        for change, was, now in zip(changes, before, after, strict=True):
            if was != now:
                self._wake(change)

    def _on_pod(self, old: Item | None, new: Item | None) -> None:
        if new is None:
            if old is not None:
                self._gone(old.uid)
            return
        pod = pod_info(new)
        if pod.terminal:
            self._gone(pod.uid)
        elif pod.node:
            self._placed(pod)
        elif pod.scheduler == PROFILE and not self._cluster.assumed(pod.uid):
            self._waiting(pod, old)

    def _gone(self, uid: str) -> None:
        self._queue.remove(uid)
        if self._cluster.remove(uid) is not None:
            self._wake(framework.POD_DELETE)

    def _placed(self, pod: PodInfo) -> None:
        self._queue.remove(pod.uid)
        before = self._cluster.remove(pod.uid)
        self._cluster.place(pod)
        if before is None:
            self._wake(framework.POD_ADD)
        elif (before.labels, before.requests) != (pod.labels, pod.requests):
            self._wake(framework.POD_UPDATE)

    def _waiting(self, pod: PodInfo, old: Item | None) -> None:
        relevant = old is None or _changed(pod_info(old), pod)
        if not self._queue.update(pod, relevant=relevant) and (old is None or relevant):
            self._queue.add(pod)


def _changed(old: PodInfo, new: PodInfo) -> bool:
    """Whether anything differs that decides where the pod may go."""
    return (old.labels, old.requests, old.tolerations, old.gates, old.required_nodes, old.node_selector, old.priority) != (
        new.labels,
        new.requests,
        new.tolerations,
        new.gates,
        new.required_nodes,
        new.node_selector,
        new.priority,
    )


def plan_condition(pod: Obj, reason: str, message: str, now: str) -> Obj | None:
    """The status patch that says why the pod waits; None if it says so already."""
    before = meta.find_condition(pod, "PodScheduled") or {}
    if (before.get("status"), before.get("reason"), before.get("message")) == ("False", reason, message):
        return None
    since = before.get("lastTransitionTime") if before.get("status") == "False" else None
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastProbeTime": None,
        "lastTransitionTime": since or now,
    }
    generation = pod.get("metadata", {}).get("generation")
    if generation:
        condition["observedGeneration"] = generation
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [condition]}}
