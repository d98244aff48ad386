"""Run one controller: its queue, its workers, retry with back-off, deadline, metrics, and the wait for its own writes.

    change in the cache -> keys -> queue -> worker: own last writes seen? -> reconcile(key) -> done | again after N s | error: back off

Promises one worker per key at a time, no lost change, and that an error of one key (any exception) never stops the others. Only here and
in lib.tasks is `Exception` caught.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Hashable
from contextvars import ContextVar
from functools import partial

from edgekube.api.item import Item
from edgekube.client.cache import Cache
from edgekube.controllers.base import Controller, Maps, Owns, Result
from edgekube.controllers.consistency import CURRENT, Writes
from edgekube.errors import ApiError, Conflict
from edgekube.lib.backoff import Backoff
from edgekube.lib.metrics import counter, gauge, histogram
from edgekube.lib.queue import WorkQueue

log = logging.getLogger(__name__)

_BUCKETS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100)
DEPTH = gauge("workqueue_depth", "Current depth of workqueue.", ("name",))
ADDS = counter("workqueue_adds_total", "Total number of adds handled by workqueue.", ("name",))
RETRIES = counter("workqueue_retries_total", "Total number of retries handled by workqueue.", ("name",))
WAITED = histogram("workqueue_queue_duration_seconds", "Seconds a key waited in the workqueue.", ("name",), buckets=_BUCKETS)
WORKED = histogram("workqueue_work_duration_seconds", "Seconds one key of the workqueue took.", ("name",), buckets=_BUCKETS)
UNFINISHED = gauge("workqueue_unfinished_work_seconds", "Seconds of work in progress that workqueue_work_duration has not seen.", ("name",))
LONGEST = gauge("workqueue_longest_running_processor_seconds", "Seconds the longest running worker has been at its key.", ("name",))

RECONCILE_ID: ContextVar[str] = ContextVar("edgekube_reconcile_id", default="")
CATCH_UP_SECONDS = 30.0
_ids = itertools.count(1)


class Runner:
    """One controller at work. Make it before the cache runs, so that it hears of every object."""

    def __init__(self, controller: Controller, cache: Cache) -> None:
        self.name = controller.name
        self._controller, self._cache = controller, cache
        self._queue: WorkQueue[Hashable] = WorkQueue()
        self._backoff = Backoff(base=0.005, cap=1000.0, jitter=0.1)
        self._pending: dict[Hashable, Writes] = {}
        self._added: dict[Hashable, float] = {}
        self._started: dict[Hashable, float] = {}
        self._label = controller.name.removesuffix("-controller").replace("-", "_")
        self._set_up_metrics()
        self._connect()

    def add(self, key: Hashable) -> None:
        """Look at `key` as soon as a worker is free."""
        self._adds.inc()
        self._added.setdefault(key, time.perf_counter())
        self._queue.add(key)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._controller.workers):
                group.create_task(self._work(), name=f"{self._controller.name}/{number}")

    # what wakes it

    def _connect(self) -> None:
        if self._controller.primary is not None:
            self._cache.on_change(self._controller.primary, self._on_primary)
        for watch in self._controller.watches():
            if isinstance(watch, Owns):
                self._cache.on_change(watch.kind, self._on_owned)
            else:
                self._cache.on_change(watch.kind, partial(self._on_mapped, watch))

    def _on_primary(self, old: Item | None, new: Item | None) -> None:
        item = new or old
        if item is not None:
            self.add(item.key)

    def _on_owned(self, old: Item | None, new: Item | None) -> None:
        primary = self._controller.primary
        if primary is None:
            return
        for uid in {item.controller for item in (old, new) if item is not None and item.controller}:
            owner = self._cache.by_uid(primary, uid)
            if owner is not None:
                self.add(owner.key)

    def _on_mapped(self, watch: Maps, old: Item | None, new: Item | None) -> None:
        for key in watch.function(old, new):
            self.add(key)

    # the work

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            now = time.perf_counter()
            self._waited.observe(now - self._added.pop(key, now))
            self._started[key] = now
            RECONCILE_ID.set(f"{next(_ids):x}")
            try:
                await self._one(key)
            finally:
                self._worked.observe(time.perf_counter() - self._started.pop(key))
                self._queue.done(key)

    async def _one(self, key: Hashable) -> None:
        """Never raises but for cancellation: errors become a retry."""
        extra = {"controller": self._controller.name, "key": _text(key), "reconcile": RECONCILE_ID.get()}
        try:
            async with asyncio.timeout(self._controller.deadline):
                result = await self._reconcile(key)
        except Conflict as error:
            log.debug("reconcile lost a race", extra=extra | {"why": error.message})
            self._again(key)
        except ApiError as error:
            log.info("reconcile refused", extra=extra | {"why": error.message})
            self._again(key)
        except TimeoutError:
            log.warning("reconcile took too long", extra=extra)
            self._again(key)
        except Exception as error:  # a broken reconcile of one key must not stop the others
            log.error("reconcile failed", extra=extra, exc_info=error)
            self._again(key)
        else:
            self._backoff.forget(key)
            if result.after is not None:
                self._queue.add_after(key, result.after)

    async def _reconcile(self, key: Hashable) -> Result:
        before = self._pending.pop(key, None)
        if before is not None:
            try:
                async with asyncio.timeout(CATCH_UP_SECONDS):
                    await before.seen_by(self._cache)
            except TimeoutError:
                log.warning("cache does not show our writes", extra={"controller": self._controller.name, "key": _text(key)})
        writes = Writes()
        token = CURRENT.set(writes)
        try:
            return await self._controller.reconcile(key)
        finally:
            CURRENT.reset(token)
            if writes:
                self._pending[key] = writes

    def _again(self, key: Hashable) -> None:
        self._retries.inc()
        self._queue.add_after(key, self._backoff.delay(key))

    # metrics

    def _set_up_metrics(self) -> None:
        name = self._label
        self._adds, self._retries = ADDS.labels(name), RETRIES.labels(name)
        self._waited, self._worked = WAITED.labels(name), WORKED.labels(name)
        DEPTH.labels(name).set_function(lambda: len(self._queue))
        UNFINISHED.labels(name).set_function(lambda: sum(self._ages()))
        LONGEST.labels(name).set_function(lambda: max(self._ages(), default=0.0))

    def _ages(self) -> list[float]:
        now = time.perf_counter()
        return [now - started for started in self._started.values()]


def _text(key: Hashable) -> str:
    return str(key)
