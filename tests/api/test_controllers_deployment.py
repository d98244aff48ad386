"""Deployments on a live API server: the stories of kubectl rollout."""


from edgekube.api.catalog import DEPLOYMENT, POD, REPLICA_SET
from edgekube.client.faulty import Fault
from edgekube.controllers.component import user_of
from edgekube.errors import ServiceUnavailable
from tests.api.controlplane import control_plane, deployment, template

DC = user_of("deployment-controller")
REVISION = "deployment.kubernetes.io/revision"


def status(plane):
    found = plane.get(DEPLOYMENT, "web")
    return found.get("status", {}) if found else {}


def condition(plane, kind):
    return next((c for c in status(plane).get("conditions", ()) if c["type"] == kind), {})


def done(plane, replicas=3):
    found = plane.get(DEPLOYMENT, "web")
    if found is None or status(plane).get("observedGeneration") != found["metadata"]["generation"]:
        return False
    counts = [status(plane).get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return counts == [replicas] * 3 and condition(plane, "Progressing").get("reason") == "NewReplicaSetAvailable"


def sets(plane):
    found = plane.items(REPLICA_SET)
    return {rs["metadata"]["annotations"][REVISION]: rs["spec"]["replicas"] for rs in found}


def images(plane):
    return {pod["spec"]["containers"][0]["image"] for pod in plane.pods()}


async def set_image(plane, image):
    await plane.merge(DEPLOYMENT, "web", {"spec": {"template": {"spec": {"containers": template(image)["spec"]["containers"]}}}})


async def test_the_first_rollout():
    async with control_plane() as plane:
        await plane.client.create(DEPLOYMENT, deployment())
        await plane.until(lambda: done(plane))
        found = plane.get(DEPLOYMENT, "web")
        assert found["metadata"]["annotations"][REVISION] == "1"
        assert condition(plane, "Available")["reason"] == "MinimumReplicasAvailable"
        rs = plane.items(REPLICA_SET)[0]
        assert rs["metadata"]["name"] == f"web-{rs['metadata']['labels']['pod-template-hash']}"
        assert rs["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"] == "3"
        assert rs["metadata"]["annotations"]["deployment.kubernetes.io/max-replicas"] == "4"
        assert condition(plane, "Progressing")["message"] == f'ReplicaSet "{rs["metadata"]["name"]}" has successfully progressed.'
        event = (await plane.events("ScalingReplicaSet"))[0]
        assert event["message"] == f"Scaled up replica set {rs['metadata']['name']} from 0 to 3"
        assert event["source"]["component"] == "deployment-controller"


async def test_rolling_never_breaks_its_limits_and_undo_reuses_the_old_set():
    async with control_plane() as plane:
        await plane.client.create(DEPLOYMENT, deployment(replicas=4))
        await plane.until(lambda: done(plane, 4))
        seen = []
        plane.cache.on_change(POD, lambda _old, _new: seen.append(_totals(plane)))
        await set_image(plane, "busybox:2")
        await plane.until(lambda: done(plane, 4))
        assert max(total for total, _ in seen) <= 5
        assert min(available for _, available in seen) >= 3
        assert images(plane) == {"busybox:2"}
        assert sets(plane) == {"1": 0, "2": 4}
        await set_image(plane, "busybox")
        await plane.until(lambda: done(plane, 4) and images(plane) == {"busybox"})
        assert sets(plane) == {"2": 0, "3": 4}
        third = next(rs for rs in plane.items(REPLICA_SET) if rs["metadata"]["annotations"][REVISION] == "3")
        assert third["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
        assert plane.get(DEPLOYMENT, "web")["metadata"]["annotations"][REVISION] == "3"


def _totals(plane):
    pods = plane.pods()
    return len(pods), sum(pod.get("status", {}).get("phase") == "Running" for pod in pods)


async def test_history_limit():
    async with control_plane() as plane:
        await plane.client.create(DEPLOYMENT, deployment(replicas=1, revisionHistoryLimit=1))
        for number in range(1, 4):
            await set_image(plane, f"busybox:{number}")
            await plane.until(lambda image=f"busybox:{number}": done(plane, 1) and images(plane) == {image})
        await plane.until(lambda: set(sets(plane).values()) == {0, 1} and len(sets(plane)) == 2)


async def test_pause_gathers_changes():
    async with control_plane() as plane:
        await plane.client.create(DEPLOYMENT, deployment())
        await plane.until(lambda: done(plane))
        await plane.merge(DEPLOYMENT, "web", {"spec": {"paused": True}})
        await plane.until(lambda: condition(plane, "Progressing").get("reason") == "DeploymentPaused")
        await set_image(plane, "busybox:2")
        await plane.merge(DEPLOYMENT, "web", {"spec": {"replicas": 5}})
        await plane.until(lambda: status(plane).get("availableReplicas") == 5)
        assert images(plane) == {"busybox"}
        await plane.merge(DEPLOYMENT, "web", {"spec": {"paused": False}})
        await plane.until(lambda: done(plane, 5) and images(plane) == {"busybox:2"})


async def test_recreate_has_no_overlap():
    async with control_plane() as plane:
        await plane.client.create(DEPLOYMENT, deployment(strategy={"type": "Recreate"}))
        await plane.until(lambda: done(plane))
        mixed = []
        plane.cache.on_change(REPLICA_SET, lambda _old, _new: mixed.append(len(images(plane)) > 1))
        await set_image(plane, "busybox:2")
        await plane.until(lambda: done(plane) and images(plane) == {"busybox:2"})
        assert not any(mixed)


async def test_a_stuck_rollout_times_out_and_a_fix_ends_it():
    async with control_plane() as plane:
        await plane.client.create(DEPLOYMENT, deployment(progressDeadlineSeconds=1))
        await plane.until(lambda: done(plane))
        plane.unready.add("web")
        await set_image(plane, "broken")
        await plane.until(lambda: condition(plane, "Progressing").get("reason") == "ProgressDeadlineExceeded")
        assert condition(plane, "Progressing")["status"] == "False"
        assert status(plane)["availableReplicas"] >= 2
        plane.unready.clear()
        await set_image(plane, "busybox:3")
        await plane.until(lambda: done(plane) and images(plane) == {"busybox:3"})


async def test_scaling_during_a_rollout_is_shared():
    async with control_plane() as plane:
        limits = {"maxSurge": 2, "maxUnavailable": 0}
        await plane.client.create(DEPLOYMENT, deployment(replicas=10, strategy={"type": "RollingUpdate", "rollingUpdate": limits}))
        await plane.until(lambda: done(plane, 10))
        plane.unready.add("web")
        await set_image(plane, "busybox:2")
        await plane.until(lambda: sets(plane) == {"1": 10, "2": 2})
        await plane.merge(DEPLOYMENT, "web", {"spec": {"replicas": 16}})
        await plane.until(lambda: sets(plane) == {"1": 15, "2": 3})
        plane.unready.clear()


async def test_a_foreign_set_of_our_name_counts_as_collision():
    async with control_plane() as plane:
        await plane.client.create(DEPLOYMENT, deployment())
        await plane.until(lambda: done(plane))
        name = plane.items(REPLICA_SET)[0]["metadata"]["name"]
        await plane.client.delete(DEPLOYMENT, "web", "default", propagation="Background")
        await plane.until(lambda: not plane.items(REPLICA_SET) and not plane.pods())
        foreign = {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template(app="x")}
        foreign = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "namespace": "default"}, "spec": foreign}
        await plane.client.create(REPLICA_SET, foreign)
        await plane.client.create(DEPLOYMENT, deployment())
        await plane.until(lambda: done(plane))
        assert status(plane)["collisionCount"] == 1


async def test_trouble_with_the_server_only_delays():
    faults = [
        Fault(verb="create", kind=REPLICA_SET, error=ServiceUnavailable("lost"), after=True, times=1),
        Fault(verb="update", kind=DEPLOYMENT, error=ServiceUnavailable("no"), times=2),
        Fault(verb="update", kind=REPLICA_SET, error=ServiceUnavailable("lost"), after=True, times=2),
    ]
    async with control_plane(faults={DC: faults}) as plane:
        await plane.client.create(DEPLOYMENT, deployment())
        await plane.until(lambda: done(plane))
        await set_image(plane, "busybox:2")
        await plane.until(lambda: done(plane) and images(plane) == {"busybox:2"})
        assert sets(plane) == {"1": 0, "2": 3}


async def test_fifty_pods():
    async with control_plane() as plane:
        await plane.client.create(DEPLOYMENT, deployment(replicas=50))
        await plane.until(lambda: done(plane, 50))
        assert len(plane.pods()) == 50
