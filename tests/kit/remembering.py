"""A ShadowClient as one agent process has it, with waiting times of a test."""

import asyncio
import contextlib

from edgekube.client.keeper import Pace
from edgekube.client.shadow import ShadowClient
from edgekube.client.shadowstore import ShadowStore
from edgekube.lib.backoff import Backoff
from edgekube.lib.sealed import FileKey, SealedLog

QUICK = Pace(soon=0.01, gather=0.02, later=0.05, retry=0.05)


@contextlib.asynccontextmanager
async def remembering(folder, inner, *, pace=QUICK, patience=0.2):
    """Leaving is the end of the process: what waits is written. `client.notes` is its store."""
    store = ShadowStore(file=SealedLog(folder / "state", FileKey(folder / "state.key")), pace=pace)
    await store.open()
    client = ShadowClient(inner, store, probe=Backoff(base=0.01, cap=0.05), patience=patience)
    client.notes = store
    ready = asyncio.Event()
    running = asyncio.get_running_loop().create_task(store.run(ready))
    await ready.wait()
    try:
        yield client
    finally:
        running.cancel()
        await asyncio.wait({running})
