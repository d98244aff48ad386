"""Nodes that fall silent, on a live API server: conditions, pods, taints, evictions, fencing, and that a server that was away evicts nobody."""

import asyncio
import contextlib

import pytest

from edgekube.api.catalog import LEASE, NODE, POD, REPLICA_SET
from edgekube.api.nodeloss import ANNOTATION, MARK, PROMISE
from edgekube.controllers import nodehealth
from edgekube.controllers.base import Settings
from edgekube.controllers.nodehealth import NOT_READY, UNREACHABLE
from edgekube.controllers.nodelifecycle import LEASES
from edgekube.errors import ApiError, Conflict, Forbidden
from edgekube.lib.clock import rfc3339, rfc3339_micro
from tests.api.controlplane import bare_pod, control_plane, replica_set

QUICK = Settings(node_grace=0.4, node_startup_grace=0.6)


async def join(plane, name, promise=None):
    """A node whose kubelet says Ready once."""
    annotations = {} if promise is None else {PROMISE: str(promise)}
    await plane.client.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": annotations}})
    await renew(plane, name)
    await report(plane, name)


async def report(plane, name, ready="True"):
    now = rfc3339_micro(plane.clock.now())
    names = {"Ready": ready, "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False"}
    stamps = {"lastHeartbeatTime": now[:19] + "Z", "lastTransitionTime": rfc3339(plane.clock.now())}
    conditions = [{"type": kind, "status": status, "reason": "R", "message": now} | stamps for kind, status in names.items()]
    while True:
        with contextlib.suppress(Conflict):
            node = await plane.client.get(NODE, name)
            await plane.client.update(NODE, node | {"status": {"conditions": conditions}}, subresource="status")
            return
        await asyncio.sleep(0)  # let the other writer finish


async def renew(plane, name):
    spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": rfc3339_micro(plane.clock.now())}
    try:
        lease = await plane.client.get(LEASE, name, LEASES)
        return await plane.client.update(LEASE, lease | {"spec": spec})
    except ApiError as error:
        if error.code != 404:
            raise
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": LEASES}, "spec": spec}
        return await plane.client.create(LEASE, lease, LEASES)


@contextlib.asynccontextmanager
async def alive(plane, *names, every=0.1):
    """These nodes renew their leases for as long as the block lasts."""

    async def beat():
        while True:
            for name in names:
                with contextlib.suppress(Conflict):
                    await renew(plane, name)
            await asyncio.sleep(every)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(beat())
        yield
        task.cancel()


def ready_of(plane, name):
    conditions = (plane.get(NODE, name) or {}).get("status", {}).get("conditions", [])
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == "Ready"), None)


def taints(plane, name):
    return sorted((t["key"], t["effect"]) for t in plane.get(NODE, name)["spec"].get("taints") or [])


def on(pod, node, **annotations):
    pod["spec"]["nodeName"] = node
    pod["metadata"]["annotations"] = {key.replace("_", "/"): value for key, value in annotations.items()}
    return pod


def choosing(pod, choice):
    pod["metadata"]["annotations"] = {ANNOTATION: choice}
    return pod


def is_ready(plane, name):
    pod = plane.get(POD, name) or {}
    return next((c["status"] for c in pod.get("status", {}).get("conditions", []) if c["type"] == "Ready"), None)


async def test_a_silent_node_is_told_tainted_and_healed():
    async with control_plane(settings=QUICK) as plane:
        await join(plane, "there")
        await join(plane, "gone")
        await plane.client.create(POD, on(bare_pod("p"), "gone"))
        await plane.until(lambda: is_ready(plane, "p") == "True")
        async with alive(plane, "there"):
            await plane.until(lambda: ready_of(plane, "gone") == ("Unknown", "NodeStatusUnknown"))
            await plane.until(lambda: (UNREACHABLE, "NoExecute") in taints(plane, "gone"))
            assert taints(plane, "gone") == [(UNREACHABLE, "NoExecute"), (UNREACHABLE, "NoSchedule")]
            assert [t["timeAdded"] for t in plane.get(NODE, "gone")["spec"]["taints"]]
            await plane.until(lambda: is_ready(plane, "p") == "False")
            assert [e["message"] for e in await plane.events("NodeNotReady") if e["involvedObject"]["kind"] == "Node"] == [
                "Node gone status is now: NodeNotReady"
            ]
            assert [e["message"] for e in await plane.events("NodeNotReady") if e["involvedObject"]["kind"] == "Pod"] == ["Node is not ready"]
        async with alive(plane, "there", "gone"):
            await report(plane, "gone")
            await plane.until(lambda: taints(plane, "gone") == [])
            assert ready_of(plane, "there")[0] == "True"
            assert plane.get(POD, "p") is not None, "stay is what happens to those that say nothing"
        assert {e["message"] for e in await plane.events("RegisteredNode")} == {f"Registered Node {n} in Controller" for n in ("there", "gone")}


async def test_a_node_that_says_it_is_not_ready_gets_the_other_taint():
    async with control_plane(settings=QUICK) as plane:
        await join(plane, "there")
        await join(plane, "sick")
        async with alive(plane, "there", "sick"):
            await report(plane, "sick", "False")
            await plane.until(lambda: taints(plane, "sick") == [(NOT_READY, "NoExecute"), (NOT_READY, "NoSchedule")])


