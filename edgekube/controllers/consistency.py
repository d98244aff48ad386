"""Remember what a reconcile wrote, and wait until the cache shows it, before the same key is looked at again.

`TrackingClient` stands before a controller's real client and notes every write in the `Writes` of the reconcile that is running (a context
variable, so that the tasks it starts count too). This takes the place of upstream's expectations: a write that the cache has seen is no
longer pending, and a deletion is pending until the object is gone, marked as deleting, or another one.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from functools import partial
from typing import Any

from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Key, Obj
from edgekube.client.cache import Cache
from edgekube.client.protocol import Change, Client, ItemList, PatchType
from edgekube.errors import NotFound


class Writes:
    """What one reconcile did."""

    __slots__ = ("_deleted", "_revisions")

    def __init__(self) -> None:
        self._revisions: dict[Kind, int] = {}
        self._deleted: dict[tuple[Kind, Key], str] = {}

    def __bool__(self) -> bool:
        return bool(self._revisions or self._deleted)

    def wrote(self, kind: Kind, obj: Obj) -> None:
        about = obj.get("metadata") or {}
        if obj.get("kind") == kind.kind and about.get("resourceVersion"):
            self._revisions[kind] = max(self._revisions.get(kind, 0), int(about["resourceVersion"]))

    def deleted(self, kind: Kind, key: Key, uid: str) -> None:
        self._deleted[kind, key] = uid

    async def seen_by(self, cache: Cache) -> None:
        """Until `cache` shows all of it. No deadline of its own."""
        for kind, revision in self._revisions.items():
            if cache.watches(kind):
                await cache.wait_for(kind, revision)
        for (kind, key), uid in self._deleted.items():
            if cache.watches(kind):
                await cache.wait_until(kind, key, partial(_is_gone, uid))


def _is_gone(uid: str, item: Item | None) -> bool:
    return item is None or item.deleting or (bool(uid) and item.uid != uid)


CURRENT: ContextVar[Writes | None] = ContextVar("edgekube_reconcile_writes", default=None)


class TrackingClient:
    """A Client that notes writes in the running reconcile."""

    def __init__(self, inner: Client) -> None:
        self._inner = inner

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Obj:
        return await self._inner.get(kind, name, namespace, subresource=subresource)

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
        return await self._inner.list(
            kind, namespace, labels=labels, fields=fields, limit=limit, continue_token=continue_token, resource_version=resource_version
        )

    def watch(
        self, kind: Kind, namespace: str = "", *, revision: int, labels: str = "", fields: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Change]]]:
        return self._inner.watch(kind, namespace, revision=revision, labels=labels, fields=fields)

    async def create(
        self, kind: Kind, obj: Obj, namespace: str = "", *, subresource: str = "", name: str = "", dry_run: bool = False
    ) -> Obj:
        return _wrote(kind, await self._inner.create(kind, obj, namespace, subresource=subresource, name=name, dry_run=dry_run))

    async def update(self, kind: Kind, obj: Obj, *, subresource: str = "", field_manager: str = "") -> Obj:
        return _wrote(kind, await self._inner.update(kind, obj, subresource=subresource, field_manager=field_manager))

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
        answer = await self._inner.patch(
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
        return _wrote(kind, answer)

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
        writes = CURRENT.get()
        try:
            answer = await self._inner.delete(
                kind, name, namespace, grace_seconds=grace_seconds, propagation=propagation, uid=uid, revision=revision
            )
        except NotFound:
            if writes is not None:
                writes.deleted(kind, Key(namespace, name), uid)
            raise
        if writes is not None:
            gone = (answer.get("details") or {}).get("uid", "") if answer.get("kind") == "Status" else answer["metadata"].get("uid", "")
            writes.deleted(kind, Key(namespace, name), uid or gone)
        return answer

    async def raw(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
        return await self._inner.raw(method, path, query=query, body=body)


def _wrote(kind: Kind, answer: Obj) -> Obj:
    writes = CURRENT.get()
    if writes is not None:
        writes.wrote(kind, answer)
    return answer
