"""A control plane in this process: API server over a store in memory, all controllers, and a stand-in for nodes that runs pods at once.

async with control_plane() as plane:
    await plane.client.create(DEPLOYMENT, deployment("web"))
    await plane.until(lambda: len(plane.pods()) == 3)
"""

import asyncio
import contextlib
import itertools

from edgekube.api.catalog import EVENT, NAMESPACE, POD, SERVICE_ACCOUNT
from edgekube.api.types import Key
from edgekube.apiserver.admission import plugins
from edgekube.apiserver.allocators import ServiceValues
from edgekube.apiserver.authn import AUTHENTICATED, service_account_user
from edgekube.apiserver.authorizers import node_and_rbac
from edgekube.apiserver.bootstrap.reconcile import BootstrapConfig, ensure_bootstrap
from edgekube.apiserver.identity import Decision, User
from edgekube.apiserver.local import LocalClient
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.rbac import RbacAuthorizer
from edgekube.apiserver.registry import tagger
from edgekube.apiserver.server import Server
from edgekube.apiserver.subresources.token import TokenSubresource
from edgekube.client.faulty import FaultyClient
from edgekube.client.protocol import PatchType
from edgekube.controllers.base import Settings
from edgekube.controllers.component import ControllerManager
from edgekube.errors import ApiError, NotFound
from edgekube.lib.clock import SystemClock, rfc3339
from edgekube.store.memory import MemoryStore

ADMIN = User("admin", ("system:masters", "system:authenticated"))


class AllowAll:
    """Authorizer where permissions are not the matter."""

    def authorize(self, _attributes):
        return Decision(True)


class Nobody:
    """Authenticator that is never asked."""

    async def authenticate(self, _authorization, _certificate):
        return None


class Plane:
    """The running whole. `faulty[name]` is the client of that user."""

    def __init__(self, *, settings, only, faults, clock, signer):
        self.clock = clock
        store = MemoryStore(tagger)
        self.objects = Objects(store)
        rbac = RbacAuthorizer(self.objects)
        values = ServiceValues(
            objects=self.objects, service_cidr="10.43.0.0/16", node_ports=range(30000, 32768), spared=("10.43.0.1", "10.43.0.10")
        )
        admission = plugins.build(plugins.Environment(objects=self.objects, rbac=rbac, values=values))
        tokens = () if signer is None else (TokenSubresource(signer),)
        self.server = Server(store=store, authenticator=Nobody(), authorizer=node_and_rbac(self.objects, rbac), admission=admission, clock=clock, subresources=tokens)
        self.client = LocalClient(self.server, ADMIN)
        self.faulty = {}
        self._faults = faults
        self.manager = ControllerManager(client_for=self._client_for, clock=clock, settings=settings, only=only)
        self.cache = self.manager.cache
        self._changed = asyncio.Event()
        self._ips = itertools.count(1)
        self.hold = False  # pods stay Pending
        self.unready = set()  # prefixes of pods that never become ready
        for kind in self.cache.kinds:
            self.cache.on_change(kind, lambda _old, _new: self._changed.set())

    def _client_for(self, name):
        user = User(name, (AUTHENTICATED,))
        if name.startswith("system:serviceaccount:"):
            user = service_account_user(*name.split(":")[2:])
        self.faulty[name] = FaultyClient(LocalClient(self.server, user), self._faults.get(name, ()))
        return self.faulty[name]

    async def until(self, condition, seconds=5.0):
        """Until `condition()` is true; it is asked again after each change."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        assert condition()

    async def settle(self, seconds=0.1):
        """Until nothing has changed for a while."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                return

    def items(self, kind, namespace="default"):
        return [item.decode() for item in self.cache.list(kind, namespace if kind.namespaced else "")]

    def get(self, kind, name, namespace="default"):
        item = self.cache.get(kind, Key(namespace if kind.namespaced else "", name))
        return None if item is None else item.decode()

    def pods(self, **labels):
        found = [pod for pod in self.items(POD) if "deletionTimestamp" not in pod["metadata"]]
        return [pod for pod in found if labels.items() <= (pod["metadata"].get("labels") or {}).items()]

    async def events(self, reason, namespace="default"):
        for recorder in self.manager._recorders:
            await recorder.flush()
        listed = await self.client.list(EVENT, namespace)
        return [event for event in (item.decode() for item in listed.items) if event["reason"] == reason]

    async def merge(self, kind, name, patch, namespace="default", **options):
        """Patch, and wait until the cache shows it: conditions are asked of the cache."""
        answer = await self.client.patch(kind, name, namespace if kind.namespaced else "", patch, patch_type=PatchType.MERGE, **options)
        await self.cache.wait_for(kind, int(answer["metadata"]["resourceVersion"]))
        return answer

    # the stand-in for nodes

    async def run_nodes(self):
        queue = asyncio.Queue()
        self.cache.on_change(POD, lambda _old, new: new is not None and queue.put_nowait(new.key))
        while True:
            key = await queue.get()
            item = self.cache.get(POD, key)
            if item is not None and not self.hold:
                with contextlib.suppress(ApiError):
                    await self._run_pod(item.decode())

    async def _run_pod(self, pod):
        about = pod["metadata"]
        if "deletionTimestamp" in about:
            await self.client.delete(POD, about["name"], about["namespace"], grace_seconds=0, uid=about["uid"])
            return
        if pod.get("status", {}).get("phase") in ("Running", "Succeeded", "Failed"):
            return
        ready = not any(about["name"].startswith(prefix) for prefix in self.unready)
        number = next(self._ips)
        ip = f"10.42.{number // 256}.{number % 256}"
        status = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": rfc3339(self.clock.now())}],
        }
        await self.client.update(POD, pod | {"status": status}, subresource="status")


