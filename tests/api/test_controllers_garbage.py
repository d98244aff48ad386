"""Garbage collection and namespaces on a live API server."""

import pytest

from edgekube.api.catalog import CONFIG_MAP, DEPLOYMENT, NAMESPACE, POD, REPLICA_SET, SECRET
from edgekube.client.faulty import Fault
from edgekube.controllers.component import user_of
from edgekube.errors import ServiceUnavailable
from tests.api.controlplane import control_plane, deployment, gone, make_namespace, replica_set

GC = user_of("generic-garbage-collector")


def config_map(name, *owners, namespace="default", finalizers=(), block=True):
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": o["metadata"]["name"], "uid": o["metadata"]["uid"], "blockOwnerDeletion": block}
        for o in owners
    ]
    metadata = {"name": name, "namespace": namespace, "ownerReferences": references, "finalizers": list(finalizers)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {k: v for k, v in metadata.items() if v}}


def named(plane, namespace="default"):
    return {obj["metadata"]["name"] for obj in plane.items(CONFIG_MAP, namespace)} - {"kube-root-ca.crt"}


async def test_background_takes_the_whole_tree():
    async with control_plane() as plane:
        await plane.client.create(DEPLOYMENT, deployment())
        await plane.until(lambda: len(plane.pods()) == 3)
        await plane.client.delete(DEPLOYMENT, "web", "default", propagation="Background")
        await plane.until(lambda: not plane.items(REPLICA_SET) and not plane.items(POD))


async def test_foreground_keeps_the_owner_until_its_dependents_are_gone():
    async with control_plane() as plane:
        await plane.client.create(DEPLOYMENT, deployment())
        await plane.until(lambda: len(plane.pods()) == 3)
        order = []
        plane.cache.on_change(DEPLOYMENT, lambda _old, new: new is None and order.append(len(plane.items(REPLICA_SET))))
        plane.cache.on_change(REPLICA_SET, lambda _old, new: new is None and order.append(len(plane.items(POD))))
        await plane.client.delete(DEPLOYMENT, "web", "default", propagation="Foreground")
        await plane.until(lambda: plane.get(DEPLOYMENT, "web") is None)
        assert order == [0, 0]


async def test_orphans_live_on_without_an_owner():
    async with control_plane() as plane:
        await plane.client.create(REPLICA_SET, replica_set())
        await plane.until(lambda: len(plane.pods()) == 3)
        await plane.client.delete(REPLICA_SET, "web", "default", propagation="Orphan")
        await plane.until(lambda: plane.get(REPLICA_SET, "web") is None)
        await plane.settle()
        assert [pod["metadata"].get("ownerReferences") for pod in plane.pods()] == [None] * 3


async def test_an_owner_that_stays_keeps_the_dependent():
    async with control_plane() as plane:
        one = await plane.client.create(CONFIG_MAP, config_map("one"))
        two = await plane.client.create(CONFIG_MAP, config_map("two"))
        await plane.client.create(CONFIG_MAP, config_map("child", one, two))
        await plane.client.delete(CONFIG_MAP, "one", "default")
        await plane.until(lambda: len(plane.get(CONFIG_MAP, "child")["metadata"]["ownerReferences"]) == 1)
        assert plane.get(CONFIG_MAP, "child")["metadata"]["ownerReferences"][0]["name"] == "two"


async def test_an_owner_of_another_time_or_namespace_is_none():
    async with control_plane() as plane:
        await make_namespace(plane, "other")
        owner = await plane.client.create(CONFIG_MAP, config_map("owner"))
        impostor = {"metadata": {"name": "owner", "uid": "00000000-0000-0000-0000-000000000000"}}
        await plane.client.create(CONFIG_MAP, config_map("child", impostor))
        await plane.client.create(CONFIG_MAP, config_map("far", owner, namespace="other"))
        await plane.until(lambda: named(plane) == {"owner"} and not named(plane, "other"))
        event = (await plane.events("OwnerRefInvalidNamespace", "other"))[0]
        assert event["message"].startswith("ownerRef [v1/ConfigMap, namespace: other, name: owner, uid: ")


async def test_a_circle_goes_when_one_of_it_is_deleted():
    async with control_plane() as plane:
        one = await plane.client.create(CONFIG_MAP, config_map("one"))
        two = await plane.client.create(CONFIG_MAP, config_map("two", one))
        reference = config_map("x", two)["metadata"]["ownerReferences"]
        await plane.merge(CONFIG_MAP, "one", {"metadata": {"ownerReferences": reference}})
        await plane.client.delete(CONFIG_MAP, "one", "default", propagation="Foreground")
        await plane.until(lambda: not named(plane))


async def test_what_lost_its_owner_while_nobody_looked_goes_at_start():
    async with control_plane(only=lambda name: name != "generic-garbage-collector") as plane:
        owner = await plane.client.create(CONFIG_MAP, config_map("owner"))
        await plane.client.create(CONFIG_MAP, config_map("child", owner))
        await plane.client.delete(CONFIG_MAP, "owner", "default")
        await plane.settle()
        assert named(plane) == {"child"}


async def test_refusals_only_delay():
    faults = [Fault(verb=verb, error=ServiceUnavailable("no"), times=2) for verb in ("get", "delete", "patch")]
    async with control_plane(faults={GC: faults}) as plane:
        await plane.client.create(REPLICA_SET, replica_set())
        await plane.until(lambda: len(plane.pods()) == 3)
        await plane.client.delete(REPLICA_SET, "web", "default", propagation="Foreground")
        await plane.until(lambda: plane.get(REPLICA_SET, "web") is None)
        assert not plane.items(POD)


async def test_a_namespace_takes_everything_with_it():
    async with control_plane() as plane:
        await make_namespace(plane, "x")
        await plane.client.create(DEPLOYMENT, deployment() | {"metadata": {"name": "web", "namespace": "x"}})
        await plane.client.create(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "x"}})
        await plane.until(lambda: len(plane.items(POD, "x")) == 3)
        await plane.client.delete(NAMESPACE, "x")
        await plane.until(lambda: plane.get(NAMESPACE, "x") is None)
        for kind in (DEPLOYMENT, REPLICA_SET, POD, SECRET, CONFIG_MAP):
            assert plane.items(kind, "x") == []


async def test_a_namespace_says_what_holds_it():
    async with control_plane() as plane:
        await make_namespace(plane, "x")
        await plane.client.create(CONFIG_MAP, config_map("held", namespace="x", finalizers=("example.com/hold",)))
        await plane.client.delete(NAMESPACE, "x")

        def remaining():
            conditions = {c["type"]: c for c in plane.get(NAMESPACE, "x")["status"].get("conditions", ())}
            return conditions.get("NamespaceFinalizersRemaining", {}).get("message", "")

        await plane.until(lambda: "example.com/hold in 1 resource instances" in remaining())
        assert plane.get(NAMESPACE, "x")["status"]["phase"] == "Terminating"
        await plane.merge(CONFIG_MAP, "held", {"metadata": {"finalizers": None}}, "x")
        await plane.until(lambda: plane.get(NAMESPACE, "x") is None)


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
async def test_nothing_of_it_is_left_on_the_server(propagation):
    async with control_plane() as plane:
        await plane.client.create(REPLICA_SET, replica_set(replicas=1))
        await plane.until(lambda: len(plane.pods()) == 1)
        name = plane.pods()[0]["metadata"]["name"]
        await plane.client.delete(REPLICA_SET, "web", "default", propagation=propagation)
        await plane.until(lambda: not plane.items(POD) and not plane.items(REPLICA_SET))
        assert await gone(plane, POD, name)
