"""A Client whose cable can be pulled: calls fail, or hang, and open watches break, until it is plugged in again (into another server, too)."""

import asyncio
import contextlib

from edgekube.errors import ServiceUnavailable

_VERBS = ("get", "list", "create", "update", "patch", "delete", "raw")


class Cable:
    """Implements client.protocol.Client over `inner`."""

    def __init__(self, inner, *, plugged=True):
        self.inner, self.plugged, self.hanging = inner, plugged, False
        self.calls: list[str] = []  # verbs, also of those that failed
        self._pulled = asyncio.Event()

    def pull(self, *, hang=False):
        """`hang`: nobody refuses, nobody answers."""
        self.plugged, self.hanging = False, hang
        self._pulled.set()

    def plug(self, inner=None):
        self.inner, self.plugged = inner or self.inner, True
        self._pulled = asyncio.Event()

    def __getattr__(self, verb):
        if verb not in _VERBS:
            raise AttributeError(verb)

        async def call(*args, **options):
            self.calls.append(verb)
            await self._check()
            return await getattr(self.inner, verb)(*args, **options)

        return call

    async def _check(self):
        if not self.plugged:
            if self.hanging:
                await asyncio.Event().wait()
            raise ServiceUnavailable("the cable is out")

    @contextlib.asynccontextmanager
    async def watch(self, kind, namespace="", **options):
        self.calls.append("watch")
        await self._check()
        async with self.inner.watch(kind, namespace, **options) as batches:
            yield self._batches(batches)

    async def _batches(self, batches):
        """Until the cable is pulled."""
        pulled = self._pulled
        while True:
            step = asyncio.get_running_loop().create_task(anext(batches, None))
            out = asyncio.get_running_loop().create_task(pulled.wait())
            try:
                await asyncio.wait({step, out}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                out.cancel()
                if not step.done():
                    step.cancel()
                    await asyncio.wait({step})
            if pulled.is_set():
                raise ServiceUnavailable("the cable was pulled")
            if (batch := step.result()) is None:
                return
            yield batch
