"""NetworkPolicy on this node: reads PolicySlices and the node's own pods, writes one nftables table, which is there only while a policy
selects a pod of this node.

Promises: a change reaches the kernel with the next turn of the loop, element by element, in one transaction; a pod's isolation is in place
before its first container starts (see attach.py); a table that somebody flushed is back at once; nothing is removed when edgekube stops,
and a start replaces the rules in one transaction. Slices live in the server's memory: after a start of the server none counts as gone, and
after a start of this node nothing is written, before the slice COMPLETE tells that all are there. When nftables refuses, that is said
once, tried again with back-off, and pods that a policy selects do not start meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekube.api import meta
from edgekube.api import pods as pod_facts
from edgekube.api.catalog import POD, POLICY_SLICE
from edgekube.api.item import Item
from edgekube.api.kinds.policyslice import COMPLETE
from edgekube.api.types import Key, Obj
from edgekube.client.cache import Cache, Source
from edgekube.client.protocol import Client
from edgekube.lib.backoff import Backoff
from edgekube.lib.metrics import counter, histogram
from edgekube.netpolicy.model import NodeModel
from edgekube.netpolicy.ruleset import Frame, tables_of
from edgekube.netpolicy.slices import LocalPod, read_slice
from edgekube.netpolicy.table import REFUSED, PolicyTable, policy_table

log = logging.getLogger(__name__)

_BUCKETS = (0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0)
_SYNCS = histogram("edgekube_netpolicy_sync_duration_seconds", "Time of one change of the policy rules", buckets=_BUCKETS)
_FAILURES = counter("edgekube_netpolicy_sync_failures", "Changes of the policy rules that nftables refused")
_MIRROR = "kubernetes.io/config.mirror"  # on the API's copy of a static pod: the uid it has on its node


_STARTING = 6  # a server that is there, but has not resolved all policies yet, is waited for so many times longer than one that is away


class NotIsolated(Exception):
    """A pod that a policy selects cannot be isolated now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    node_name: str
    instance: str
    service_cidrs: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()  # addresses of the cluster's DNS

    @property
    def frame(self) -> Frame:
        return Frame(table=policy_table(self.instance), services=self.service_cidrs, dns=self.dns)


