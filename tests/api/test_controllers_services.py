"""EndpointSlices and Endpoints on a live API server: who is behind a Service, and how soon it is known."""

import itertools

from edgekube.api.catalog import ENDPOINT_SLICE, ENDPOINTS, NODE, POD, REPLICA_SET, SERVICE
from edgekube.client.faulty import Fault
from edgekube.controllers.component import READER, user_of
from edgekube.errors import Expired, ServiceUnavailable
from edgekube.lib.clock import rfc3339
from tests.api.controlplane import bare_pod, control_plane, replica_set


def service(name="web", **spec):
    whole = {
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        "clusterIP": "10.43.0.9",
    }
    whole |= {"clusterIPs": ["10.43.0.9"], "ipFamilies": ["IPv4"]} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": whole}


def slices(plane):
    """All but those of the API server itself."""
    return [s for s in plane.items(ENDPOINT_SLICE) if s["metadata"]["labels"]["kubernetes.io/service-name"] != "kubernetes"]


def ready(plane):
    endpoints = [e for s in slices(plane) for e in s.get("endpoints") or ()]
    return sorted(e["addresses"][0] for e in endpoints if e["conditions"]["ready"])


def legacy(plane, name="addresses"):
    found = plane.get(ENDPOINTS, "web") or {}
    return sorted(a["ip"] for s in found.get("subsets") or () for a in s.get(name) or ())


async def set_ready(plane, pod, value):
    fresh = await plane.client.get(POD, pod["metadata"]["name"], "default")
    fresh["status"]["conditions"] = [{"type": "Ready", "status": str(value), "lastTransitionTime": rfc3339(plane.clock.now())}]
    await plane.client.update(POD, fresh, subresource="status")


async def test_endpoints_follow_pods():
    async with control_plane() as plane:
        await plane.client.create(SERVICE, service())
        await plane.until(lambda: len(slices(plane)) == 1 and plane.get(ENDPOINTS, "web") is not None)
        await plane.client.create(REPLICA_SET, replica_set(replicas=3))
        await plane.until(lambda: len(ready(plane)) == 3 and legacy(plane) == ready(plane))
        found = slices(plane)[0]
        assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
        assert found["ports"] == [{"name": "http", "port": 80, "protocol": "TCP"}]
        pod = plane.pods()[0]
        await set_ready(plane, pod, False)
        await plane.until(lambda: len(ready(plane)) == 2 and legacy(plane, "notReadyAddresses") == [pod["status"]["podIP"]])
        await plane.client.delete(SERVICE, "web", "default")
        await plane.until(lambda: plane.get(ENDPOINTS, "web") is None and not slices(plane))


async def test_every_change_of_readiness_arrives():
    async with control_plane() as plane:
        await plane.client.create(SERVICE, service())
        await plane.client.create(REPLICA_SET, replica_set(replicas=1))
        await plane.until(lambda: len(ready(plane)) == 1)
        await plane.settle()
        for number in range(10):
            value = bool(number % 2)
            await set_ready(plane, plane.pods()[0], value)
            await plane.until(lambda value=value: len(ready(plane)) == int(value))


