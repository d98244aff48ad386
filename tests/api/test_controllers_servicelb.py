"""LoadBalancer Services on a live API server: addresses of nodes, ports that two want, and who takes over."""

import contextlib

from edgekube.api.catalog import ENDPOINT_SLICE, NODE, POD, SERVICE
from edgekube.controllers.base import Settings
from tests.api.controlplane import bare_pod, control_plane

CONTROLLERS = ("service-account-controller", "service-controller")
LISTENS = {"": {("TCP", 9999): "something of ours"}}


@contextlib.asynccontextmanager
async def cluster(*nodes):
    settings = Settings(listens=LISTENS)
    async with control_plane(only=lambda name: name in CONTROLLERS, settings=settings, nodes=False) as plane:
        for number, name in enumerate(nodes, 1):
            await add_node(plane, name, f"192.0.2.{number}")
        yield plane


async def add_node(plane, name, address):
    await plane.client.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    await set_status(plane, name, address, "True")


async def set_status(plane, name, address, ready):
    status = {
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": ready}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
    }
    await plane.merge(NODE, name, {"status": status}, subresource="status")


async def add(plane, name, port=80, **spec):
    whole = {"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": port}]} | spec
    await plane.client.create(SERVICE, {"metadata": {"name": name, "namespace": "default"}, "spec": whole})


def addresses(plane, name):
    service = plane.get(SERVICE, name) or {}
    return [entry["ip"] for entry in (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or ()]


def conflict(plane, name):
    conditions = (plane.get(SERVICE, name) or {}).get("status", {}).get("conditions") or ()
    return next((entry["message"] for entry in conditions if entry["type"] == "edgekube.io/PortConflict"), "")


async def test_addresses_follow_the_nodes():
    async with cluster("a", "b") as plane:
        await add(plane, "web")
        await plane.until(lambda: addresses(plane, "web") == ["192.0.2.1", "192.0.2.2"])
        assert [event["type"] for event in await plane.events("EnsuredLoadBalancer")] == ["Normal"]
        await set_status(plane, "a", "192.0.2.1", "Unknown")
        await plane.until(lambda: addresses(plane, "web") == ["192.0.2.2"])
        await set_status(plane, "a", "192.0.2.11", "True")
        await plane.until(lambda: addresses(plane, "web") == ["192.0.2.11", "192.0.2.2"])
        await plane.merge(NODE, "b", {"metadata": {"labels": {"edgekube.io/enablelb": "true"}}})
        await plane.until(lambda: addresses(plane, "web") == ["192.0.2.2"])
        await plane.merge(SERVICE, "web", {"spec": {"type": "ClusterIP"}})
        assert addresses(plane, "web") == []


async def test_the_younger_waits_and_takes_over():
    async with cluster("a") as plane:
        await add(plane, "aaa-old")
        await plane.until(lambda: addresses(plane, "aaa-old") == ["192.0.2.1"])
        await add(plane, "young")
        await plane.until(lambda: "the older Service default/aaa-old" in conflict(plane, "young"))
        assert addresses(plane, "young") == []
        assert [event["type"] for event in await plane.events("PortConflict")] == ["Warning"]
        await plane.client.delete(SERVICE, "aaa-old", "default")
        await plane.until(lambda: addresses(plane, "young") == ["192.0.2.1"])
        await plane.until(lambda: conflict(plane, "young") == "")


async def test_host_ports_node_ports_and_listeners_are_respected():
    async with cluster("a") as plane:
        pod = bare_pod("proxy")
        pod["spec"]["nodeName"] = "a"
        pod["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 80}]
        await plane.client.create(POD, pod)
        await plane.client.create(
            SERVICE,
            {"metadata": {"name": "np", "namespace": "default"}, "spec": {"type": "NodePort", "ports": [{"port": 1, "nodePort": 30080}]}},
        )
        for name, port in (("on-host-port", 80), ("on-node-port", 30080), ("on-kubelet", 10250), ("on-ours", 9999)):
            await add(plane, name, port)
        await plane.until(lambda: "pod default/proxy (its hostPort)" in conflict(plane, "on-host-port"))
        await plane.until(lambda: "Service default/np (its nodePort)" in conflict(plane, "on-node-port"))
        await plane.until(lambda: "the node's kubelet" in conflict(plane, "on-kubelet"))
        await plane.until(lambda: "something of ours" in conflict(plane, "on-ours"))
        await plane.client.delete(POD, "proxy", "default", grace_seconds=0)
        await plane.until(lambda: addresses(plane, "on-host-port") == ["192.0.2.1"])
        await plane.client.delete(SERVICE, "np", "default")
        await plane.until(lambda: addresses(plane, "on-node-port") == ["192.0.2.1"])


async def test_local_services_follow_their_endpoints_and_foreign_classes_are_left_alone():
    async with cluster("a", "b") as plane:
        await add(plane, "web", externalTrafficPolicy="Local")
        await add(plane, "foreign", 81, loadBalancerClass="acme.example/lb")
        await plane.merge(SERVICE, "foreign", {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}}, subresource="status")
        made = {
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.42.0.5"], "nodeName": "b", "conditions": {"ready": True}}],
        }
        await plane.client.create(ENDPOINT_SLICE, made)
        await plane.until(lambda: addresses(plane, "web") == ["192.0.2.2"])
        made["endpoints"][0]["conditions"]["ready"] = False
        await plane.client.update(ENDPOINT_SLICE, made | {"metadata": made["metadata"] | {"name": "web-1"}})
        await plane.until(lambda: addresses(plane, "web") == [])
        assert addresses(plane, "foreign") == ["198.51.100.1"]
