"""A Client that misbehaves on command, for tests: calls of chosen verbs and kinds fail, wait, or happen although they report failure.

client = FaultyClient(inner, [Fault("create", POD, error=ServiceUnavailable("down"), times=3), Fault("watch", duplicate=True)])
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.client.protocol import Change, Client, ItemList, PatchType
from edgekube.errors import ApiError

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Fault:
    """What goes wrong. `times` calls are hit (-1: all) after `skip` were let through; `after=True` fails although the call took effect."""

    verb: str
    kind: Kind | None = None
    error: ApiError | None = None
    delay: float = 0.0
    after: bool = False
    duplicate: bool = False  # watch: every batch comes twice
    cut: bool = False  # watch: `error` (or the end of the stream) comes after the first batch
    times: int = -1
    skip: int = 0

    def takes(self, verb: str, kind: Kind | None) -> bool:
        """Whether this call is hit; counts it."""
        if verb != self.verb or self.times == 0 or (self.kind is not None and kind != self.kind):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times > 0:
            self.times -= 1
        return True


class FaultyClient:
    """Wraps any Client; `faults` may be changed at any time. The first fault that matches is the one that happens."""

    def __init__(self, inner: Client, faults: Sequence[Fault] = ()) -> None:
        self.inner = inner
        self.faults = list(faults)
        self.calls: list[tuple[str, str]] = []  # (verb, plural) of every call that was made

    def _fault(self, verb: str, kind: Kind | None) -> Fault | None:
        self.calls.append((verb, kind.plural if kind else ""))
        return next((fault for fault in self.faults if fault.takes(verb, kind)), None)

    async def _call(self, verb: str, kind: Kind | None, call: Callable[[], Awaitable[T]]) -> T:
        fault = self._fault(verb, kind)
        if fault is None:
            return await call()
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.error is not None and not fault.after:
            raise fault.error
        result = await call()
        if fault.error is not None:
            raise fault.error
        return result

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Obj:
        return await self._call("get", kind, lambda: self.inner.get(kind, name, namespace, subresource=subresource))

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
        return await self._call(
            "list",
            kind,
            lambda: self.inner.list(
                kind,
                namespace,
                labels=labels,
                fields=fields,
                limit=limit,
                continue_token=continue_token,
                resource_version=resource_version,
            ),
        )

    def watch(
        self, kind: Kind, namespace: str = "", *, revision: int, labels: str = "", fields: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Change]]]:
        return self._watch(kind, namespace, revision, labels, fields)

    @contextlib.asynccontextmanager
    async def _watch(
        self, kind: Kind, namespace: str, revision: int, labels: str, fields: str
    ) -> AsyncIterator[AsyncIterator[Sequence[Change]]]:
        fault = self._fault("watch", kind)
        if fault is not None and fault.delay:
            await asyncio.sleep(fault.delay)
        if fault is not None and fault.error is not None and not fault.cut:
            raise fault.error
        async with self.inner.watch(kind, namespace, revision=revision, labels=labels, fields=fields) as batches:
            yield batches if fault is None else _spoiled(batches, fault)

    async def create(
        self, kind: Kind, obj: Obj, namespace: str = "", *, subresource: str = "", name: str = "", dry_run: bool = False
    ) -> Obj:
        return await self._call(
            "create", kind, lambda: self.inner.create(kind, obj, namespace, subresource=subresource, name=name, dry_run=dry_run)
        )

    async def update(self, kind: Kind, obj: Obj, *, subresource: str = "", field_manager: str = "") -> Obj:
        return await self._call("update", kind, lambda: self.inner.update(kind, obj, subresource=subresource, field_manager=field_manager))

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
        return await self._call(
            "patch",
            kind,
            lambda: self.inner.patch(
                kind,
                name,
                namespace,
                patch,
                patch_type=patch_type,
                subresource=subresource,
                field_manager=field_manager,
                force=force,
                dry_run=dry_run,
            ),
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
        return await self._call(
            "delete",
            kind,
            lambda: self.inner.delete(
                kind, name, namespace, grace_seconds=grace_seconds, propagation=propagation, uid=uid, revision=revision
            ),
        )

    async def raw(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
        return await self._call("raw", None, lambda: self.inner.raw(method, path, query=query, body=body))


async def _spoiled(batches: AsyncIterator[Sequence[Change]], fault: Fault) -> AsyncIterator[Sequence[Change]]:
    async for batch in batches:
        yield batch
        if fault.duplicate:
            yield batch
        if fault.cut:
            if fault.error is not None:
                raise fault.error
            return
