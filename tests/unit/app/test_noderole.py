"""The server labels its own node, and again when the Node comes anew."""

import asyncio

from edgekube.api.catalog import NODE
from edgekube.app.noderole import CONTROL_PLANE, ControlPlaneRole
from tests.kit.apiserver import live_server


async def test_its_own_node_gets_the_label_whenever_it_comes() -> None:
    async with live_server() as live, asyncio.TaskGroup() as group:
        part = group.create_task(ControlPlaneRole(client=live.client, node_name="pi").run(asyncio.Event()))

        async def labelled(name: str) -> bool:
            node = await live.client.get(NODE, name)
            return CONTROL_PLANE in (node["metadata"].get("labels") or {})

        async def becomes_labelled(name: str) -> None:
            async with asyncio.timeout(10):
                while not await labelled(name):
                    await asyncio.sleep(0.01)

        for name in ("other", "pi"):
            await live.client.create(NODE, {"metadata": {"name": name}})
        await becomes_labelled("pi")
        await live.client.delete(NODE, "pi")
        await live.client.create(NODE, {"metadata": {"name": "pi"}})
        await becomes_labelled("pi")
        assert not await labelled("other")
        part.cancel()
