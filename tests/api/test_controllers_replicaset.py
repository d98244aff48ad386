"""ReplicaSets on a live API server: numbers, adoption, refusals, lost answers."""

from edgekube.api.catalog import POD, REPLICA_SET
from edgekube.client.faulty import Fault
from edgekube.controllers.component import user_of
from edgekube.errors import Forbidden, ServiceUnavailable
from tests.api.controlplane import bare_pod, control_plane, replica_set

RS = user_of("replicaset-controller")


def status(plane, name="web"):
    found = plane.get(REPLICA_SET, name)
    return found.get("status", {}) if found else {}


async def test_pods_are_made_counted_replaced_and_removed():
    async with control_plane() as plane:
        await plane.client.create(REPLICA_SET, replica_set())
        await plane.until(lambda: status(plane).get("availableReplicas") == 3)
        pods = plane.pods(app="web")
        assert {pod["metadata"]["generateName"] for pod in pods} == {"web-"}
        assert pods[0]["metadata"]["ownerReferences"][0]["controller"] is True
        victim = pods[0]["metadata"]["name"]
        await plane.client.delete(POD, victim, "default", grace_seconds=0)
        await plane.until(
            lambda: victim not in {p["metadata"]["name"] for p in plane.pods()} and status(plane).get("availableReplicas") == 3
        )
        await plane.merge(REPLICA_SET, "web", {"spec": {"replicas": 1}})
        await plane.until(lambda: status(plane).get("replicas") == 1 and status(plane).get("observedGeneration") == 2)
        await plane.settle()
        assert len(plane.pods()) == 1
        assert len(await plane.events("SuccessfulCreate")) == 4
        assert len(await plane.events("SuccessfulDelete")) == 2


async def test_adopts_and_lets_go_by_labels():
    async with control_plane() as plane:
        await plane.client.create(POD, bare_pod("stray", app="web"))
        await plane.client.create(REPLICA_SET, replica_set(replicas=2))
        await plane.until(lambda: status(plane).get("readyReplicas") == 2)
        assert plane.get(POD, "stray")["metadata"]["ownerReferences"][0]["name"] == "web"
        await plane.merge(POD, "stray", {"metadata": {"labels": {"app": "other"}}})
        await plane.until(lambda: "ownerReferences" not in plane.get(POD, "stray")["metadata"])
        await plane.until(lambda: len(plane.pods(app="web")) == 2)


async def test_a_refusal_is_shown_and_tried_again():
    refusal = Fault(verb="create", kind=POD, error=Forbidden("exceeded quota"), times=3)
    async with control_plane(faults={RS: [refusal]}) as plane:
        await plane.client.create(REPLICA_SET, replica_set(replicas=4))
        await plane.until(lambda: status(plane).get("conditions"))
        condition = status(plane)["conditions"][0]
        assert (condition["type"], condition["reason"], condition["message"]) == ("ReplicaFailure", "FailedCreate", "exceeded quota")
        await plane.until(lambda: status(plane).get("readyReplicas") == 4 and not status(plane).get("conditions"))
        assert (await plane.events("FailedCreate"))[0]["message"] == "Error creating: exceeded quota"
        assert plane.faulty[RS].calls.count(("create", "pods")) == 7


async def test_lost_answers_make_no_surplus():
    lost = Fault(verb="create", kind=POD, error=ServiceUnavailable("cut"), after=True, times=5)
    async with control_plane(faults={RS: [lost]}, nodes=False) as plane:
        await plane.client.create(REPLICA_SET, replica_set(replicas=10))
        await plane.until(lambda: status(plane).get("replicas") == 10)
        await plane.settle()
        assert len(plane.pods()) == 10


async def test_min_ready_seconds_counts_later():
    async with control_plane() as plane:
        await plane.client.create(REPLICA_SET, replica_set(replicas=1, minReadySeconds=1))
        await plane.until(lambda: status(plane).get("readyReplicas") == 1)
        assert "availableReplicas" not in status(plane)
        await plane.until(lambda: status(plane).get("availableReplicas") == 1)


async def test_finished_pods_are_replaced_not_counted():
    async with control_plane() as plane:
        await plane.client.create(REPLICA_SET, replica_set(replicas=1))
        await plane.until(lambda: status(plane).get("readyReplicas") == 1)
        pod = plane.pods()[0]
        await plane.client.update(POD, pod | {"status": {"phase": "Failed"}}, subresource="status")
        await plane.until(lambda: len(plane.pods()) == 2 and status(plane).get("readyReplicas") == 1)
