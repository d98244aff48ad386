"""Nodes that are not heard of any more: they say so, their pods count as not ready, and their taints follow. Reads nodes, leases and pods;
writes nodes, nodes/status, pods/status and Events.

    Lease renewed or status reported -> heard of, at the time *we* saw it, on our monotonic clock: no machine's wall clock matters
    not heard of for the grace period -> Ready Unknown, pods not ready, taint unreachable:NoExecute (what pods do then: tainteviction.py)
    not a single node ready -> it is us: those taints go, nobody is evicted; the grace of all starts anew when one is back

Upstream's node lifecycle controller, but woken by deadlines instead of a look every five seconds. A server that was away, or whose loop
stood still, has heard of nobody because of itself: the grace of every node starts anew then. NoSchedule taints: nodetaints.py.
"""

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgekube.api.catalog import LEASE, NODE, POD
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.derived import Derived
from edgekube.client.protocol import PatchType
from edgekube.client.recorder import NORMAL, WARNING, reference
from edgekube.controllers import nodehealth
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.nodehealth import Zone, node_facts
from edgekube.controllers.nodetaints import plan_taints
from edgekube.errors import NotFound
from edgekube.lib.clock import rfc3339

log = logging.getLogger(__name__)

LEASES = "kube-node-lease"
_BEATS = 10  # looks at ourselves within the grace period; being late by two of them means that we were the ones away
_SHORTEST_ABSENCE = 2.0


@dataclass(frozen=True, slots=True)
class Beat:
    """The key that comes again and again: was the loop running all the time?"""


