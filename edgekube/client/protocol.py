"""The Client: what `edgekube.apiserver.local.LocalClient` (in process) and `edgekube.client.http.HttpClient` (over TLS) both are.

Reads return Items (bytes plus matching facts, decoded on demand) so that caches share the store's own bytes in process; writes take and
return dicts. Errors are `edgekube.errors` classes on both.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Obj


class ChangeType(Enum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


class Change(NamedTuple):
    """One watch event. A BOOKMARK carries an Item with only a revision."""

    type: ChangeType
    item: Item


class PatchType(Enum):
    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class ItemList:
    items: Sequence[Item]
    revision: int
    continue_token: str = ""
    remaining: int = 0
    remembered: bool = False  # not the server's answer: it is away, and this is how things were (see client/shadow.py)


class Client(Protocol):
    """All methods raise `edgekube.errors.ApiError` subclasses; connection trouble is ServiceUnavailable or Timeout."""

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Obj: ...

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
        """`namespace` "" lists all namespaces. Without `resource_version` the answer is the newest state."""

    def watch(
        self, kind: Kind, namespace: str = "", *, revision: int, labels: str = "", fields: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Change]]]:
        """Batches of changes after `revision`, bookmarks included, until left. Raises Expired when history is gone: list again."""

    async def create(
        self, kind: Kind, obj: Obj, namespace: str = "", *, subresource: str = "", name: str = "", dry_run: bool = False
    ) -> Obj:
        """`namespace` defaults to the object's. With `subresource` (binding, eviction, token, scale), `name` names the parent."""

    async def update(self, kind: Kind, obj: Obj, *, subresource: str = "", field_manager: str = "") -> Obj:
        """Replace by metadata.name/namespace; metadata.resourceVersion, if set, must be the newest (Conflict)."""

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
    ) -> Obj: ...

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
        """The object as it is left, or a Status when it is gone. `uid` and `revision` are preconditions (Conflict)."""

    async def raw(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
        """An address that is no kind (`/version`, `/api/v1/nodes/x/proxy/...`)."""