async def test_a_service_without_selector_keeps_the_endpoints_it_was_given():
    async with control_plane() as plane:
        own = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "db", "namespace": "default"}}
        await plane.client.create(ENDPOINTS, own | {"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 5432}]}]})
        await plane.client.create(SERVICE, service("db", selector=None))
        await plane.settle()
        assert plane.get(ENDPOINTS, "db")["subsets"][0]["addresses"][0]["ip"] == "192.0.2.1"
        (mirror,) = slices(plane)
        assert mirror["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslicemirroring-controller.k8s.io"


async def test_somebodys_change_of_a_slice_is_undone():
    async with control_plane() as plane:
        await plane.client.create(SERVICE, service())
        await plane.client.create(REPLICA_SET, replica_set(replicas=2))
        await plane.until(lambda: len(ready(plane)) == 2)
        name = slices(plane)[0]["metadata"]["name"]
        await plane.merge(ENDPOINT_SLICE, name, {"endpoints": []})
        await plane.until(lambda: len(ready(plane)) == 2)
        await plane.client.delete(ENDPOINT_SLICE, name, "default")
        await plane.until(lambda: len(ready(plane)) == 2 and slices(plane)[0]["metadata"]["name"] != name)


async def test_a_watch_that_repeats_breaks_and_expires_loses_nothing():
    faults = {
        READER: [
            Fault(verb="watch", kind=POD, duplicate=True, cut=True, times=1),
            Fault(verb="watch", kind=POD, error=ServiceUnavailable("cut"), cut=True, times=2),
            Fault(verb="watch", kind=POD, error=Expired("too old"), times=1),
            Fault(verb="list", kind=POD, error=ServiceUnavailable("no"), times=1, skip=0),
        ],
        user_of("endpointslice-controller"): [Fault(verb="update", error=ServiceUnavailable("no"), times=2)],
    }
    async with control_plane(faults=faults) as plane:
        heard = {}
        plane.cache.on_change(
            POD, lambda old, new: heard.setdefault((new or old).key, []).append((old and old.revision, new and new.revision))
        )
        await plane.client.create(SERVICE, service())
        await plane.client.create(REPLICA_SET, replica_set(replicas=5))
        await plane.until(lambda: len(ready(plane)) == 5)
        await plane.merge(REPLICA_SET, "web", {"spec": {"replicas": 2}})
        await plane.until(lambda: len(ready(plane)) == 2 and len(plane.items(POD)) == 2)
        for changes in heard.values():
            assert changes[0][0] is None
            for before, after in itertools.pairwise(changes):
                assert before[1] == after[0] or after[1] is None


async def test_topology_hints_follow_the_zones_and_the_annotation():
    async with control_plane(nodes=False) as plane:
        for name, zone in (("n1", "a"), ("n2", "b")):
            status = {"allocatable": {"cpu": "2"}, "conditions": [{"type": "Ready", "status": "True"}]}
            node = {"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}}
            await plane.client.create(NODE, node)
            await plane.merge(NODE, name, {"status": status}, subresource="status")
        auto = service() | {
            "metadata": {"name": "web", "namespace": "default", "annotations": {"service.kubernetes.io/topology-mode": "Auto"}}
        }
        await plane.client.create(SERVICE, auto)
        for number in range(4):
            await running_pod(plane, f"web-{number}", "n1", f"10.42.0.{number + 5}")

        def hinted():
            found = [e.get("hints", {}).get("forZones", [{}])[0].get("name") for s in slices(plane) for e in s.get("endpoints") or ()]
            return sorted(str(zone) for zone in found)

        await plane.until(lambda: hinted() == ["a", "a", "b", "b"])
        await plane.settle()
        assert await plane.events("TopologyAwareHintsEnabled")
        await plane.merge(NODE, "n2", {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, subresource="status")
        await plane.until(lambda: hinted() == ["None"] * 4)
        await plane.settle()
        assert await plane.events("TopologyAwareHintsDisabled")
        await plane.merge(SERVICE, "web", {"metadata": {"annotations": None}, "spec": {"trafficDistribution": "PreferClose"}})
        await plane.until(lambda: hinted() == ["a"] * 4)


async def running_pod(plane, name, node, ip):
    pod = bare_pod(name, app="web")
    pod["spec"]["nodeName"] = node
    await plane.client.create(POD, pod)
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(plane.clock.now())}]
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}
    await plane.client.patch(POD, name, "default", {"status": status}, subresource="status")


async def test_endpoints_without_a_selector_are_mirrored_and_follow():
    async with control_plane() as plane:
        plain = service()
        del plain["spec"]["selector"]
        await plane.client.create(SERVICE, plain)
        made = {
            "metadata": {"name": "web", "namespace": "default"},
            "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"name": "http", "port": 8080}]}],
        }
        await plane.client.create(ENDPOINTS, made)
        await plane.until(lambda: ready(plane) == ["192.0.2.7"])
        await plane.merge(ENDPOINTS, "web", {"subsets": [{"addresses": [{"ip": "192.0.2.8"}], "ports": [{"name": "http", "port": 8080}]}]})
        await plane.until(lambda: ready(plane) == ["192.0.2.8"])
        assert len(slices(plane)) == 1
        await plane.client.delete(ENDPOINTS, "web", "default")
        await plane.until(lambda: slices(plane) == [])
