"""The one door to `asyncio.create_task`: every task has a name, an owner that keeps it, and its death is logged once."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


async def until_set(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None if `stop` was set first: then it has been cancelled, and has ended. Raises what it raises."""
    loop = asyncio.get_running_loop()
    task, waiting = loop.create_task(work), loop.create_task(stop.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in (task, waiting):
            one.cancel("stopping")
        await asyncio.wait({task, waiting})
    return None if task.cancelled() else task.result()


class TaskScope:
    """Owns tasks that come and go (one per pod, per connection). Unlike TaskGroup, one failing member leaves the others alone.

    A member that dies of an exception is logged once and forgotten. `close` cancels what is left and waits for it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coro: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Start `coro`; the scope keeps it alive and reports its death. Raises RuntimeError after `close`."""
        if self._closed:
            coro.close()
            raise RuntimeError(f"task scope {self._name} is closed")
        task = asyncio.get_running_loop().create_task(coro, name=f"{self._name}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", extra={"task": task.get_name()}, exc_info=error)

    async def close(self) -> None:
        """Cancel every member and wait until all have ended. Safe to call twice."""
        self._closed = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel("stopping")
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> "TaskScope":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
