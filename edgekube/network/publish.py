"""Tells what the self-test found: as conditions of the Node, and in a file that `edgekube check --network` reads.

Writes Node status (only conditions of our own types, only when they change) and the file; reads the Node from the component's cache.
Quiet while nothing changes; while the API is away it tries again with back-off.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from edgekube.api.catalog import NODE
from edgekube.api.types import Obj
from edgekube.client.protocol import Client, PatchType
from edgekube.errors import ApiError, NotFound
from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import Clock, rfc3339
from edgekube.lib.files import write_atomic
from edgekube.network import verdict
from edgekube.network.verdict import Verdict

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.3  # verdicts of one round are one write
REPORT = "network.json"


@dataclass(frozen=True, slots=True)
class State:
    """What there is to tell. `node`: the Node as last seen, if it was."""

    node: Obj | None
    address: str
    verdicts: Sequence[Verdict]
    troubles: Sequence[str]


class Publisher:
    """`state` is asked at each write."""

    def __init__(self, *, node_name: str, client: Client, clock: Clock, folder: Path | None, state: Callable[[], State]) -> None:
        self._node_name, self._client, self._clock, self._folder, self._state = node_name, client, clock, folder, state
        self._report_due, self._conditions_due = asyncio.Event(), asyncio.Event()

    def tell(self) -> None:
        """Something has changed."""
        self._report_due.set()
        self._conditions_due.set()

    async def run(self) -> None:
        """The file does not wait for a server that is away."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reports(), name="network/report")
            group.create_task(self._statuses(), name="network/conditions")

    async def _reports(self) -> None:
        while True:
            await self._report_due.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._report_due.clear()
            await self._report(self._state())

    async def _statuses(self) -> None:
        backoff = Backoff(base=1.0, cap=60.0, jitter=0.2)
        while True:
            await self._conditions_due.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._conditions_due.clear()
            try:
                await self._conditions(self._state())
                backoff.forget("")
            except ApiError as error:
                log.debug("condition of the overlay not written", extra={"error": error.message})
                await asyncio.sleep(backoff.delay(""))
                self._conditions_due.set()

    async def _report(self, state: State) -> None:
        if self._folder is None:
            return
        data = orjson.dumps(verdict.report(self._node_name, state.address, state.verdicts, state.troubles))
        with contextlib.suppress(OSError):  # the folder went: a machine that is being uninstalled
            await asyncio.to_thread(write_atomic, self._folder / REPORT, data)

    async def _conditions(self, state: State) -> None:
        if state.node is None:
            return
        old = (state.node.get("status") or {}).get("conditions") or ()
        changed = verdict.conditions(state.verdicts, state.troubles, old, rfc3339(self._clock.now()))
        if changed:
            patch = {"status": {"conditions": changed}}
            with contextlib.suppress(NotFound):  # it is registered again soon, which wakes us
                await self._client.patch(NODE, self._node_name, "", patch, patch_type=PatchType.STRATEGIC, subresource="status")


def load(folder: Path) -> Obj | None:
    """The report of the node whose run directory this is; None: there is none yet."""
    try:
        found: Obj = orjson.loads((folder / REPORT).read_bytes())
    except (OSError, ValueError):
        return None
    return found
