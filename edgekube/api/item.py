"""One stored version of an object: its exact encoded bytes plus the few decoded facts that selectors, indexes and caches need.

The bytes are the single truth and are shared by the store, every cache and every watcher of the process; `decode` makes a fresh dict
(15 us) that belongs to the caller. An Item is immutable: hold it as long as you like.
"""

import orjson

from edgekube.api.types import Key, Obj


class Item:
    """`labels` and `fields` are for matching; `owners` are the uids of ownerReferences; `fields` the kind's selectable fields."""

    __slots__ = ("controller", "deleting", "fields", "key", "labels", "owners", "raw", "revision", "uid")

    def __init__(
        self,
        *,
        raw: bytes,
        key: Key,
        uid: str,
        revision: int,
        labels: dict[str, str],
        fields: dict[str, str],
        owners: tuple[str, ...],
        controller: str,
        deleting: bool,
    ) -> None:
        self.raw, self.key, self.uid, self.revision = raw, key, uid, revision
        self.labels, self.fields, self.owners, self.controller, self.deleting = labels, fields, owners, controller, deleting

    def decode(self) -> Obj:
        """A fresh dict of the object: yours to change."""
        decoded: Obj = orjson.loads(self.raw)
        return decoded

    @property
    def namespace(self) -> str:
        return self.key.namespace

    @property
    def name(self) -> str:
        return self.key.name

    def __repr__(self) -> str:
        return f"Item({self.key}, uid={self.uid}, revision={self.revision})"
