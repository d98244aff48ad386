"""Start components in order, each ready before the next; stop them in reverse.

    start:  part 1 run -> ready -> part 2 run -> ready -> ... -> all ready -> on_ready()
    stop:   ... -> cancel part 2, wait -> cancel part 1, wait
    a part that ends or fails by itself cancels the rest: the process exits and its supervisor restarts it

Stopping never tears down what the parts manage (containers, links, rules): starting adopts it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

log = logging.getLogger(__name__)


class Component(Protocol):
    """One part of the process. `run` works until cancelled and sets `ready` once others may rely on it."""

    name: str

    async def run(self, ready: asyncio.Event) -> None: ...


class StartTimeout(RuntimeError):
    """A part did not become ready in time."""


async def supervise(
    parts: Sequence[Component], stop: asyncio.Event, *, on_ready: Callable[[], None] = lambda: None, start_timeout: float = 120.0
) -> None:
    """Run `parts` until `stop` is set. Raises what a part raised, or RuntimeError if one ended by itself."""
    async with contextlib.AsyncExitStack() as stack:
        for part in parts:
            if stop.is_set():
                return
            await stack.enter_async_context(_running(part, stop, start_timeout))
        if not stop.is_set():
            on_ready()
        await stop.wait()


@contextlib.asynccontextmanager
async def _running(part: Component, stop: asyncio.Event, start_timeout: float) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        ready = asyncio.Event()
        task = group.create_task(_never_returns(part, ready), name=part.name)
        try:
            await _ready_or_stop(part, ready, stop, start_timeout)
            yield
        finally:
            log.debug("component stopping", extra={"component": part.name})
            task.cancel("stopping")


async def _ready_or_stop(part: Component, ready: asyncio.Event, stop: asyncio.Event, timeout: float) -> None:
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(ready.wait()), group.create_task(stop.wait())]
        done, pending = await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
    if not done:
        raise StartTimeout(f"{part.name} was not ready after {timeout:.0f} s")


async def _never_returns(part: Component, ready: asyncio.Event) -> None:
    await part.run(ready)
    raise RuntimeError(f"{part.name} ended by itself")
