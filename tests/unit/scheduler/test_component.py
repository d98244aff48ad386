"""The scheduler against the API server in this process, with the identity and permissions it has in a cluster."""

import asyncio
import contextlib

from edgekube.api.catalog import EVENT, NODE, POD, SERVICE_ACCOUNT
from edgekube.apiserver import authn
from edgekube.apiserver.identity import User
from edgekube.apiserver.local import LocalClient
from edgekube.client.faulty import Fault, FaultyClient
from edgekube.errors import AlreadyExists, ServiceUnavailable
from edgekube.lib.clock import SystemClock
from edgekube.scheduler.component import Scheduler
from tests.kit.apiserver import live_server


@contextlib.asynccontextmanager
async def cluster(wrap=lambda client: client):
    """A live API server with a running scheduler; yields the admin's client."""
    async with live_server() as live:
        client = wrap(LocalClient(live.server, User("system:kube-scheduler", (authn.AUTHENTICATED,))))
        scheduler, ready = Scheduler(client=client, clock=SystemClock()), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(scheduler.run(ready))
            async with asyncio.timeout(5):
                await ready.wait()
            yield live.client
            task.cancel()


async def make_node(client, name="n1", *, cpu="4", memory="8Gi", pods="110", taints=(), labels=None):
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels or {}}, "spec": {}}
    node = await client.create(NODE, node)
    node["spec"]["taints"] = list(taints)  # admission has marked the new node as not ready
    node = await client.update(NODE, node)
    node["status"] = node.get("status", {}) | {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods}}
    return await client.update(NODE, node, subresource="status")


def pod(name, *, cpu="10m", **spec):
    container = {"name": "c", "image": "busybox", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}}
    base = {"containers": [container], "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": base | spec}


async def make_service_account(client):
    with contextlib.suppress(AlreadyExists):
        await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": "default"}}, "default")


async def condition_of(client, name):
    found = await client.get(POD, name, "default")
    return next((c for c in found.get("status", {}).get("conditions", ()) if c["type"] == "PodScheduled"), {})


async def eventually(check, *, seconds=5.0):
    """Wait until the coroutine function `check` answers something true; returns that."""
    async with asyncio.timeout(seconds):
        while True:
            found = await check()
            if found:
                return found
            await asyncio.sleep(0.005)


async def node_of(client, name):
    return (await client.get(POD, name, "default"))["spec"].get("nodeName")


async def messages(client, reason):
    found = await client.list(EVENT, "default")
    events = [item.decode() for item in found.items]
    return [event["message"] for event in events if event["reason"] == reason]


async def test_a_pod_gets_a_node_and_an_event():
    async with cluster() as client:
        await make_service_account(client)
        await make_node(client)
        await client.create(POD, pod("web"))
        assert await eventually(lambda: node_of(client, "web")) == "n1"
        assert (await condition_of(client, "web"))["status"] == "True"

        async def told():
            return await messages(client, "Scheduled")

        assert await eventually(told) == ["Successfully assigned default/web to n1"]


async def test_a_pod_that_fits_nowhere_says_why_and_runs_when_room_appears():
    async with cluster() as client:
        await make_service_account(client)
        await make_node(client, cpu="1")
        await client.create(POD, pod("big", cpu="2"))

        async def refused():
            condition = await condition_of(client, "big")
            return condition if condition.get("reason") == "Unschedulable" else None

        condition = await eventually(refused)
        expected = (
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
        assert (condition["status"], condition["message"]) == ("False", expected)

        async def told():
            return await messages(client, "FailedScheduling")

        assert await eventually(told) == [expected]
        await make_node(client, "n2", cpu="4")
        assert await eventually(lambda: node_of(client, "big")) == "n2"


async def test_a_deleted_pod_makes_room():
    async with cluster() as client:
        await make_service_account(client)
        await make_node(client, pods="1")
        await client.create(POD, pod("one"))
        await eventually(lambda: node_of(client, "one"))
        await client.create(POD, pod("two"))

        async def refused():
            return (await condition_of(client, "two")).get("message")

        assert await eventually(refused) == (
            "0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        )
        await client.delete(POD, "one", "default", grace_seconds=0)
        assert await eventually(lambda: node_of(client, "two")) == "n1"


async def test_other_schedulers_pods_and_gated_pods_are_left_alone():
    async with cluster() as client:
        await make_service_account(client)
        await make_node(client)
        await client.create(POD, pod("theirs", schedulerName="other"))
        await client.create(POD, pod("gated", schedulingGates=[{"name": "example.com/wait"}]))
        await client.create(POD, pod("last"))
        await eventually(lambda: node_of(client, "last"))
        assert await node_of(client, "theirs") is None
        assert await node_of(client, "gated") is None
        gated = await client.get(POD, "gated", "default")
        gated["spec"].pop("schedulingGates")
        await client.update(POD, gated)
        assert await eventually(lambda: node_of(client, "gated")) == "n1"


async def test_a_failing_api_delays_but_loses_no_pod():
    faults: list[FaultyClient] = []

    def wrap(client):
        faults.append(FaultyClient(client))
        return faults[0]

    async with cluster(wrap) as client:
        await make_service_account(client)
        await make_node(client)
        faults[0].faults.append(Fault(verb="create", kind=POD, error=ServiceUnavailable("later"), times=1))
        await client.create(POD, pod("web"))
        assert await eventually(lambda: node_of(client, "web")) == "n1"


async def test_three_hundred_pods_at_once():
    async with cluster() as client:
        await make_service_account(client)
        for number in range(3):
            await make_node(client, f"n{number}", cpu="64", memory="64Gi", pods="500")
        await asyncio.gather(*(client.create(POD, pod(f"warm-{n}", cpu="1m")) for n in range(5)))
        await asyncio.gather(*(client.create(POD, pod(f"p-{n}", cpu="1m")) for n in range(300)))

        async def all_bound():
            found = await client.list(POD, "default")
            return sum(bool(item.decode()["spec"].get("nodeName")) for item in found.items) == 305

        assert await eventually(all_bound, seconds=60)
