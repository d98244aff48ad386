"""The proxy over a live API server and a backend that only remembers: what is planned again when, and what happens when the kernel refuses."""

import asyncio
import contextlib

from edgekube.api.catalog import ENDPOINT_SLICE, NODE, POD, SERVICE
from edgekube.apiserver.identity import User
from edgekube.apiserver.local import LocalClient
from edgekube.proxy.backend import BackendError
from edgekube.proxy.component import Proxy, ProxyConfig
from edgekube.proxy.model import ANY4, Endpoint, Front
from tests.api.controlplane import bare_pod, control_plane

CONFIG = ProxyConfig(node_name="pi", instance="t", cluster_cidrs=("10.42.0.0/16",), service_cidrs=("10.43.0.0/16",))
WEB = Front("10.43.0.50", "tcp", 80)
HERE, THERE = Endpoint("10.42.0.5", 8080, True), Endpoint("10.42.1.5", 8080)


class Remembering:
    """A backend whose kernel is a dict."""

    name = "memory"

    def __init__(self):
        self.kernel, self.replaced, self.applied, self.refuse, self.notify = {}, 0, 0, 0, None
        self.changed = asyncio.Condition()

    def watch(self, notify):
        self.notify = notify

    async def replace(self, targets):
        await self._refuse()
        self.kernel = dict(targets)
        self.replaced += 1
        await self._tell()

    async def apply(self, old, new):
        await self._refuse()
        assert {front: self.kernel[front] for front in old} == dict(old)
        self.kernel = {front: target for front, target in self.kernel.items() if front not in old} | dict(new)
        self.applied += 1
        await self._tell()

    async def _refuse(self):
        if self.refuse:
            self.refuse -= 1
            raise BackendError("no")

    async def _tell(self):
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition):
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(condition)

    def addresses(self, front=WEB):
        return {endpoint.address for endpoint in self.kernel[front].endpoints} if front in self.kernel else None

    def close(self):
        self.notify = None


@contextlib.asynccontextmanager
async def running():
    async with control_plane(only=lambda name: name == "service-account-controller", nodes=False) as plane:
        backend, ready = Remembering(), asyncio.Event()
        client = LocalClient(plane.server, User("system:node:pi", ("system:nodes", "system:masters")))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(Proxy(config=CONFIG, client=client, backend=backend).run(ready))
            await ready.wait()
            yield plane, backend
            task.cancel()


async def add_web(plane, **spec):
    whole = {"selector": {"app": "web"}, "clusterIP": WEB.address, "ports": [{"name": "http", "port": 80}]} | spec
    await plane.client.create(SERVICE, {"metadata": {"name": "web", "namespace": "default"}, "spec": whole})
    hints = {"here": "zone-a", "there": "zone-b"}
    endpoints = [
        {"addresses": [HERE.address], "nodeName": "pi", "conditions": {"ready": True}, "hints": {"forZones": [{"name": hints["here"]}]}},
        {
            "addresses": [THERE.address],
            "nodeName": "other",
            "conditions": {"ready": True},
            "hints": {"forZones": [{"name": hints["there"]}]},
        },
    ]
    await add_slice(plane, "web", endpoints)


