"""A Client for a node that must live without its server: what the node needs is remembered, and answered while the server is away.

    client = ShadowClient(HttpClient(...), store)         # store: shadowstore.ShadowStore, opened and running

              server answers                         server can not be reached
    list      its answer, remembered                 what is remembered, marked so (revision 0); at a cold start after 2 s at most;
                                                     of what was never seen: waits for the server
    watch     its events, remembered                 waits for the server, then Expired: the reflector lists again (EndpointSlices
                                                     meanwhile follow the pods of this node, see alone.py)
    get       its answer                             the remembered object
    others    its answer                             the error, as it is

Only the sources of remembered.py are; everything else passes through. Promises: nothing remembered is told while the server answers; after
contact was lost every watch begins with a new list, so it does not matter what happened meanwhile: deleted, replaced, or the server was
restored from a backup (a list whose revision has gone back ends the other watches of its source).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from edgekube.api import meta
from edgekube.api.catalog import POD
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Key, Obj
from edgekube.client.alone import Alone
from edgekube.client.contact import AWAY, Contact
from edgekube.client.protocol import Change, ChangeType, Client, ItemList, PatchType
from edgekube.client.reflector import Source
from edgekube.client.remembered import PINNED, Rule, rule_for
from edgekube.client.shadowstore import Picture, ShadowStore, source_id
from edgekube.errors import Expired
from edgekube.lib.backoff import Backoff

_PAGES = 64  # lists under way whose earlier pages are kept
PATIENCE = 2.0  # seconds for the first answer, when there is something to start with


class ShadowClient:
    """See the module. Implements client.protocol.Client."""

    def __init__(self, inner: Client, store: ShadowStore, *, probe: Backoff | None = None, patience: float = PATIENCE) -> None:
        self.inner, self._store = inner, store
        self.contact = Contact(lambda: inner.raw("GET", "/version"), patience=patience, backoff=probe)
        self._ask = self.contact.ask
        self._alone = Alone(store, self.contact)
        self._pages: dict[tuple[str, str], dict[Key, Item]] = {}
        self._watches: dict[int, tuple[Picture, asyncio.Timeout]] = {}

    # reading

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Obj:
        known = None if subresource else self._store.find(kind, Key(namespace, name))
        if known is not None and self.contact.away:
            return self._alone.one(kind, known).decode()
        try:
            ask = partial(self.inner.get, kind, name, namespace, subresource=subresource)
            obj = await (self._ask(ask()) if known is None else self.contact.first(ask))
        except AWAY:
            if known is None:
                raise
            return self._alone.one(kind, known).decode()
        if (kind, Key(namespace, name)) in PINNED:
            self._remember_one(kind, obj)
        return obj

    def _remember_one(self, kind: Kind, obj: Obj) -> None:
        key, revision = meta.key_of(obj), int(obj["metadata"]["resourceVersion"])
        source = Source(kind, key.namespace, fields=f"metadata.name={key.name}")
        rule, known = rule_for(source), self._store.picture(source)
        if rule is not None and (known is None or not known.users):  # else its watch knows better
            self._store.replace(rule, source, {key: meta.item_of(kind, meta.encode(obj), revision, obj)}, revision)

    async def list(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        continue_token: str = "",
        resource_version: str = "",
    ) -> ItemList:
        source = Source(kind, namespace, labels, fields)
        rule = rule_for(source)
        ask = partial(self._list, source, limit, continue_token, resource_version)
        if rule is None:
            return await self._ask(ask())
        picture = self._store.picture(source)
        if picture is not None and self.contact.away and not continue_token:
            return self._remembered(picture)
        try:
            page = await (self.contact.at_last(ask) if picture is None else self.contact.first(ask))
        except AWAY as error:
            if continue_token or picture is None:
                raise Expired("the server went away in the middle of a list") from error
            return self._remembered(picture)
        return self._remember_page(rule, source, page, continue_token)

    def _list(self, source: Source, limit: int, token: str, revision: str) -> Awaitable[ItemList]:
        selectors = {"labels": source.labels, "fields": source.fields}
        return self.inner.list(source.kind, source.namespace, limit=limit, continue_token=token, resource_version=revision, **selectors)

    def _remembered(self, picture: Picture) -> ItemList:
        return ItemList(items=self._alone.told(picture), revision=0, remembered=True)

    def _remember_page(self, rule: Rule, source: Source, page: ItemList, token: str) -> ItemList:
        items = [self._store.intern(source, item) for item in page.items]
        name = source_id(source)
        earlier = self._pages.pop((name, token), None) if token else {}
        if earlier is not None:  # else another list with the same token was quicker, and has all of it
            collected = earlier | {item.key: item for item in items}
            if page.continue_token:
                while len(self._pages) >= _PAGES:
                    self._pages.pop(next(iter(self._pages)))
                self._pages[name, page.continue_token] = collected
            else:
                self._replace(rule, source, collected, page.revision)
        return ItemList(items=items, revision=page.revision, continue_token=page.continue_token, remaining=page.remaining)

    def _replace(self, rule: Rule, source: Source, items: Mapping[Key, Item], revision: int) -> None:
        """A list that is older than what watches have told: it was late, or the server's history has gone back. They all begin again."""
        picture = self._store.picture(source)
        if picture is not None and revision < picture.revision:
            for watched, timeout in self._watches.values():
                if watched is picture:
                    timeout.reschedule(asyncio.get_running_loop().time())
        self._store.replace(rule, source, items, revision)

    # watching

    def watch(
        self, kind: Kind, namespace: str = "", *, revision: int, labels: str = "", fields: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Change]]]:
        source = Source(kind, namespace, labels, fields)
        if rule_for(source) is None:
            return self.inner.watch(kind, namespace, revision=revision, labels=labels, fields=fields)
        return self._watch(source, revision)

    @contextlib.asynccontextmanager
    async def _watch(self, source: Source, revision: int) -> AsyncIterator[AsyncIterator[Sequence[Change]]]:
        picture = self._store.picture(source)
        if self.contact.away or revision == 0:  # what the caller knows is not the server's
            async with contextlib.aclosing(self._alone.changes(picture, revision)) as changes:
                yield changes
            return
        with self._counted(picture) as end:
            try:
                async with end:
                    opening = self.inner.watch(source.kind, source.namespace, revision=revision, labels=source.labels, fields=source.fields)
                    async with opening as batches:
                        self.contact.found()
                        yield self._changes(source, batches)
            except AWAY as error:
                self.contact.lost(error.message)
                raise
            except TimeoutError:
                if not end.expired():
                    raise
                raise Expired("the server's history has gone back: list again") from None

    @contextlib.contextmanager
    def _counted(self, picture: Picture | None) -> Iterator[asyncio.Timeout]:
        """A way to end this watch from outside; while it lasts the picture is in use."""
        end = asyncio.timeout(None)
        if picture is None:
            yield end
            return
        picture.users += 1
        self._watches[id(end)] = (picture, end)
        try:
            yield end
        finally:
            picture.users -= 1
            del self._watches[id(end)]

    async def _changes(self, source: Source, batches: AsyncIterator[Sequence[Change]]) -> AsyncIterator[Sequence[Change]]:
        async for batch in batches:
            told: list[Change] = []
            for kind, item in batch:
                kept = item if kind is ChangeType.BOOKMARK else self._store.intern(source, item)
                gone = kind in (ChangeType.DELETED, ChangeType.BOOKMARK)
                self._store.change(source, kept.key, None if gone else kept, kept.revision)
                told.append(Change(kind, kept))
            yield told

    # writing

    async def create(
        self, kind: Kind, obj: Obj, namespace: str = "", *, subresource: str = "", name: str = "", dry_run: bool = False
    ) -> Obj:
        return await self._ask(self.inner.create(kind, obj, namespace, subresource=subresource, name=name, dry_run=dry_run))

    async def update(self, kind: Kind, obj: Obj, *, subresource: str = "", field_manager: str = "") -> Obj:
        status = kind == POD and subresource == "status"
        try:
            answer = await self._ask(self.inner.update(kind, obj, subresource=subresource, field_manager=field_manager))
        except AWAY:
            if status:
                self._alone.not_heard(obj)
            raise
        if status:
            self._alone.heard(answer)
        return answer

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        patch: Any,
        *,
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> Obj:
        return await self._ask(
            self.inner.patch(
                kind,
                name,
                namespace,
                patch,
                patch_type=patch_type,
                subresource=subresource,
                field_manager=field_manager,
                force=force,
                dry_run=dry_run,
            )
        )

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        grace_seconds: int | None = None,
        propagation: str = "",
        uid: str = "",
        revision: str = "",
    ) -> Obj:
        return await self._ask(
            self.inner.delete(kind, name, namespace, grace_seconds=grace_seconds, propagation=propagation, uid=uid, revision=revision)
        )

    async def raw(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
        return await self._ask(self.inner.raw(method, path, query=query, body=body))
