"""This machine in the API: its Node, kept true, and its Lease, kept fresh.

Reads the machine and the runtime; writes the Node, its status (at change, at least every 5 minutes) and the Lease in kube-node-lease (every
10 s). One timer drives all of it. While the API is away it tries again at each beat and says so once.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from edgekube.api.catalog import LEASE, NODE
from edgekube.api.types import Obj
from edgekube.client.protocol import Client
from edgekube.client.recorder import NORMAL, Recorder
from edgekube.errors import AlreadyExists, ApiError, Conflict, NotFound, ServiceUnavailable, Timeout
from edgekube.kubelet import machine as machines
from edgekube.kubelet import nodestatus
from edgekube.kubelet.config import KubeletConfig
from edgekube.kubelet.machine import Machine
from edgekube.kubelet.nodestatus import Health
from edgekube.kubelet.runtime.protocol import ImageInfo, Runtime, RuntimeDown, RuntimeFailure
from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import Clock, rfc3339_micro

log = logging.getLogger(__name__)

LEASES = "kube-node-lease"
STARTING_SECONDS = 0.25
RETRY_SECONDS = 1.0
LEAVING_SECONDS = 2.0


class NodeAgent:
    """See the module."""

    def __init__(
        self,
        *,
        config: KubeletConfig,
        client: Client,
        runtime: Runtime,
        clock: Clock,
        recorder: Recorder,
        machine: Machine,
        host_ips: Callable[[], Sequence[str]],
        network_ready: Callable[[], bool],
        renewed: Callable[[float, Obj], None] = lambda _sent, _lease: None,
        resized: Callable[[Machine], Machine] = lambda machine: machine,
    ) -> None:
        """`renewed(boot time of sending, the Lease)` is called for each renewal that was answered; `resized` looks at the machine again."""
        self._resized = resized
        self._config, self._client, self._runtime, self._clock = config, client, runtime, clock
        self._recorder, self._machine, self._host_ips, self._network_ready = recorder, machine, host_ips, network_ready
        self._renewed = renewed
        self._node: Obj | None = None
        self._lease: Obj | None = None
        self._health = Health()
        self._healthy: bool | None = None  # as told last
        self._told: object = None  # what the last status said, heartbeats aside
        self._told_at = float("-inf")
        self._runtime_version = ("podman", "unknown")
        self._silent = False
        self._retry = Backoff(base=RETRY_SECONDS, cap=config.lease_renew_seconds)
        self._kick = asyncio.Event()
        self.network_up = asyncio.Event()  # set once the pod network has been ready
        self.back: Callable[[], None] = lambda: None  # called when the API is there again after a silence
        self.pressure: Callable[[], Health] = Health  # set by the eviction manager
        self.images_seen: Callable[[Sequence[ImageInfo]], None] = lambda _images: None  # called with each list of them
        self._disk = machines.disk(config.data_dir)

    @property
    def node(self) -> Obj | None:
        """The Node as last seen."""
        return self._node

    @property
    def silent(self) -> bool:
        """The last beat did not reach the API."""
        return self._silent

    def allocatable(self) -> dict[str, str]:
        return nodestatus.allocatable(self._config, self._machine, self._disk)

    def kick(self) -> None:
        """Something changed: do not wait for the next beat."""
        self._kick.set()

    def seen(self, node: Obj) -> None:
        """The Node as the API has it now: if others took us for dead, say at once that we are not."""
        if self._node is None or int(node["metadata"]["resourceVersion"]) <= int(self._node["metadata"]["resourceVersion"]):
            return  # we have said more since
        if self._healthy is not None and nodestatus.is_ready(node) != self._healthy:
            self._told_at = float("-inf")
            self.kick()

    async def leave(self) -> None:
        """The machine goes down: nobody should count on this node from now on. Best effort, a few seconds at most."""
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(LEAVING_SECONDS):
                await self._write_status(Health(troubles=("node is shutting down",)))

    def gone(self) -> None:
        """Somebody deleted the Node: register again."""
        self._node, self._told = None, None
        self.kick()

    async def run(self, registered: asyncio.Event) -> None:
        """Until cancelled; `registered` is set once the Node exists and has its first status, or nobody is there to register with."""
        while True:
            self._kick.clear()
            try:
                await self._beat()
                registered.set()
                self._retry.forget("")
                if self._silent:
                    self._silent = False
                    self.back()
            except ApiError as error:
                self._failed(error)
                if isinstance(error, ServiceUnavailable | Timeout):
                    registered.set()
            delay = self._config.lease_renew_seconds
            if self._silent:
                delay = min(delay, self._retry.delay(""))
            elif not registered.is_set() or not self._network_ready():
                delay = STARTING_SECONDS
            try:
                async with asyncio.timeout(delay):
                    await self._kick.wait()
            except TimeoutError:
                continue

    def _failed(self, error: ApiError) -> None:
        """What the API has of us grows old: the next beat that gets through says everything."""
        self._told_at = float("-inf")
        if not self._silent:
            level = logging.DEBUG if isinstance(error, ServiceUnavailable | Timeout) else logging.WARNING  # who connects says it already
            log.log(level, "node status not written", extra={"node": self._config.node_name, "error": error.message})
        self._silent = True

    async def _beat(self) -> None:
        health = await self._check()
        if self._node is None:
            self._node = await self._register()
        due = self._clock.monotonic() - self._told_at >= self._config.node_status_seconds
        self._machine = self._resized(self._machine)
        said = (health, tuple(self._host_ips()), self._runtime_version, self._machine)
        if due or said != self._told:
            await self._write_status(health)
            self._told, self._told_at = said, self._clock.monotonic()
        await self._renew()

    async def _check(self) -> Health:
        troubles: list[str] = []
        answers = True
        try:
            self._runtime_version = await self._runtime.version()
        except RuntimeDown as error:
            answers = False
            troubles.append(f"container runtime is down: {error}")
        if self._network_ready():
            self.network_up.set()
        else:
            troubles.append(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:the node has no pod range yet"
            )
        found = self.pressure()
        return Health(troubles=tuple(troubles), memory=found.memory, disk=found.disk, pids=found.pids, runtime=answers)

    # the Node

    async def _register(self) -> Obj:
        wanted = nodestatus.new_node(self._config, self._machine)
        wanted["status"] = await self._status({}, Health(troubles=("the node is starting",)))
        try:
            node = await self._client.create(NODE, wanted)
        except AlreadyExists:
            node = await self._client.get(NODE, self._config.node_name)
            node = await self._relabel(node)
        self._event("Starting", "Starting kubelet.")
        log.info("node registered", extra={"node": self._config.node_name})
        return node

    async def _relabel(self, node: Obj) -> Obj:
        """What we know better than an older Node; what people set stays."""
        about, wanted = node["metadata"], nodestatus.new_node(self._config, self._machine)["metadata"]
        patch = {name: wanted[name] for name in ("labels", "annotations") if not _covers(about.get(name) or {}, wanted.get(name) or {})}
        return node if not patch else await self._client.patch(NODE, self._config.node_name, "", {"metadata": patch})

    async def _write_status(self, health: Health) -> None:
        """Against the newest Node; once more if others were quicker."""
        before = self._health
        for _ in range(5):
            node = self._node or await self._client.get(NODE, self._config.node_name)
            status = await self._status(node.get("status") or {}, health)
            try:
                self._node = await self._client.update(NODE, {**node, "status": status}, subresource="status")
                self._healthy = not health.troubles
                break
            except Conflict:
                self._node = await self._client.get(NODE, self._config.node_name)
            except NotFound:
                self._node = await self._register()
        self._health = health
        if bool(before.troubles) != bool(health.troubles) or self._told is None:
            reason = "NodeNotReady" if health.troubles else "NodeReady"
            self._event(reason, f"Node {self._config.node_name} status is now: {reason}")

    async def _status(self, old: Obj, health: Health) -> Obj:
        self._disk = machines.disk(self._config.data_dir)
        images = old.get("images") or []
        if health.runtime:  # one that hangs would keep the node from saying so
            with contextlib.suppress(RuntimeFailure):
                found = await self._runtime.images()
                self.images_seen(found)
                images = nodestatus.images(found)
        return {
            **old,
            "capacity": nodestatus.capacity(self._config, self._machine, self._disk),
            "allocatable": self.allocatable(),
            "conditions": nodestatus.conditions(old.get("conditions") or (), health, self._clock.now()),
            "addresses": nodestatus.addresses(self._config, self._host_ips()),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._config.kubelet_port}},
            "nodeInfo": nodestatus.node_info(self._machine, self._runtime_version),
            "images": images,
        }

    def _event(self, reason: str, message: str) -> None:
        ref = {"kind": "Node", "name": self._config.node_name, "uid": self._config.node_name, "apiVersion": "v1"}
        self._recorder.event(ref, NORMAL, reason, message)

    # the Lease

    async def _renew(self) -> None:
        spec = {
            "holderIdentity": self._config.node_name,
            "leaseDurationSeconds": self._config.lease_seconds,
            "renewTime": rfc3339_micro(self._clock.now()),
        }
        sent = self._clock.boottime()
        try:
            if self._lease is None:
                self._lease = await self._client.get(LEASE, self._config.node_name, LEASES)
            self._lease = await self._client.update(LEASE, {**self._lease, "spec": spec})
        except NotFound:
            self._lease = None
            self._lease = await self._client.create(LEASE, self._new_lease(spec))
        except Conflict:  # somebody else wrote to it: see what it says now
            self._lease = None
            lease = await self._client.get(LEASE, self._config.node_name, LEASES)
            self._lease = await self._client.update(LEASE, {**lease, "spec": spec})
        self._renewed(sent, self._lease)

    def _new_lease(self, spec: Obj) -> Obj:
        metadata: Obj = {"name": self._config.node_name, "namespace": LEASES}
        if self._node is not None:
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._config.node_name, "uid": self._node["metadata"]["uid"]}
            metadata["ownerReferences"] = [owner]
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _covers(known: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(known.get(name) == value for name, value in wanted.items())
