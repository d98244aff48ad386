"""What the API shows of a pod is what the kubelet last said of it, whoever wrote something else meanwhile."""

import asyncio
import copy

from edgekube.api.catalog import POD
from tests.kit.node import condition, live_node, pod


async def marked_not_ready(node, name):
    """As the node lifecycle controller marks the pods of a node that it has not heard of."""
    found = copy.deepcopy(await node.get(name))
    for one in found["status"]["conditions"]:
        if one["type"] == "Ready":
            one["status"] = "False"
    await node.client.update(POD, found, subresource="status")


async def test_a_pod_that_others_marked_is_ready_again(tmp_path):
    async with live_node(tmp_path) as node:
        await node.apply(pod("web"))
        await node.ready("web")
        await marked_not_ready(node, "web")
        await node.ready("web")


async def test_also_after_it_was_looked_at_without_news(tmp_path):
    """A status that says the same is no other status, though it is another object."""
    async with live_node(tmp_path) as node:
        await node.apply(pod("web"))
        found = await node.ready("web")
        reporter = node.kubelet._reporter
        uid = found["metadata"]["uid"]
        async with asyncio.timeout(5):
            while not reporter.settled(uid):
                await asyncio.sleep(0.01)
        reporter.report(found, copy.deepcopy(reporter.current(uid)))
        await marked_not_ready(node, "web")
        assert condition(await node.ready("web"), "Ready")["status"] == "True"
