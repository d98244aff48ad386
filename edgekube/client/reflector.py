"""Keep a KindStore equal to what the API server has: list in pages, watch from there, resume, list again when history is gone.

Reads one source (a kind, narrowed by namespace, labels or fields); writes its KindStore. Promises that no change is lost or told twice:
the watch resumes after the last applied revision, a repeated event is skipped by its revision, and a new list is compared with what is
known, so that what vanished meanwhile is told as deleted. Trouble is retried with jittered back-off and logged once per outage.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from edgekube.api.kind import Kind
from edgekube.api.types import Key
from edgekube.client.index import KindStore
from edgekube.client.protocol import Change, ChangeType, Client
from edgekube.errors import ApiError, Expired, Gone, ServerTimeout, ServiceUnavailable, Timeout, TooManyRequests
from edgekube.lib.backoff import Backoff

log = logging.getLogger(__name__)

PAGE = 500
CHUNK = 200  # changes applied before other tasks get the loop
SHORT_WATCH = 1.0  # a watch that ends sooner without news is trouble, not a time limit


@dataclass(frozen=True, slots=True)
class Source:
    """What to watch. Selectors are written as in a query; only what matches exists for the cache."""

    kind: Kind
    namespace: str = ""
    labels: str = ""
    fields: str = ""


class Reflector:
    """One list+watch. `scope` tells which keys of the store are this source's (default: all), for lists that show what vanished."""

    def __init__(self, client: Client, source: Source, store: KindStore, *, scope: Callable[[], Collection[Key]] | None = None) -> None:
        self._client, self._source, self._store = client, source, store
        self._scope = scope or (lambda: [item.key for item in store])
        self._backoff = Backoff(base=0.05, cap=30.0, jitter=0.5)
        self._revision = 0
        self._in_trouble = False

    async def run(self) -> None:
        """Until cancelled."""
        listed = False
        while True:
            try:
                if not listed:
                    await self._list()
                    listed = True
                await self._watch()
            except (Expired, Gone):
                if not listed:
                    await self._pause("list expired")
                listed = False
            except (ServiceUnavailable, TooManyRequests, ServerTimeout, Timeout) as error:
                listed = listed and not _is_ahead(error)
                await self._pause(error.message)
            except ApiError as error:
                listed = False
                await self._pause(error.message)

    async def _pause(self, why: str) -> None:
        delay = self._backoff.delay("")
        level = logging.DEBUG if self._in_trouble or self._backoff.failures("") < 3 else logging.WARNING
        if level == logging.WARNING:
            self._in_trouble = True
        log.log(level, "watch interrupted", extra={"resource": self._source.kind.plural, "reason": why})
        await asyncio.sleep(delay)

    def _recovered(self) -> None:
        self._backoff.forget("")
        if self._in_trouble:
            self._in_trouble = False
            log.info("watch resumed", extra={"resource": self._source.kind.plural})

    async def _list(self) -> None:
        """Pages are applied as they come; what the list does not have is dropped at its end."""
        source, store = self._source, self._store
        gone = set(self._scope())
        token, revision = "", 0
        while True:
            page = await self._client.list(
                source.kind, source.namespace, labels=source.labels, fields=source.fields, limit=PAGE, continue_token=token
            )
            for item in page.items:
                gone.discard(item.key)
                known = store.get(item.key)
                if known is None or known.revision != item.revision or known.uid != item.uid or known.raw != item.raw:
                    store.put(item)
            token, revision = page.continue_token, page.revision
            if not token:
                break
        for key in gone:
            store.drop(key)
        self._revision = revision
        store.reached(revision)
        store.synced.set()
        if not page.remembered:
            store.fresh.set()
        self._recovered()

    async def _watch(self) -> None:
        source, loop = self._source, asyncio.get_running_loop()
        started, news = loop.time(), False
        async with self._client.watch(
            source.kind, source.namespace, revision=self._revision, labels=source.labels, fields=source.fields
        ) as batches:
            async for batch in batches:
                for start in range(0, len(batch), CHUNK):
                    if start:
                        await asyncio.sleep(0)
                    self._apply(batch[start : start + CHUNK])
                if not news:
                    news = True
                    self._recovered()
        if not news and loop.time() - started < SHORT_WATCH:
            await self._pause("watch ended at once")

    def _apply(self, changes: Iterable[Change]) -> None:
        for kind, item in changes:
            if item.revision <= self._revision:
                continue
            self._revision = item.revision
            if kind is ChangeType.DELETED:
                self._store.drop(item.key, item)
            elif kind is not ChangeType.BOOKMARK:
                self._store.put(item)
        self._store.reached(self._revision)


def _is_ahead(error: ApiError) -> bool:
    """The server does not know our revision yet (it was restored from a backup): only a new list helps."""
    return any(cause.get("reason") == "ResourceVersionTooLarge" for cause in (error.details or {}).get("causes") or ())
