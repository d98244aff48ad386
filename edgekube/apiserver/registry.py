"""Kinds on top of the store: which key, which bytes, which error. The only place that knows both sides.

Reads and writes the store. Keys are `bucket/namespace/name` (`bucket/name` for kinds without namespaces); values carry their own
resourceVersion; tags are Items. Versions of one resource that live in two groups share a bucket and are converted on the way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekube.api import catalog, meta
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.errors import AlreadyExists, ApiError, Conflict, Expired, NotFound, Timeout
from edgekube.store.protocol import (
    Compacted,
    Encode,
    FutureRevision,
    KeyExists,
    KeyMissing,
    Record,
    RevisionMismatch,
    Store,
    StoreError,
    StoreUnavailable,
)

MAX_RETRIES = 5
_STORED = {kind.bucket: kind for kind in reversed(catalog.KINDS) if kind.to_storage is None and not kind.store_bucket}


def tagger(key: str, value: bytes, revision: int) -> Item:
    """What the store keeps beside each value; give it to the store when it is opened."""
    kind = _STORED.get(key.partition("/")[0])
    if kind is None:
        raise ValueError(f"no kind is stored under {key}")
    return meta.item_of(kind, value, revision)


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a list: stored versions in key order. `more`: how many lie beyond; `last` the key to continue after."""

    items: Sequence[Item]
    revision: int
    more: int = 0
    last: str = ""


class Registry:
    """Objects by kind and name. Methods raise ApiError classes."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def key(self, kind: Kind, namespace: str, name: str) -> str:
        return f"{kind.bucket}/{namespace}/{name}" if kind.namespaced else f"{kind.bucket}/{name}"

    def prefix(self, kind: Kind, namespace: str) -> str:
        return f"{kind.bucket}/{namespace}/" if namespace else f"{kind.bucket}/"

    def find(self, kind: Kind, namespace: str, name: str) -> Item | None:
        """The committed version."""
        record = self.store.get(self.key(kind, namespace, name))
        return None if record is None else view(kind, record.tag)

    def get(self, kind: Kind, namespace: str, name: str) -> Item:
        """The committed version. Raises NotFound."""
        item = self.find(kind, namespace, name)
        if item is None:
            raise NotFound.of(kind.group, kind.plural, name)
        return item

    def latest(self, kind: Kind, namespace: str, name: str) -> Item:
        """The newest version, also one that is still being committed: what a write must build on. Raises NotFound."""
        record = self.store.latest(self.key(kind, namespace, name))
        if record is None:
            raise NotFound.of(kind.group, kind.plural, name)
        return view(kind, record.tag)

    def page(self, kind: Kind, namespace: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        """Stored versions in key order as of `revision` (0: now). Raises store errors: the caller knows what they mean to its client."""
        records, more = self.store.range(self.prefix(kind, namespace), after=after, limit=limit, revision=revision)
        found = [record.tag for record in records] if kind.from_storage is None else [view(kind, record.tag) for record in records]
        return Page(found, revision or self.store.revision, more, records[-1].key if records else after)

    async def create(self, kind: Kind, obj: Obj, *, durable: bool = True) -> Item:
        """Store a new object; `obj` gets its resourceVersion. Raises AlreadyExists."""
        name = obj["metadata"]["name"]
        key = self.key(kind, obj["metadata"].get("namespace", ""), name)
        try:
            record = await self.store.create(key, _encoder(kind, obj), durable=durable and not kind.ephemeral)
        except StoreError as error:
            raise mapped(error, kind, name) from error
        return _finished(kind, obj, record)

    async def update(self, kind: Kind, obj: Obj, expected: int, *, durable: bool = True) -> Item:
        """Replace the version with revision `expected`. Raises NotFound, Conflict."""
        name = obj["metadata"]["name"]
        key = self.key(kind, obj["metadata"].get("namespace", ""), name)
        try:
            record = await self.store.update(key, expected, _encoder(kind, obj), durable=durable and not kind.ephemeral)
        except StoreError as error:
            raise mapped(error, kind, name) from error
        return _finished(kind, obj, record)

    async def delete(self, kind: Kind, obj: Obj, expected: int) -> Item:
        """Remove the version with revision `expected`; `obj` is the last version as watchers see it. Raises NotFound, Conflict."""
        name = obj["metadata"]["name"]
        key = self.key(kind, obj["metadata"].get("namespace", ""), name)
        try:
            record = await self.store.delete(key, expected, _encoder(kind, obj))
        except StoreError as error:
            raise mapped(error, kind, name) from error
        return _finished(kind, obj, record)

    async def change(self, kind: Kind, namespace: str, name: str, change: Callable[[Obj], Obj | None], *, durable: bool = True) -> Item:
        """Read, change, write, again after a conflict: for writes that are the server's own (no admission, no validation).
        `change` gets a fresh dict to alter and return; None or an equal object writes nothing."""
        for attempt in range(MAX_RETRIES):
            current = self.latest(kind, namespace, name)
            wanted = change(current.decode())
            if wanted is None or wanted == current.decode():
                return current
            try:
                return await self.update(kind, wanted, current.revision, durable=durable)
            except Conflict:
                if attempt == MAX_RETRIES - 1:
                    raise
        raise AssertionError("unreachable")


def view(kind: Kind, item: Item) -> Item:
    """A stored version as `kind` shows it."""
    if kind.from_storage is None:
        return item
    obj = kind.from_storage(item.decode())
    return meta.item_of(kind, meta.encode(obj), item.revision, obj)


def _stored_kind(kind: Kind) -> Kind:
    return _STORED[kind.bucket] if kind.to_storage is not None else kind


def _encoder(kind: Kind, obj: Obj) -> Encode:
    stored_kind = _stored_kind(kind)
    stored = obj if kind.to_storage is None else kind.to_storage(obj)

    def encode(revision: int) -> tuple[bytes, Item]:
        stored["metadata"]["resourceVersion"] = str(revision)
        raw = meta.encode(stored)
        return raw, meta.item_of(stored_kind, raw, revision, stored)

    return encode


def _finished(kind: Kind, obj: Obj, record: Record) -> Item:
    obj["metadata"]["resourceVersion"] = str(record.revision)
    item: Item = record.tag
    if kind.from_storage is None:
        return item
    return view(kind, item)


def mapped(error: StoreError, kind: Kind, name: str) -> ApiError:
    """What a store error means to a client."""
    match error:
        case KeyExists():
            return AlreadyExists.of(kind.group, kind.plural, name)
        case KeyMissing():
            return NotFound.of(kind.group, kind.plural, name)
        case RevisionMismatch():
            return Conflict.modified(kind.group, kind.plural, name)
        case Compacted():
            return too_old(error.revision, error.oldest)
        case FutureRevision():
            return too_new(error.revision, error.current)
        case StoreUnavailable():
            return ApiError(f"Internal error occurred: the server's disk does not take writes now: {error}")
    return ApiError(f"Internal error occurred: {error}")


def too_old(revision: int, oldest: int) -> Expired:
    return Expired(f"too old resource version: {revision} ({oldest})")


def too_new(revision: int, current: int) -> Timeout:
    """storage.NewTooLargeResourceVersionError."""
    text = f"Too large resource version: {revision}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return Timeout(f"Timeout: {text}", details={"causes": [cause], "retryAfterSeconds": 1})
