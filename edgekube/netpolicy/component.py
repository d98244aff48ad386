"""NetworkPolicy on this node: reads PolicySlices and the node's own pods, writes one nftables table, which is there only while a policy
selects a pod of this node.

Promises: a change reaches the kernel with the next turn of the loop, element by element, in one transaction; a pod's isolation is in place
before its first container starts (see attach.py); a table that somebody flushed is back at once; nothing is removed when edgekube stops,
and a start replaces the rules in one transaction. Slices live in the server's memory: after a start of the server none counts as gone, and
after a start of this node nothing is written, before the slice COMPLETE tells that all are there. When nftables refuses, that is said
once, tried again with back-off, and pods that a policy selects do not start meanwhile.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekube.api import pods as pod_facts
from edgekube.api.catalog import POD, POLICY_SLICE
from edgekube.api.item import Item
from edgekube.api.kinds.policyslice import COMPLETE
from edgekube.api.types import Key
from edgekube.client.cache import Cache, Source
from edgekube.client.protocol import Client
from edgekube.lib.backoff import Backoff
from edgekube.lib.metrics import counter, histogram
from edgekube.lib.nft import Nft, NftError, TableWatch
from edgekube.lib.process import ProgramMissing, ProgramTimeout
from edgekube.netpolicy.model import LocalPod, NodeModel, read_slice
from edgekube.netpolicy.ruleset import FAMILY, NOTHING, Tables, difference, tables_of, whole

log = logging.getLogger(__name__)

_BUCKETS = (0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0)
_SYNCS = histogram("edgekube_netpolicy_sync_duration_seconds", "Time of one change of the policy rules", buckets=_BUCKETS)
_FAILURES = counter("edgekube_netpolicy_sync_failures", "Changes of the policy rules that nftables refused")
_MIRROR = "kubernetes.io/config.mirror"  # on the API's copy of a static pod: the uid it has on its node
_BIG = 100_000  # characters from which on a change goes through the program: the library would keep the memory
_Refused = (NftError, ProgramMissing, ProgramTimeout, OSError)


class NotIsolated(Exception):
    """A pod that a policy selects cannot be isolated now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    node_name: str
    instance: str

    @property
    def table(self) -> str:
        return policy_table(self.instance)


def policy_table(instance: str) -> str:
    return f"edgekube_{instance}_policy"


