"""The Client of components in the same process: same permissions, admission and validation as over HTTP, without HTTP and JSON.

Reads hand out the store's own Items; watches hang on the store's publications and yield whole batches.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from edgekube.api import decoding, meta
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.selectors import parse_fields, parse_labels
from edgekube.api.types import Key, Obj
from edgekube.apiserver.identity import User
from edgekube.apiserver.negotiate import PLAIN
from edgekube.apiserver.operation import IGNORE, Operation
from edgekube.apiserver.registry import mapped
from edgekube.apiserver.request import Request, Response, StreamResponse
from edgekube.apiserver.server import Server
from edgekube.apiserver.subdispatch import OWN_BODY, patch_change
from edgekube.apiserver.subresources.protocol import Subresource
from edgekube.apiserver.verbs import listing
from edgekube.apiserver.verbs.create import create
from edgekube.apiserver.verbs.delete import DeleteOptions, Outcome, delete
from edgekube.apiserver.verbs.patching import patch_object
from edgekube.apiserver.verbs.update import update_or_create
from edgekube.apiserver.watchlines import Entry, Spec
from edgekube.client.protocol import Change, ChangeType, ItemList, PatchType
from edgekube.errors import ApiError, BadRequest, Expired, NotFound
from edgekube.store.protocol import Event, EventType, StoreError

BOOKMARK_EVERY = 60.0
_BEHIND = 10_000  # events a reader may leave lying before it must list again


class LocalClient:
    """Implements client.protocol.Client as `user`."""

    def __init__(self, server: Server, user: User) -> None:
        self._server, self._user = server, user

    def _operation(
        self, verb: str, kind: Kind, namespace: str, name: str = "", subresource: str = "", *, fields: str = "", **options: Any
    ) -> Operation:
        op = Operation(kind, self._user, namespace if kind.namespaced else "", name, subresource, field_validation=IGNORE, **options)
        self._server.authorize(self._user, verb, op, fields=fields)
        return op

    # reading

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Obj:
        op = self._operation("get", kind, namespace, name, subresource)
        if subresource:
            return await self._subresource(op).get(self._server, op)
        return self._server.registry.get(kind, op.namespace, name).decode()

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
        op = self._operation("list", kind, namespace, fields=fields)
        options = listing.parse_options(op, labels=labels, fields=fields, limit=str(limit), token=continue_token, revision=resource_version)
        found = await listing.list_items(self._server, op, options)
        return ItemList(found.items, found.revision, found.token, found.remaining or 0)

    def watch(
        self, kind: Kind, namespace: str = "", *, revision: int, labels: str = "", fields: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Change]]]:
        return self._watch(kind, namespace, revision, labels, fields)

    @contextlib.asynccontextmanager
    async def _watch(
        self, kind: Kind, namespace: str, revision: int, labels: str, fields: str
    ) -> AsyncIterator[AsyncIterator[Sequence[Change]]]:
        op = self._operation("watch", kind, namespace, fields=fields)
        spec = Spec(kind, op.namespace, parse_labels(labels), parse_fields(fields, kind.selectable), PLAIN, True)
        store = self._server.store
        queue: deque[Event] = deque()
        wake = asyncio.Event()

        def published(events: Sequence[Event]) -> None:
            queue.extend(events)
            wake.set()

        try:
            queue.extend(store.since(kind.bucket, revision))
        except StoreError as error:
            raise mapped(error, kind, "") from error
        stop = store.subscribe(kind.bucket, published)
        if queue:
            wake.set()
        batches = self._batches(spec, queue, wake)
        try:
            yield batches
        finally:
            stop()
            await batches.aclose()

    async def _batches(self, spec: Spec, queue: deque[Event], wake: asyncio.Event) -> AsyncGenerator[Sequence[Change], None]:
        while True:
            try:
                async with asyncio.timeout(BOOKMARK_EVERY):
                    await wake.wait()
            except TimeoutError:
                if not queue:
                    yield (Change(ChangeType.BOOKMARK, _bookmark(self._server.store.revision)),)
                    continue
            wake.clear()
            if len(queue) > _BEHIND:
                raise Expired("the watch fell too far behind")
            changes = [change for change in (_change(spec, event) for event in _drained(queue)) if change is not None]
            if changes:
                yield changes

    # writing

    async def create(
        self, kind: Kind, obj: Obj, namespace: str = "", *, subresource: str = "", name: str = "", dry_run: bool = False
    ) -> Obj:
        metadata = obj.get("metadata") or {}
        namespace = namespace or metadata.get("namespace", "")
        op = self._operation("create", kind, namespace, name if subresource else metadata.get("name", ""), subresource, dry_run=dry_run)
        fresh = _copy(obj)
        if subresource:
            handler = self._subresource(op)
            if handler.schema:
                decoding.clean_as(handler.schema, handler.schema.rpartition(".")[2], "v1", fresh, mode=IGNORE)
            return await handler.create(self._server, op, fresh)
        _named(kind, fresh)
        decoding.clean(kind, fresh, mode=IGNORE)
        virtual = self._server.virtual.get(kind)
        if virtual is not None:
            return await virtual.create(self._server, op, fresh)
        return (await create(self._server, op, fresh)).decode()

    async def update(self, kind: Kind, obj: Obj, *, subresource: str = "", field_manager: str = "") -> Obj:
        key = meta.key_of(obj)
        op = self._operation("update", kind, key.namespace, key.name, subresource, field_manager=field_manager)

        def change(_old: Obj) -> Obj:
            fresh: Obj = _copy(obj)
            if not subresource or subresource in OWN_BODY:
                _named(kind, fresh)
                decoding.clean(kind, fresh, mode=IGNORE)
            return fresh

        if subresource:
            return await self._subresource(op).update(self._server, op, change)
        return (await update_or_create(self._server, op, change))[0].decode()

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
        op = self._operation("patch", kind, namespace, name, subresource, field_manager=field_manager, force=force, dry_run=dry_run)
        if subresource:
            handler = self._subresource(op)
            return await handler.update(self._server, op, patch_change(self._server, op, handler, patch_type, patch))
        item, _ = await patch_object(self._server, op, patch_type, _copy(patch))
        return item.decode()

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
        op = self._operation("delete", kind, namespace, name)
        deleted = await delete(self._server, op, DeleteOptions(grace_seconds, propagation, uid, revision))
        if deleted.outcome is Outcome.KEPT:
            return deleted.item.decode()
        found: Obj = orjson.loads(deleted.body(kind)[0])
        return found

    async def raw(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
        parts = urlsplit(path)
        values = parse_qs(parts.query, keep_blank_values=True) | {name: [value] for name, value in (query or {}).items()}

        async def read_body() -> bytes:
            return body

        request = Request(method, parts.path, values, {"accept": "*/*"}, read_body, user=self._user)
        response = await self._server.handle_inside(request)
        if isinstance(response, StreamResponse):
            answer = b"".join([chunk async for chunk in response.chunks])
        elif isinstance(response, Response):
            answer = response.body
        else:
            raise BadRequest(f"{path} is a conversation, not an answer")
        if response.status >= 400:
            raise _error(response.status, answer)
        return answer

    def _subresource(self, op: Operation) -> Subresource:
        handler = self._server.subresource(op.kind, op.subresource)
        if handler is None:
            raise NotFound.path()
        return handler


def _copy(obj: Any) -> Any:
    """What is handed in stays the caller's."""
    return orjson.loads(orjson.dumps(obj))


def _named(kind: Kind, obj: Obj) -> None:
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
    obj.setdefault("metadata", {})


def _drained(queue: deque[Event]) -> Sequence[Event]:
    events = list(queue)
    queue.clear()
    return events


def _change(spec: Spec, event: Event) -> Change | None:
    """The same decision as for watch lines, on Items."""
    item, previous = Entry(event).items(spec.kind)
    if event.type is EventType.DELETED:
        return Change(ChangeType.DELETED, item) if spec.matches(previous or item) else None
    now = spec.matches(item)
    before = event.type is EventType.UPDATED and previous is not None and spec.matches(previous)
    if now:
        return Change(ChangeType.MODIFIED if before else ChangeType.ADDED, item)
    return Change(ChangeType.DELETED, item) if before else None


def _bookmark(revision: int) -> Item:
    return Item(raw=b"{}", key=Key("", ""), uid="", revision=revision, labels={}, fields={}, owners=(), controller="", deleting=False)


def _error(status: int, body: bytes) -> ApiError:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = {"code": status, "message": body.decode(errors="replace")}
    return ApiError.from_status(found)