async def add_slice(plane, name, endpoints):
    labels = {"kubernetes.io/service-name": name}
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    metadata = {"name": name, "namespace": "default", "labels": labels}
    await plane.client.create(ENDPOINT_SLICE, {"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints})


async def test_a_change_is_one_difference_and_a_node_that_moves_chooses_again():
    async with running() as (plane, backend):
        await add_web(plane)
        await backend.until(lambda: backend.addresses() == {HERE.address, THERE.address})
        assert backend.kernel[WEB].endpoints == (HERE, THERE)
        await plane.client.create(NODE, {"metadata": {"name": "pi", "labels": {"topology.kubernetes.io/zone": "zone-b"}}})
        await backend.until(lambda: backend.addresses() == {THERE.address})
        before = backend.applied
        await plane.merge(NODE, "pi", {"metadata": {"annotations": {"heartbeat": "1"}}})
        await plane.merge(NODE, "pi", {"metadata": {"labels": {"topology.kubernetes.io/zone": "zone-a"}}})
        await backend.until(lambda: backend.addresses() == {HERE.address})
        assert (backend.applied, backend.replaced) == (before + 1, 1)
        await plane.client.delete(ENDPOINT_SLICE, "web", "default")
        await backend.until(lambda: backend.addresses() == set())
        await plane.client.delete(SERVICE, "web", "default")
        await backend.until(lambda: WEB not in backend.kernel)


async def test_a_refusal_or_a_disturbance_is_answered_by_the_whole():
    async with running() as (plane, backend):
        backend.refuse = 2
        await add_web(plane)
        await backend.until(lambda: backend.addresses() == {HERE.address, THERE.address})
        assert backend.refuse == 0
        backend.kernel.clear()
        backend.notify()
        await backend.until(lambda: backend.addresses() == {HERE.address, THERE.address})


async def test_host_ports_and_services_that_claim_one_front():
    async with running() as (plane, backend):
        pod = bare_pod("ingress")
        pod["spec"] |= {"nodeName": "pi"}
        pod["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8088}]
        await plane.client.create(POD, pod)
        ip = {"podIP": "10.42.0.9", "podIPs": [{"ip": "10.42.0.9"}], "phase": "Running"}
        await plane.client.patch(POD, "ingress", "default", {"status": ip}, subresource="status")
        front = Front(ANY4, "tcp", 8088)
        await backend.until(lambda: backend.addresses(front) == {"10.42.0.9"})
        await plane.client.delete(POD, "ingress", "default", grace_seconds=0)
        await backend.until(lambda: front not in backend.kernel)
        shared = Front("198.51.100.1", "tcp", 80)
        for number, name in enumerate(("a", "b")):
            spec = {"selector": {"app": name}, "externalIPs": [shared.address], "ports": [{"name": "http", "port": 80}]}
            await plane.client.create(SERVICE, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
            await add_slice(plane, name, [{"addresses": [f"10.42.0.2{number}"], "nodeName": "pi", "conditions": {"ready": True}}])
        await backend.until(lambda: backend.addresses(shared) == {"10.42.0.20"} and sum(front.port == 80 for front in backend.kernel) == 3)
        await plane.client.delete(SERVICE, "a", "default")
        await backend.until(lambda: backend.addresses(shared) == {"10.42.0.21"})


async def test_services_of_another_proxy_appear_and_vanish_with_the_label():
    async with running() as (plane, backend):
        await add_web(plane)
        await backend.until(lambda: WEB in backend.kernel)
        await plane.merge(SERVICE, "web", {"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "mesh"}}})
        await backend.until(lambda: WEB not in backend.kernel)
        await plane.merge(SERVICE, "web", {"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": None}}})
        await backend.until(lambda: WEB in backend.kernel)


async def test_no_service_stands_in_for_the_api_server_wherever_that_moves():
    """Who may set externalIPs in a namespace could otherwise cut nodes off from their server."""
    first, second = Front("192.0.2.10", "tcp", 6443), Front("192.0.2.11", "tcp", 6443)
    async with running() as (plane, backend):
        await add_web(plane, externalIPs=[first.address, second.address], ports=[{"name": "http", "port": 6443}])
        await backend.until(lambda: {first, second} <= backend.kernel.keys())
        ports = [{"name": "https", "port": 6443, "protocol": "TCP"}]
        await plane.merge(ENDPOINT_SLICE, "kubernetes", {"ports": ports, "endpoints": [{"addresses": [first.address]}]})
        await backend.until(lambda: first not in backend.kernel and second in backend.kernel)
        await plane.merge(ENDPOINT_SLICE, "kubernetes", {"endpoints": [{"addresses": [second.address]}]})
        await backend.until(lambda: second not in backend.kernel and first in backend.kernel)