class NodePolicies:
    """See the module. `addresses(uid)` are those that the pod network has given to a pod, `pod(uid)` is the kubelet's own picture of it: of
    a static pod there may be no other."""

    name = "netpolicy"

    def __init__(
        self,
        *,
        config: PolicyConfig,
        client: Client,
        addresses: Callable[[str], Sequence[str]],
        pod: Callable[[str], Obj | None] = lambda _uid: None,
    ) -> None:
        self._addresses, self._pod = addresses, pod
        self._table = PolicyTable(config.frame, self._wake_up)
        self._model = NodeModel(config.node_name)
        self._cache = Cache(client=client, sources=(POLICY_SLICE, Source(POD, fields=f"spec.nodeName={config.node_name}")))
        self._cache.on_change(POLICY_SLICE, self._slice_changed)
        self._cache.on_change(POD, self._pod_changed)
        self._slices: set[Key] = set()  # to look at
        self._pods: set[str] = set()  # to look at
        self._known: dict[str, Key] = {}  # all that the API has of this node: uid as the node has it -> key
        self._attached: set[str] = set()
        self._doubtful: set[Key] = set()  # slices that are not there, but nobody says that all are there
        self._armed = False
        self._written = -1  # the version of the model that the state is of
        self._wake = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._pod_seen = asyncio.Event()

    async def run(self, ready: asyncio.Event) -> None:
        backoff = Backoff(base=0.5, cap=30, jitter=0.2)
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(self._cache.run(), name="netpolicy/cache")
            ready.set()  # pods wait for it one by one
            await self._cache.wait_synced()
            try:
                while True:
                    self._wake.clear()
                    try:
                        await self._turn()
                        backoff.forget("sync")
                        await self._wake.wait()
                    except REFUSED as error:
                        await self._failed(error, backoff)
            finally:
                self._table.close()
                watcher.cancel()

    async def _failed(self, error: Exception, backoff: Backoff) -> None:
        _FAILURES.inc()
        delay = backoff.delay("sync")
        if backoff.failures("sync") == 2:  # once: the first failure is tried again at once, with the whole table
            log.warning("policy rules refused", extra={"error": str(error), "retry_seconds": round(delay, 1)})
        if backoff.failures("sync") > 1:
            await asyncio.sleep(delay)

    # what changes

    def _slice_changed(self, old: Item | None, new: Item | None) -> None:
        item = new or old
        if item is not None:
            self._slices.add(item.key)
            self._wake.set()

    def _pod_changed(self, old: Item | None, new: Item | None) -> None:
        item = new or old
        if item is None:
            return
        uid = _uid(item)
        if new is not None:
            self._known[uid] = item.key
        else:
            self._known.pop(uid, None)
        self._pod_seen.set()
        self._touch(uid)

    def _touch(self, uid: str) -> None:
        if not self._model.idle:
            self._pods.add(uid)
            self._wake.set()

    def _wake_up(self) -> None:
        self._wake.set()

    # pods that come and go

    async def isolate(self, uid: str, *, timeout: float = 10.0) -> None:
        """Until the rules know the pod, which has its addresses now. Raises NotIsolated."""
        self._attached.add(uid)
        try:
            async with asyncio.timeout(timeout):
                await self._cache.wait_synced()
            async with asyncio.timeout(timeout * _STARTING):
                while not self._armed or self._find(uid) is None:
                    self._pod_seen.clear()
                    await self._pod_seen.wait()
        except TimeoutError:
            log.warning("pod starts before its policies are known", extra={"uid": uid})
            return
        if self._model.idle:
            return
        self._touch(uid)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        try:
            async with asyncio.timeout(timeout):
                await done
        except TimeoutError:
            pod = self._local(uid)
            if pod is not None and self._model.isolates(pod):
                raise NotIsolated("nftables refuses the rules of the policies that select the pod") from None

    def forget(self, uid: str) -> None:
        """The pod has lost its addresses."""
        self._attached.discard(uid)
        self._touch(uid)

    def _find(self, uid: str) -> Obj | None:
        """The pod, as new as it is known."""
        key = self._known.get(uid)
        item = self._cache.get(POD, key) if key is not None else None
        return item.decode() if item is not None and _uid(item) == uid else self._pod(uid)

    def _local(self, uid: str) -> LocalPod | None:
        addresses = tuple(self._addresses(uid))
        pod = self._find(uid) if addresses else None
        if pod is None or pod["spec"].get("hostNetwork") or pod_facts.is_terminal(pod):
            return None
        return LocalPod(meta.key_of(pod), meta.labels(pod), addresses, pod_facts.named_ports(pod))

    # the work

    async def _turn(self) -> None:
        slices, self._slices = self._slices, set()
        waiting, self._waiting = self._waiting, []
        idle = self._model.idle
        for key in slices | self._doubtful:
            self._read(key)
        if not self._armed and self._cache.get(POLICY_SLICE, COMPLETE) is not None:
            self._armed = True
            self._pod_seen.set()
        if not self._model.idle:
            self._look_at_pods(everything=idle)
        try:
            if self._armed:
                await self._sync()
        except BaseException:
            self._waiting += waiting
            raise
        for done in waiting:
            if not done.done():
                done.set_result(None)

    def _look_at_pods(self, *, everything: bool) -> None:
        pods, self._pods = self._pods, set()
        if everything:  # with no policy nobody cared for them
            pods = {*self._model.uids(), *self._known, *self._attached}
        for uid in pods:
            self._model.set_pod(uid, self._local(uid))

    def _read(self, key: Key) -> None:
        """One slice, as the cache has it."""
        item = self._cache.get(POLICY_SLICE, key)
        if key == COMPLETE:
            return
        if item is None:
            if self._cache.get(POLICY_SLICE, COMPLETE) is None:
                self._doubtful.add(key)
                return
            self._model.set_slice(key, None)
        else:
            try:
                self._model.set_slice(key, read_slice(key, item.decode().get("spec") or {}))
            except (ValueError, LookupError) as error:
                extra = {"key": str(key), "error": str(error)}
                log.warning("policy slice makes no sense; the last one that did stays in force", extra=extra)
        self._doubtful.discard(key)

    async def _sync(self) -> None:
        version = self._model.version
        if version != self._written or self._table.stale:
            with _SYNCS.time():
                await self._table.bring(tables_of(self._model.plan()))
            self._written = version


def _uid(item: Item) -> str:
    """As the node has it: a static pod has one of its own, which its copy in the API tells."""
    if _MIRROR.encode() in item.raw:
        return str((item.decode()["metadata"].get("annotations") or {}).get(_MIRROR) or item.uid)
    return item.uid