async def test_when_no_node_is_ready_nobody_is_evicted(monkeypatch):
    monkeypatch.setattr(nodehealth, "TAINT_SECONDS", 0.1)
    async with control_plane(settings=Settings(node_grace=0.4, node_startup_grace=0.6, node_loss="evict")) as plane:
        await join(plane, "a")
        await join(plane, "b")
        await plane.until(lambda: ready_of(plane, "a") and ready_of(plane, "b"))
        await plane.until(lambda: ready_of(plane, "a")[0] == ready_of(plane, "b")[0] == "Unknown")
        await plane.settle(0.3)
        for name in ("a", "b"):
            assert taints(plane, name) == [(UNREACHABLE, "NoSchedule")]
        async with alive(plane, "a"):
            await report(plane, "a")
            await plane.until(lambda: (UNREACHABLE, "NoExecute") in taints(plane, "b"))


async def test_pods_leave_by_their_tolerations_and_their_choice():
    async with control_plane(settings=QUICK) as plane:
        await join(plane, "there")
        await join(plane, "gone")
        short = on(bare_pod("short"), "gone")
        short["spec"]["tolerations"] = [{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]
        daemon = on(bare_pod("daemon"), "gone")
        daemon["spec"]["tolerations"] = [{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute"}]
        for pod in (short, daemon, on(bare_pod("plain"), "gone")):
            await plane.client.create(POD, pod)
        async with alive(plane, "there"):
            await plane.until(lambda: plane.get(POD, "short") is None, seconds=8)
            assert [e["message"] for e in await plane.events("TaintManagerEviction")] == ["Marking for deletion Pod default/short"]
            assert plane.get(POD, "daemon") is not None
            assert plane.get(POD, "plain") is not None


async def test_a_taint_that_somebody_made_works_at_once_and_can_be_taken_back():
    async with control_plane() as plane:
        await join(plane, "n")
        waits = on(bare_pod("waits"), "n")
        waits["spec"]["tolerations"] = [{"key": "out", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3600}]
        plane.hold = True  # nobody ends the deleted pod: its last words can be read
        for pod in (waits, choosing(on(bare_pod("leaves"), "n"), "stay")):
            await plane.client.create(POD, pod)
        await plane.merge(NODE, "n", {"spec": {"taints": [{"key": "out", "effect": "NoExecute"}]}})
        await plane.until(lambda: "deletionTimestamp" in ((plane.get(POD, "leaves") or {}).get("metadata") or {}))
        target = next(c for c in plane.get(POD, "leaves")["status"]["conditions"] if c["type"] == "DisruptionTarget")
        assert (target["reason"], target["message"]) == ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
        await plane.settle()
        await plane.merge(NODE, "n", {"spec": {"taints": None}})
        await plane.settle()
        assert "Cancelling deletion of Pod default/waits" in [e["message"] for e in await plane.events("TaintManagerEviction")]
        assert "deletionTimestamp" not in plane.get(POD, "waits")["metadata"]


def lease_mark(plane, name):
    return (plane.get(LEASE, name, LEASES)["metadata"].get("annotations") or {}).get(MARK)


async def test_fenced_pods_move_only_after_the_promise_and_stay_pods_never():
    async with control_plane(settings=QUICK) as plane:
        await join(plane, "there")
        await join(plane, "gone", promise=0.5)
        web = replica_set("web", 1)
        web["spec"]["template"]["metadata"]["annotations"] = {ANNOTATION: "fenced"}
        web["spec"]["template"]["spec"]["nodeName"] = "gone"
        await plane.client.create(REPLICA_SET, web)
        await plane.until(lambda: len(plane.pods(app="web")) == 1)
        (first,) = plane.pods(app="web")
        await renew(plane, "gone")
        last = plane.clock.monotonic()
        async with alive(plane, "there"):
            await plane.until(lambda: plane.pods(app="web") and plane.pods(app="web")[0]["metadata"]["uid"] != first["metadata"]["uid"])
            assert plane.clock.monotonic() - last >= 1.3, "the promise and the margin"
            assert lease_mark(plane, "gone")
            assert [e["reason"] for e in await plane.events("NodeFenced")]
        async with alive(plane, "there", "gone"):
            await plane.until(lambda: not lease_mark(plane, "gone"))


async def test_who_promises_nothing_is_not_fenced():
    async with control_plane(settings=QUICK) as plane:
        await join(plane, "gone")
        await plane.client.create(POD, choosing(on(bare_pod("p"), "gone"), "fenced"))
        await plane.settle(1.0)
        assert plane.get(POD, "p") is not None


OUT = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}


async def test_out_of_service_frees_the_pods_of_a_lost_node_at_once_and_of_a_living_one_gently():
    async with control_plane(settings=QUICK) as plane:
        await join(plane, "there")
        await join(plane, "gone")
        plane.hold = True  # no kubelet ends what is deleted
        for name in ("there", "gone"):
            await plane.client.create(POD, on(bare_pod(f"on-{name}"), name))
        async with alive(plane, "there"):
            await plane.until(lambda: ready_of(plane, "gone") == ("Unknown", "NodeStatusUnknown"))
            for name in ("there", "gone"):
                await plane.client.patch(NODE, name, "", {"spec": {"taints": [OUT]}})
            await plane.until(lambda: plane.get(POD, "on-gone") is None)
            await plane.until(lambda: "deletionTimestamp" in plane.get(POD, "on-there")["metadata"])


async def test_a_pod_is_fenced_from_its_creation_on_or_never():
    async with control_plane() as plane:
        await join(plane, "n")
        await plane.client.create(POD, choosing(on(bare_pod("p"), "n"), "fenced"))
        for choice in ("stay", None):
            with pytest.raises(Forbidden, match="a pod can not become or cease to be fenced"):
                await plane.client.patch(POD, "p", "default", {"metadata": {"annotations": {ANNOTATION: choice}}})