class NodeLifecycleController(Base):
    """See the module."""

    name = "node-controller"
    primary = NODE

    def __init__(self, tools: Tools, *, grace: float, startup_grace: float) -> None:
        super().__init__(tools)
        self._grace, self._startup_grace = grace, max(grace, startup_grace)
        self._facts = Derived(self.cache, NODE, node_facts_of)
        self._heard: dict[str, float] = {}
        self._reported: dict[str, object] = {}
        self._known: dict[str, str] = {}  # name -> uid
        self._ready: dict[str, str] = {}  # Ready as it was when we last looked
        self._together: Mapping[str, str] = {}
        self._zones: Mapping[str, Zone] = {}
        self._disrupted = False
        self._next_taint: dict[str, float] = {}
        self._beat_due: float | None = None
        self._asleep = self.clock.boottime() - self.clock.monotonic()
        self.cache.add_field_index(POD, "spec.nodeName")

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(LEASE, self._of_lease), Maps(POD, self._of_pod), Maps(NODE, self._of_others))

    def _of_lease(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """A renewal is only noted; it wakes a node that counts as lost, and the beat when there is none yet."""
        if new is None or new.namespace != LEASES:
            return
        if old is None or renewed_at(old) != renewed_at(new):
            self._heard[new.name] = self.clock.monotonic()
        if self._beat_due is None:
            self._beat_due = float("inf")
            yield Beat()

    def _of_others(self, _old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """How all nodes are together may decide about each: when one comes, goes, or changes, all are looked at."""
        items = self.cache.list(NODE)
        ready = {item.name: self._facts(item).ready for item in items}
        if ready != self._together:
            self._together = ready
            yield from (item.key for item in items)

    def _of_pod(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """A pod that came to a node which is not ready."""
        node = "" if new is None else new.fields.get("spec.nodeName", "")
        if node and self._ready.get(node, "True") != "True" and (old is None or old.fields.get("spec.nodeName", "") != node):
            yield Key("", node)

    async def reconcile(self, key: Key | Beat) -> Result:
        if isinstance(key, Beat):
            return self._look_at_ourselves()
        item = self.cache.get(NODE, key)
        if item is None:
            self._forget(key.name)
            return DONE
        if item.deleting:
            return DONE
        if self._known.get(item.name) != item.uid:
            self._known[item.name] = item.uid
            self.events.event(reference_of(item), NORMAL, "RegisteredNode", f"Registered Node {item.name} in Controller")
        node, left = item.decode(), self._left(item)
        if left <= 0:
            node = await self._mark_lost(node)
        await self._follow(item, node)
        again = await self._taint(node)
        waits = [seconds for seconds in (left if left > 0 else None, again) if seconds is not None]
        return Result(after=min(waits)) if waits else DONE

    # when was it heard of

    def _left(self, item: Item) -> float:
        """Seconds until it counts as lost."""
        self._were_we_away()
        now, facts = self.clock.monotonic(), self._facts(item)
        if self._reported.get(item.name, self) != facts.reported:
            self._reported[item.name] = facts.reported
            self._heard[item.name] = now
        grace = self._grace if facts.ready else self._startup_grace
        return self._heard.setdefault(item.name, now) + grace - now

    def _look_at_ourselves(self) -> Result:
        self._were_we_away()
        every = self._grace / _BEATS
        self._beat_due = self.clock.monotonic() + every
        return Result(after=every)

    def _were_we_away(self) -> None:
        """The loop stood still, or the machine slept: nobody could be heard of meanwhile."""
        now, asleep = self.clock.monotonic(), self.clock.boottime() - self.clock.monotonic()
        late = 0.0 if self._beat_due is None else now - self._beat_due
        limit = max(_SHORTEST_ABSENCE, 2 * self._grace / _BEATS)
        if late > limit or asleep - self._asleep > limit:
            away = round(max(late, asleep - self._asleep), 1)
            log.warning("this process stood still; the grace of all nodes starts anew", extra={"seconds": away})
            self._hear_of_all()
            self._beat_due = now
        self._asleep = asleep

    def _hear_of_all(self) -> None:
        now = self.clock.monotonic()
        self._heard = dict.fromkeys(self._heard, now)

    def _forget(self, name: str) -> None:
        uid = self._known.pop(name, None)
        if uid is not None:
            ref = {"kind": "Node", "apiVersion": "v1", "name": name, "uid": uid}
            self.events.event(ref, NORMAL, "RemovingNode", f"Removing Node {name} from Controller")
        for memory in (self._heard, self._reported, self._ready):
            memory.pop(name, None)

    # what follows

    async def _mark_lost(self, node: Obj) -> Obj:
        conditions = nodehealth.plan_unknown(node, rfc3339(self.clock.now()))
        if conditions is None:
            return node
        log.warning("node not heard of", extra={"node": node["metadata"]["name"], "seconds": self._grace})
        status = {**(node.get("status") or {}), "conditions": conditions}
        found = await self.client.update(NODE, {**node, "status": status}, subresource="status")
        self._reported[node["metadata"]["name"]] = (nodehealth.ready_of(found) or {}).get("lastHeartbeatTime")
        return found

    async def _follow(self, item: Item, node: Obj) -> None:
        """Pods of a node that is not ready are not ready, those that come later too; it is told once."""
        found = nodehealth.ready_of(node)
        status = "" if found is None else found["status"]
        before = self._ready.get(item.name)
        if found is not None and status != "True":
            if before == "True":
                ref = reference_of(item)
                self.events.event(ref, NORMAL, "NodeNotReady", f"Node {item.name} status is now: NodeNotReady")
            await self._pods_not_ready(item.name)
        self._ready[item.name] = status

    async def _pods_not_ready(self, name: str) -> None:
        for item in self.cache.by_index(POD, "spec.nodeName", name):
            pod = item.decode()
            patch = nodehealth.plan_pod_not_ready(pod, rfc3339(self.clock.now()))
            if patch is None:
                continue
            body = {"metadata": {"uid": item.uid}, "status": patch}
            try:
                await self.client.patch(POD, item.name, item.namespace, body, patch_type=PatchType.STRATEGIC, subresource="status")
            except NotFound:
                continue
            self.events.event(reference(pod, POD), WARNING, "NodeNotReady", "Node is not ready")

    async def _taint(self, node: Obj) -> float | None:
        """All taints of ours in one write. Returns when to try again, if it is not the node's turn yet."""
        now, name = rfc3339(self.clock.now()), node["metadata"]["name"]
        self._judge_zones()
        turn = 0.0 if nodehealth.lost_taint(node) else self._turn(name)
        fresh = nodehealth.plan_no_execute(node, now, allowed=turn == 0.0)
        if self._disrupted and nodehealth.lost_taint(node):
            fresh = [taint for taint in node["spec"]["taints"] if taint["effect"] != "NoExecute" or taint["key"] not in nodehealth.LOST]
        tainted = node if fresh is None else {**node, "spec": {**(node.get("spec") or {}), "taints": fresh}}
        both = plan_taints(tainted, now)
        taints = both if both is not None else fresh
        if taints is None:
            return None if turn == 0.0 or turn == float("inf") or self._ready.get(name) in ("True", "") else turn
        patch = {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}, "spec": {"taints": list(taints) or None}}
        await self.client.patch(NODE, name, "", patch)
        if fresh is not None and nodehealth.lost_taint(tainted) and not nodehealth.lost_taint(node):
            self._took_turn(name)
        return None

    # all nodes together

    def _judge_zones(self) -> None:
        facts = [self._facts(item) for item in self.cache.list(NODE)]
        self._zones = nodehealth.zone_states(facts)
        full = bool(self._zones) and all(state is Zone.FULL for state in self._zones.values())
        if full != self._disrupted:
            self._disrupted = full
            if full:
                log.warning("no node is ready: no pod is evicted until one is")
            else:
                log.info("nodes are ready again: the grace of all starts anew")
                self._hear_of_all()

    def _turn(self, name: str) -> float:
        """Seconds until the node may get its taint; infinite while its zone is too sick."""
        item = self.cache.get(NODE, Key("", name))
        if item is None or self._disrupted:
            return float("inf")
        zone = self._facts(item).zone
        size = sum(self._facts(other).zone == zone for other in self.cache.list(NODE))
        if nodehealth.pause(self._zones.get(zone, Zone.NORMAL), size) is None:
            return float("inf")
        return max(0.0, self._next_taint.get(zone, 0.0) - self.clock.monotonic())

    def _took_turn(self, name: str) -> None:
        item = self.cache.get(NODE, Key("", name))
        if item is not None:
            zone = self._facts(item).zone
            size = sum(self._facts(other).zone == zone for other in self.cache.list(NODE))
            self._next_taint[zone] = self.clock.monotonic() + (nodehealth.pause(self._zones.get(zone, Zone.NORMAL), size) or 0.0)


def node_facts_of(item: Item) -> nodehealth.NodeFacts:
    return node_facts(item.decode())


def renewed_at(lease: Item) -> str:
    """The Lease's own word for its last renewal."""
    return str((lease.decode().get("spec") or {}).get("renewTime", ""))


def reference_of(node: Item) -> Obj:
    return {"kind": "Node", "apiVersion": "v1", "name": node.name, "uid": node.uid}
