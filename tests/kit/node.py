"""A kubelet at work against a live API server in this process, on the fake runtime or a real one.

async with live_node() as node:
    await node.apply(pod("web")); await node.phase("web", "Running"); node.runtime.exit(...)
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from edgekube.api.catalog import EVENT, POD, SERVICE_ACCOUNT
from edgekube.apiserver.identity import User
from edgekube.apiserver.local import LocalClient
from edgekube.errors import AlreadyExists, NotFound
from edgekube.kubelet.component import KubeletComponent
from edgekube.kubelet.config import KubeletConfig
from edgekube.lib.clock import SystemClock
from tests.kit.apiserver import live_server
from tests.kit.fake_runtime import FakeRuntime

NODE_NAME = "node-1"


class FakeNetwork:
    """Addresses without a network."""

    def __init__(self):
        self.given: dict[str, str] = {}
        self.detached: list[str] = []
        self.retained: list[str] = []

    async def attach(self, uid, netns, wanted=()):
        free = [address for address in wanted if address not in self.given.values()]
        self.given.setdefault(uid, next(iter(free), f"10.42.0.{len(self.given) + 2}"))
        return (self.given[uid],)

    async def detach(self, uid):
        self.detached.append(uid)
        self.given.pop(uid, None)

    def addresses(self, uid):
        return (self.given[uid],) if uid in self.given else ()

    async def retain(self, uids):
        self.retained = list(uids)


class FakeGroups:
    """Pod cgroups without a kernel."""

    def __init__(self):
        self.made: dict[str, str] = {}

    def ensure_root(self, limits):
        self.root = limits

    def share_out(self, burstable_milli):
        self.burstable = burstable_milli

    def ensure_pod(self, uid, qos, limits):
        return self.made.setdefault(uid, f"/kubepods/{qos.lower()}/pod{uid}")

    def pods(self):
        return dict(self.made)

    def remove_pod(self, uid):
        self.made.pop(uid, None)
        return True


def pod(name="web", *, command=("sleep", "1000"), namespace="default", node=NODE_NAME, containers=None, **spec):
    """A pod bound to the node; `spec` goes in as it is."""
    own = {"name": "main", "image": "busybox:test", "command": list(command)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 2,
            "automountServiceAccountToken": False,
            "containers": containers or [own],
            **spec,
        },
    }


class LiveNode:
    """The kubelet, what it stands on, and short ways to wait for what it does."""

    def __init__(self, live, config, runtime, network, groups):
        self.live, self.config, self.runtime, self.network, self.groups = live, config, runtime, network, groups
        self.client = live.client
        self.kubelet = self._task = None

    def local(self):
        """The node's own client, in process."""
        return LocalClient(self.live.server, User(f"system:node:{NODE_NAME}", ("system:nodes", "system:authenticated")))

    async def start(self, client=None, **options):
        """A new kubelet process, so to speak."""
        own = client or self.local()
        self.kubelet = KubeletComponent(
            config=self.config, client=own, runtime=self.runtime, network=self.network, groups=self.groups,
            clock=SystemClock(), host_ips=lambda: ("192.0.2.10",), **options,
        )  # fmt: skip
        ready = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self.kubelet.run(ready))
        waiting = asyncio.get_running_loop().create_task(ready.wait())
        await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._task.done():
            self._task.result()

    async def stop(self):
        """The kubelet stops; what it manages stays."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def apply(self, obj, kind=POD):
        return await self.client.create(kind, obj)

    async def get(self, name, namespace="default"):
        return await self.client.get(POD, name, namespace)

    async def until(self, name, condition: Callable[[dict], object], *, namespace="default", seconds=10.0):
        """The pod, once `condition(pod)` is true."""
        found = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.get(name, namespace)
                    if condition(found):
                        return found
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"pod {name} never got there; last status: {found and found.get('status')}") from None

    async def phase(self, name, phase, **options):
        return await self.until(name, lambda p: p.get("status", {}).get("phase") == phase, **options)

    async def ready(self, name, value="True", **options):
        return await self.until(name, lambda p: condition(p, "Ready").get("status") == value, **options)

    async def absent(self, name, namespace="default", seconds=10.0):
        async with asyncio.timeout(seconds):
            while True:
                try:
                    await self.get(name, namespace)
                except NotFound:
                    return
                await asyncio.sleep(0.01)

    async def events(self, name):
        """(reason, message) of the pod's Events so far."""
        await self.kubelet._recorder.flush()
        found = [item.decode() for item in (await self.client.list(EVENT, "default")).items]
        return [(one["reason"], one["message"]) for one in found if one["involvedObject"]["name"] == name]

    async def event(self, name, reason, seconds=10.0):
        """The message of the first Event with this reason."""
        async with asyncio.timeout(seconds):
            while True:
                for found, message in await self.events(name):
                    if found == reason:
                        return message
                await asyncio.sleep(0.02)


def condition(pod, kind):
    return next((c for c in pod.get("status", {}).get("conditions", ()) if c["type"] == kind), {})


def container(pod, name="main"):
    status = pod.get("status", {})
    entries = [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]
    return next((c for c in entries if c["name"] == name), {})


@contextlib.asynccontextmanager
async def live_node(folder: Path, *, runtime=None, network=None, groups=None, config=None, start=True) -> AsyncIterator[LiveNode]:
    """Everything up; at the end the kubelet stops."""
    config = config or KubeletConfig(
        node_name=NODE_NAME, data_dir=folder / "data", run_dir=folder / "run", pod_logs=folder / "logs", eviction_memory=1 << 20,
        eviction_disk_fraction=0.0, eviction_inodes_fraction=0.0,
    )  # fmt: skip
    async with live_server() as live:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}
        with contextlib.suppress(AlreadyExists):
            await live.client.create(SERVICE_ACCOUNT, account)
        node = LiveNode(live, config, runtime or FakeRuntime(), network or FakeNetwork(), groups or FakeGroups())
        if start:
            await node.start()
        try:
            yield node
        finally:
            if node._task is not None:
                await node.stop()