@contextlib.asynccontextmanager
async def control_plane(*, settings=None, only=lambda _name: True, faults=None, clock=None, nodes=True, signer=None):
    plane = Plane(settings=settings or Settings(), only=only, faults=faults or {}, clock=clock or SystemClock(), signer=signer)
    bootstrap = BootstrapConfig(kubernetes_address="10.43.0.1", cluster_dns="10.43.0.10", advertise_addresses=("192.0.2.1",), port=6443)
    await ensure_bootstrap(client=plane.client, objects=plane.objects, config=bootstrap)
    async with asyncio.TaskGroup() as group:
        ready = asyncio.Event()
        tasks = [group.create_task(plane.manager.run(ready))]
        await ready.wait()
        if nodes:
            tasks.append(group.create_task(plane.run_nodes()))
        # Pods are refused without their account.
        if only("service-account-controller"):
            await plane.until(lambda: plane.get(SERVICE_ACCOUNT, "default") is not None)
        yield plane
        for task in tasks:
            task.cancel()
    await plane.server.store.close()


async def make_namespace(plane, name):
    await plane.client.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    await plane.until(lambda: plane.get(SERVICE_ACCOUNT, "default", name) is not None)


def template(image="busybox", **labels):
    labels = labels or {"app": "web"}
    return {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 80}]}]},
    }


def replica_set(name="web", replicas=3, **spec):
    whole = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(app=name)} | spec
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "namespace": "default"}, "spec": whole}


def deployment(name="web", replicas=3, image="busybox", **spec):
    whole = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": template(image, app=name),
        "progressDeadlineSeconds": 600,
    } | spec
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"}, "spec": whole}


def bare_pod(name, **labels):
    pod = template(**(labels or {"app": "bare"}))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"} | pod["metadata"], "spec": pod["spec"]}


async def gone(plane, kind, name, namespace="default"):
    """Whether the server itself no longer has it."""
    try:
        await plane.client.get(kind, name, namespace if kind.namespaced else "")
    except NotFound:
        return True
    return False