class NodePolicies:
    """See the module. `addresses(uid)` are those that the pod network has given to a pod."""

    name = "netpolicy"

    def __init__(self, *, config: PolicyConfig, client: Client, addresses: Callable[[str], Sequence[str]]) -> None:
        self._table, self._addresses = config.table, addresses
        self._model = NodeModel(config.node_name)
        self._cache = Cache(client=client, sources=(POLICY_SLICE, Source(POD, fields=f"spec.nodeName={config.node_name}")))
        self._cache.on_change(POLICY_SLICE, self._slice_changed)
        self._cache.on_change(POD, self._pod_changed)
        self._nft = Nft()
        self._watch: TableWatch | None = None
        self._slices: set[Key] = set()  # to look at
        self._pods: dict[str, Key] = {}  # to look at
        self._known: dict[str, Key] = {}  # all of this node: uid as the node has it -> key
        self._doubtful: set[Key] = set()  # slices that are not there, but nobody says that all are there
        self._armed = False
        self._whole = True
        self._state: Tables = NOTHING
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
                    except _Refused as error:
                        await self._failed(error, backoff)
            finally:
                self._unwatch()
                watcher.cancel()
                self._nft.close()

    async def _failed(self, error: Exception, backoff: Backoff) -> None:
        _FAILURES.inc()
        self._whole = True
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
        self._touch(uid, item.key)

    def _touch(self, uid: str, key: Key) -> None:
        if not self._model.idle:
            self._pods[uid] = key
            self._wake.set()

    def _flushed(self) -> None:
        log.warning("somebody changed our nftables table; writing it again", extra={"table": self._table})
        self._whole = True
        self._wake.set()

    # pods that come and go

    async def isolate(self, uid: str, *, timeout: float = 10.0) -> None:
        """Until the rules know the pod, which has its addresses now. Raises NotIsolated."""
        try:
            async with asyncio.timeout(timeout):
                await self._armed_and_known(uid)
        except TimeoutError:
            log.warning("pod starts before its policies are known", extra={"uid": uid})
            return
        if self._model.idle:
            return
        self._touch(uid, self._known[uid])
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        try:
            async with asyncio.timeout(timeout):
                await done
        except TimeoutError:
            pod = self._local(uid, self._known.get(uid))
            if pod is not None and self._model.isolates(pod):
                raise NotIsolated("nftables refuses the rules of the policies that select the pod") from None

    async def _armed_and_known(self, uid: str) -> None:
        while not self._armed or uid not in self._known:
            self._pod_seen.clear()
            await self._pod_seen.wait()

    def forget(self, uid: str) -> None:
        """The pod has lost its addresses."""
        key = self._known.get(uid)
        if key is not None:
            self._touch(uid, key)

    def _local(self, uid: str, key: Key | None) -> LocalPod | None:
        item = self._cache.get(POD, key) if key is not None else None
        addresses = tuple(self._addresses(uid))
        if item is None or not addresses or _uid(item) != uid:
            return None
        pod = item.decode()
        if pod["spec"].get("hostNetwork") or pod_facts.is_terminal(pod):
            return None
        return LocalPod(item.key, item.labels, addresses, pod_facts.named_ports(pod))

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
        pods: dict[str, Key | None] = {**self._pods}
        if everything:  # with no policy nobody cared for them
            pods = {**dict.fromkeys(self._model.uids()), **self._known}
        self._pods = {}
        for uid, key in pods.items():
            self._model.set_pod(uid, self._local(uid, key))

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
        wanted = tables_of(self._model.plan())
        if wanted.empty:
            if self._whole or not self._state.empty:
                await self._remove_table()
            return
        with _SYNCS.time():
            if self._whole:
                await self._write_whole(wanted)
            elif self._state.empty:  # we know that there is no table
                await self._apply(whole(self._table, wanted))
            elif commands := difference(self._table, self._state, wanted):
                await self._apply(commands)
        self._state = wanted

    async def _apply(self, commands: str) -> None:
        with self._watching().own_change():
            await (self._nft.apply_whole if len(commands) > _BIG else self._nft.apply)(commands)

    async def _write_whole(self, wanted: Tables) -> None:
        watch = self._watching()
        with watch.own_change():
            self._whole = False  # before: a flush meanwhile sets it again
            chains, sets = await self._nft.names(self._table, family=FAMILY)
            commands = whole(self._table, wanted, chains=chains, sets=sets)
            try:
                await self._nft.apply_whole(commands)
            except NftError:  # an older version's table may have another shape
                remove = f"add table {FAMILY} {self._table}\ndelete table {FAMILY} {self._table}\n"
                await self._nft.apply_whole(remove + whole(self._table, wanted))

    async def _remove_table(self) -> None:
        self._unwatch()
        if self._whole:
            with contextlib.suppress(ProgramMissing):  # who has no nft has no table
                await self._nft.delete_table(self._table, family=FAMILY)
        else:
            await self._nft.apply(f"add table {FAMILY} {self._table}\ndelete table {FAMILY} {self._table}\n")
        self._whole, self._state = False, NOTHING

    def _watching(self) -> TableWatch:
        if self._watch is None:
            self._watch = TableWatch(self._table, self._flushed)
            self._watch.start()
        return self._watch

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _uid(item: Item) -> str:
    """As the node has it: a static pod has one of its own, which its copy in the API tells."""
    if _MIRROR.encode() in item.raw:
        return str((item.decode()["metadata"].get("annotations") or {}).get(_MIRROR) or item.uid)
    return item.uid


async def remove_policies(instance: str) -> None:
    """For uninstall: our table, whole."""
    nft = Nft()
    try:
        await nft.delete_table(policy_table(instance), family=FAMILY)
    finally:
        nft.close()
