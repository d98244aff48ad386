"""The kubelet: registers the node, keeps one worker per pod bound to it, adopts what runs already, and clears what nobody knows.

    start:  registered? (retried) -> runtime answers? (retried; the node says so meanwhile) -> sandboxes and pods known -> workers
    change: ADDED/MODIFIED -> worker.update, DELETED -> worker.gone; exits, probes, ConfigMaps -> worker.wake

Reads its own pods, Services, its Node, the ConfigMaps and Secrets its pods name. Writes pods/status, the Node, its Lease, Events.
Cancelled, it leaves every pod as it is: a new one adopts them by the uid in the runtime's labels, no container restarts, no count moves.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence

from edgekube.api import nodeloss
from edgekube.api.catalog import NODE, POD, SERVICE
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.cache import Cache, Source
from edgekube.client.notes import Notes
from edgekube.client.protocol import Client
from edgekube.client.recorder import Recorder
from edgekube.kubelet import critical, localstorage, podspec
from edgekube.kubelet import machine as machines
from edgekube.kubelet.admission import refuse
from edgekube.kubelet.config import KubeletConfig
from edgekube.kubelet.context import Groups, NodeContext
from edgekube.kubelet.demands import Demands
from edgekube.kubelet.eviction import Pressure, Usage, eviction_failure, rank
from edgekube.kubelet.fence import Fence, Fencing
from edgekube.kubelet.happenings import PodEvents
from edgekube.kubelet.imagebook import ImageBook
from edgekube.kubelet.imagegc import ImageCollector
from edgekube.kubelet.images import Images
from edgekube.kubelet.machine import Machine
from edgekube.kubelet.node import NodeAgent
from edgekube.kubelet.nodestatus import Health
from edgekube.kubelet.objects import PodObjects
from edgekube.kubelet.orphans import remove_orphans, remove_pod_logs
from edgekube.kubelet.probes import Probes
from edgekube.kubelet.reporter import Reporter
from edgekube.kubelet.runtime.cgroups import Limits, shares_of
from edgekube.kubelet.runtime.protocol import PodNetwork, Runtime, RuntimeFailure, Sandbox
from edgekube.kubelet.server.protocol import KnownPod
from edgekube.kubelet.static.pods import StaticPods, Workers
from edgekube.kubelet.volumes.manager import Volumes
from edgekube.kubelet.volumes.tokens import Tokens
from edgekube.kubelet.worker import Failure, PodWorker
from edgekube.lib.clock import Clock
from edgekube.lib.tasks import TaskScope

log = logging.getLogger(__name__)

RUNTIME_RETRY = 0.5
RUNTIME_PATIENCE = 20.0  # after that the component counts as ready: the node itself says what is wrong
ALONE_PATIENCE = 4.0  # the same without a server: nothing may be remembered, static pods run all the same


class KubeletComponent:
    """See the module. Also the `Pods` that the node's API asks."""

    name = "kubelet"

    def __init__(
        self,
        *,
        config: KubeletConfig,
        client: Client,
        runtime: Runtime,
        network: PodNetwork,
        groups: Groups,
        clock: Clock,
        host_ips: Callable[[], Sequence[str]],
        network_ready: Callable[[], bool] = lambda: True,
        machine: Machine | None = None,
        notes: Notes | None = None,
        may_run: Callable[[Obj], str | None] = lambda _pod: None,
        fencing: Fencing | None = None,
        machine_stops: Callable[[], bool] = lambda: False,
    ) -> None:
        """`may_run` says why a pod must not be started now, None: it may; `recheck` asks it again. `fencing`: this node promises to end
        fenced pods without contact to its server (fence.py). `machine_stops`, asked when the kubelet stops: is it the machine that does?"""
        self._machine_stops = machine_stops
        self._config, self._runtime, self._clock = config, runtime, clock
        self._machine = machine or machines.read_machine(config.data_dir)
        self._recorder = Recorder(client=client, component="kubelet", clock=clock, host=config.node_name)
        mine = Source(POD, fields=f"spec.nodeName={config.node_name}")
        self._cache = Cache(client=client, sources=(mine, SERVICE, Source(NODE, fields=f"metadata.name={config.node_name}")))
        self._fence: Fence | None = None
        if fencing is not None:
            self._fence = Fence(
                promise=config.fence_seconds, parts=fencing, clock=clock, recheck=self.recheck, fenced_pods=self._fenced_pods
            )
        self._agent = NodeAgent(
            config=config, client=client, runtime=runtime, clock=clock, recorder=self._recorder, machine=self._machine,
            host_ips=host_ips, network_ready=network_ready, renewed=self._renewed,
            resized=machines.resized if machine is None else lambda found: found,
        )  # fmt: skip
        self._pressure = Pressure(config=config, clock=clock)
        self._agent.pressure = self._look
        self._agent.back = self._contact_back
        self._collector = ImageCollector(
            runtime=runtime, book=ImageBook(config.data_dir), clock=clock, thresholds=config.image_gc,
            needed=self._images_named, tell=self._tell,
        )  # fmt: skip
        self._agent.images_seen = self._collector.seen
        self._objects = PodObjects(client=client)
        self._reporter = Reporter(client=client)
        events = PodEvents(self._recorder)
        self._node = NodeContext(
            config=config,
            clock=clock,
            runtime=runtime,
            network=network,
            groups=groups,
            events=events,
            images=Images(runtime=runtime, clock=clock, events=events),
            volumes=Volumes(
                pods_dir=config.pods_dir,
                objects=self._objects,
                tokens=Tokens(client=client, clock=clock, notes=notes),
                allocatable=self._agent.allocatable,
            ),
            probes=Probes(runtime=runtime, clock=clock, events=events),
            objects=self._objects,
            reporter=self._reporter,
            services=self._services,
            host_ips=host_ips,
            allocatable=self._agent.allocatable,
            memory=self._machine.memory,
            may_run=self._fence.may_run if self._fence else may_run,
            must_end=self._fence.must_end if self._fence else lambda _pod: None,
        )
        self._static = StaticPods(
            node=self._node,
            client=client,
            cache=self._cache,
            workers=Workers(add=self._add, all=lambda: self._workers, unclaimed=lambda: self._sandboxes),
        )
        self._workers: dict[str, PodWorker] = {}
        self._demands = Demands()
        self._sharing = False
        self._sandboxes: dict[str, Sandbox] = {}  # that ran before us and have no worker yet
        self._scope = TaskScope("kubelet")
        self._adopted = asyncio.Event()
        self._shared = 0
        self._measuring = False

    async def run(self, ready: asyncio.Event) -> None:
        """Until cancelled."""
        self._scope = TaskScope("kubelet")
        self._runtime.on_exit(lambda uid, _container: self._wake(uid))
        self._node.probes.on_change(self._wake)
        self._objects.on_change(self._wake)
        self._reporter.on_settled(self._settled)
        registered = asyncio.Event()
        async with self._node.probes:  # ends last: the workers use it
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._recorder.run(), name="kubelet/events")
                    group.create_task(self._agent.run(registered), name="kubelet/node")
                    group.create_task(self._reporter.run(), name="kubelet/status")
                    group.create_task(self._cache.run(), name="kubelet/cache")
                    group.create_task(self._adopt(), name="kubelet/adopt")
                    group.create_task(self._static.run(), name="kubelet/static")
                    await registered.wait()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(ALONE_PATIENCE if self._agent.silent else RUNTIME_PATIENCE):
                            await self._adopted.wait()
                    ready.set()
                    await asyncio.Event().wait()
            finally:
                await self._scope.close()
                await self._objects.close()
                if await asyncio.to_thread(self._machine_stops):
                    await self._agent.leave()

    # start

    async def _adopt(self) -> None:
        """Nothing is decided about a pod before it is known what of it runs."""
        await asyncio.to_thread(self._prepare_host)
        while True:
            try:
                await self._runtime.containers()
                self._sandboxes = {box.pod.uid: box for box in await self._runtime.sandboxes()}
                break
            except RuntimeFailure as error:
                log.debug("runtime not there yet", extra={"error": str(error)})
                await asyncio.sleep(RUNTIME_RETRY)
        self._scope.spawn(self._static.start(), name="static")
        await self._cache.wait_synced()
        for item in self._cache.list(POD):
            self._changed(None, item)
        self._cache.on_change(POD, self._changed)
        self._cache.on_change(NODE, self._node_changed)
        self._adopted.set()
        if self._fence is not None:
            self._fence.adopted()
            self._scope.spawn(self._fence.run(), name="fence")
        self._agent.kick()
        log.info("pods adopted", extra={"pods": len(self._workers), "unclaimed": len(self._sandboxes)})
        self._scope.spawn(self._tidy(), name="tidy")

    async def _tidy(self) -> None:
        """What belongs to no pod goes, once the API itself has said which pods there are: what is remembered may lack the newest."""
        await self._cache.wait_fresh()
        self._scope.spawn(remove_orphans(self._node, self._workers), name="orphans")
        # Only once the network is up: then nothing can be attached between counting the pods and detaching the others.
        await self._agent.network_up.wait()
        await self._node.network.retain(list(self._workers))

    def _node_changed(self, _old: Item | None, new: Item | None) -> None:
        if new is None:
            self._agent.gone()
        elif new.revision:  # else remembered
            self._agent.seen(new.decode())
            self._static.mirrors.kick()

    def _renewed(self, sent: float, lease: Obj) -> None:
        if self._fence is not None:
            self._fence.renewed(sent, lease)

    def _fenced_pods(self) -> Sequence[Obj]:
        return [worker.pod for worker in self._workers.values() if nodeloss.fenced(worker.pod) and not worker.over]

    def _contact_back(self) -> None:
        """What waits for the API does not wait for its back-off."""
        self._reporter.retry()
        self._static.mirrors.kick()

    def recheck(self) -> None:
        """What `may_run` and `must_end` answer may have changed."""
        for worker in self._workers.values():
            worker.wake()

    def images_changed(self) -> None:
        """Pods may have waited for what is there now."""
        for worker in self._workers.values():
            status = self._node.reporter.current(worker.uid)
            if status is not None and podspec.waits_for_image(status):
                worker.image_came()

    def _prepare_host(self) -> None:
        self._config.pods_dir.mkdir(parents=True, exist_ok=True)
        self._node.groups.ensure_root(Limits(shares=shares_of(self._machine.cpus * 1000)))

    def addresses_changed(self) -> None:
        """The machine has another address: the Node and every pod's status say so at once."""
        self._agent.kick()
        for worker in self._workers.values():
            worker.wake()

    # pods

    def _changed(self, old: Item | None, new: Item | None) -> None:
        if any(item is not None and self._static.shows(item) for item in (old, new)):
            return
        if old is not None and (new is None or new.uid != old.uid) and (worker := self._workers.get(old.uid)) is not None:
            worker.gone()
        if new is None:
            return
        worker = self._workers.get(new.uid)
        if worker is not None:
            worker.update(new.decode())
        else:
            self._add(new.decode())

    def _add(self, pod: Obj) -> None:
        """With what runs of it already, if the runtime had it at the start."""
        uid = pod["metadata"]["uid"]
        sandbox = self._sandboxes.pop(uid, None)
        worker = PodWorker(node=self._node, pod=pod, sandbox=sandbox)
        if sandbox is None and not podspec.is_finished(pod) and not podspec.is_deleting(pod):
            self._refuse_or_take(worker, pod)
        self._workers[uid] = worker
        self._share_soon()
        self._scope.spawn(self._run_worker(worker), name=f"pod/{podspec.key(pod)}")

    def _refuse_or_take(self, worker: PodWorker, pod: Obj) -> None:
        node = self._cache.get(NODE, Key("", self._config.node_name))
        known = self._agent.node if node is None else node.decode()
        if known is None or not (known.get("status") or {}).get("allocatable"):
            return
        others = [self._demands.of(other.pod) for other in self._workers.values() if not other.over and not self._finished(other)]
        refusal = refuse(pod, known, others, memory_pressure=self._pressure.must_evict)
        if refusal is not None:
            reason, message = refusal
            self._node.events.pod(pod, reason, message, warning=True)
            worker.fail(Failure(reason, f"Pod was rejected: {message}", refused=True))

    def _finished(self, worker: PodWorker) -> bool:
        """By the newest status; without merging it, since this is asked of every pod for every new one."""
        status = self._node.reporter.current(worker.uid)
        return podspec.is_finished(worker.pod if status is None else {"status": status})

    async def _run_worker(self, worker: PodWorker) -> None:
        await worker.run()
        self._workers.pop(worker.uid, None)
        self._static.sync()
        self._demands.drop(worker.uid)
        self._share_soon()
        if self._fence is not None and nodeloss.fenced(worker.pod):
            self._fence.pods_changed()
        await asyncio.to_thread(remove_pod_logs, self._config.pod_logs, worker.uid)

    def _wake(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.wake()

    def _settled(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.settled()

    def _share_soon(self) -> None:
        """Once for all pods that come or go in this turn of the loop."""
        if not self._sharing:
            self._sharing = True
            asyncio.get_running_loop().call_soon(self._share_out)

    def _share_out(self) -> None:
        """CPU of the Burstable class: what its pods ask for together."""
        self._sharing = False
        milli = sum(self._demands.of(worker.pod).burstable for worker in self._workers.values() if not worker.over)
        if milli != self._shared:
            self._shared = milli
            self._node.groups.share_out(milli)
        critical.note(self._config.run_dir, [worker.pod for worker in self._workers.values() if not worker.over])

    def _services(self, namespace: str) -> Iterable[Obj]:
        for item in self._cache.list(SERVICE, namespace):
            yield item.decode()
        if namespace != "default" and (found := self._cache.get(SERVICE, Key("default", "kubernetes"))) is not None:
            yield found.decode()

    # pressure

    def _look(self) -> Health:
        health = self._pressure.look()
        if self._pressure.must_evict and self._adopted.is_set():
            self._scope.spawn(self._evict_one(), name="evict")
        if self._adopted.is_set() and self._collector.due(self._pressure.disk, pressure=self._pressure.disk_short):
            self._scope.spawn(self._collect_images(), name="image-gc")
        if not self._measuring and any(any(localstorage.limits(worker.pod)) for worker in self._workers.values()):
            self._measuring = True
            self._scope.spawn(self._evict_oversized(), name="evict-oversized")
        return health

    async def _collect_images(self) -> None:
        if await self._collector.collect(self._pressure.disk, pressure=self._pressure.disk_short):
            self._agent.kick()

    def _images_named(self) -> set[str]:
        """By the pods that are to run here, whether their containers exist or not."""
        return {name for worker in self._workers.values() if not worker.over for name in podspec.images(worker.pod)}

    def _tell(self, reason: str, message: str) -> None:
        self._node.events.node(self.node_reference, reason, message, warning=True)

    @property
    def node_reference(self) -> Obj:
        """As Events of a kubelet name its Node."""
        return {"metadata": {"name": self._config.node_name, "uid": self._config.node_name}}

    async def _evict_oversized(self) -> None:
        """Pods whose volumes have outgrown their limits."""
        try:
            for uid, worker in list(self._workers.items()):
                if worker.ending or not any(localstorage.limits(worker.pod)):
                    continue
                failure = await asyncio.to_thread(localstorage.exceeded, worker.pod, self._config.pods_dir / uid)
                if failure is not None:
                    self._evict(worker, failure)
        finally:
            self._measuring = False

    def _evict(self, worker: PodWorker, failure: Failure) -> None:
        self._node.events.pod(worker.pod, "Evicted", failure.message, warning=True)
        log.warning("pod evicted", extra={"pod": str(podspec.key(worker.pod)), "why": failure.message})
        worker.fail(failure)

    async def _evict_one(self) -> None:
        """The one pod whose end helps most; the next beat looks again."""
        usages: list[Usage] = []
        used: dict[str, int] = {}
        for info in await self._runtime.containers():
            if info.state == "running" and (stats := await self._runtime.stats(info.id)) is not None:
                used[info.pod.uid] = used.get(info.pod.uid, 0) + stats.memory_working_set
        for uid, memory in used.items():
            worker = self._workers.get(uid)
            if worker is not None and worker.ending:
                return  # one is on its way out: see what it gives first
            if worker is not None:
                usages.append(Usage(worker.pod, memory))
        for victim in rank(usages)[:1]:
            failure = eviction_failure(victim, threshold=self._config.eviction_memory, available=self._pressure.available)
            self._evict(self._workers[victim.pod["metadata"]["uid"]], failure)

    # Pods, for the node's API

    def pods(self) -> Sequence[KnownPod]:
        return [self._known(worker) for worker in self._workers.values()]

    def pod(self, uid: str) -> Obj | None:
        """The pod as the kubelet has it; not to be changed."""
        worker = self._workers.get(uid)
        return None if worker is None else worker.pod

    def find(self, namespace: str, name: str, uid: str = "") -> KnownPod | None:
        for worker in self._workers.values():
            metadata = worker.pod["metadata"]
            if metadata["name"] == name and metadata["namespace"] == namespace and uid in ("", worker.uid):
                return self._known(worker)
        return None

    def addresses(self, namespace: str, name: str) -> Sequence[str]:
        """What this node's network gave to a pod that runs here; nothing for any other."""
        for worker in self._workers.values():
            metadata = worker.pod["metadata"]
            if metadata["name"] == name and metadata["namespace"] == namespace:
                return worker.addresses
        return ()

    def _known(self, worker: PodWorker) -> KnownPod:
        return KnownPod(podspec.ref(worker.pod), worker.view(), worker.sandbox)
