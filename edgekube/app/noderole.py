"""The label that says which node runs a control plane. A node may not give it to itself (NodeRestriction), so the server does.

Follows its own Node, so that one that was deleted and registered again gets it again. Costs nothing while the Node has it.
"""

import asyncio
import logging

from edgekube.api.catalog import NODE
from edgekube.api.item import Item
from edgekube.client.cache import Cache, Source
from edgekube.client.protocol import Client
from edgekube.errors import ApiError
from edgekube.lib.backoff import Backoff

log = logging.getLogger(__name__)

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


class ControlPlaneRole:
    """A component."""

    name = "node-role"

    def __init__(self, *, client: Client, node_name: str) -> None:
        self._client, self._node = client, node_name
        self._cache = Cache(client=client, sources=(Source(NODE, fields=f"metadata.name={node_name}"),))
        self._missing = asyncio.Event()
        self._cache.on_change(NODE, self._changed)

    async def run(self, ready: asyncio.Event) -> None:
        """Until cancelled."""
        backoff = Backoff(base=0.5, cap=30.0, jitter=0.2)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._cache.run(), name="node-role/cache")
            ready.set()
            while True:
                await self._missing.wait()
                self._missing.clear()
                try:
                    await self._client.patch(NODE, self._node, "", {"metadata": {"labels": {CONTROL_PLANE: "true"}}})
                    backoff.forget("")
                except ApiError as error:
                    log.warning("node not labelled", extra={"node": self._node, "error": error.message})
                    self._missing.set()
                    await asyncio.sleep(backoff.delay(""))

    def _changed(self, _old: Item | None, new: Item | None) -> None:
        if new is not None and CONTROL_PLANE not in new.labels:
            self._missing.set()
