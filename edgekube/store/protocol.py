"""What a store is, for its two backends (`sqlite`, `memory`), the API server above, and the one contract suite.

Keys are `bucket/rest` (`pods/default/web-1`, `nodes/pi`): the part before the first slash is the bucket; order, history and
subscriptions are per bucket, revisions are global. Values are exact encoded bytes. A write passes `encode(revision)`, called once with
the revision the write will have, so that the value can carry its own revision; it returns `(value, tag)`. The tag is the caller's decoded
summary of the value: kept beside it in memory, never written, rebuilt through `Tagger` when a database is opened.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

Encode = Callable[[int], tuple[bytes, Any]]
Tagger = Callable[[str, bytes, int], Any]  # key, value, revision -> tag


@dataclass(frozen=True, slots=True)
class Record:
    """One version of one key."""

    key: str
    value: bytes
    revision: int
    create_revision: int
    tag: Any


class EventType(Enum):
    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Event:
    """One committed change. For DELETED, `record` is the last version, re-encoded with the revision of the deletion."""

    type: EventType
    revision: int
    record: Record
    previous: Record | None


@dataclass(frozen=True, slots=True)
class Image:
    """All that is committed at one revision. `durable`: the newest revision that changed something on the disk."""

    revision: int
    durable: int
    records: Sequence[Record]  # in no order
    format: int = 0  # of a database that was read without being migrated; 0: that of this program


class StoreError(Exception):
    """Base of what a store refuses."""


class KeyExists(StoreError):
    """create: the key is there."""

    def __init__(self, key: str, current: Record | None = None) -> None:
        super().__init__(key)
        self.current = current


class KeyMissing(StoreError):
    """update, delete: the key is not there."""


class RevisionMismatch(StoreError):
    """Compare-and-swap failed; `current` is what is there (or in flight)."""

    def __init__(self, key: str, current: Record) -> None:
        super().__init__(key)
        self.current = current


class Compacted(StoreError):
    """The history before `oldest` is gone: list again."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(f"revision {revision} is older than {oldest}")
        self.revision, self.oldest = revision, oldest


class FutureRevision(StoreError):
    """A revision that has not happened yet; `current` is the newest."""

    def __init__(self, revision: int, current: int) -> None:
        super().__init__(f"revision {revision} is newer than {current}")
        self.revision, self.current = revision, current


class StoreUnavailable(StoreError):
    """The disk refused (full, read-only, failing): nothing was changed; try again later."""


class StoreDamaged(StoreError):
    """The database can not be opened: foreign, newer than this program, or beyond recovery. The message is one clear line."""


class Store(Protocol):
    """All methods belong to the event loop's thread. Reads are synchronous: they come from memory and never block."""

    @property
    def revision(self) -> int:
        """The newest published revision: every event up to it has been handed to subscribers."""

    def get(self, key: str) -> Record | None:
        """The committed version of `key`."""

    def range(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> tuple[Sequence[Record], int]:
        """Records whose key starts with `prefix` (`pods/`, `pods/default/`), in key order, with key > `after`, at most `limit` (0: all),
        as of `revision` (0: now). Also returns how many more there are. Raises Compacted or FutureRevision."""

    def count(self, bucket: str) -> int:
        """Number of keys in a bucket now."""

    def buckets(self) -> Sequence[str]: ...

    def since(self, bucket: str, revision: int) -> Sequence[Event]:
        """The bucket's events after `revision`, oldest first. Raises Compacted if some are gone, FutureRevision if it lies ahead."""

    def oldest(self, bucket: str) -> int:
        """The smallest revision that `since` accepts for this bucket."""

    def everything(self) -> Image:
        """The whole content as it is now. A copy of references (1 ms for 20,000 records): it stays as it is while writes go on."""

    def subscribe(self, bucket: str, notify: Callable[[Sequence[Event]], None]) -> Callable[[], None]:
        """Call `notify` on the loop with each published batch of the bucket, in order, right after publication. Returns the unsubscribe."""

    async def create(self, key: str, encode: Encode, *, durable: bool = True) -> Record:
        """Raises KeyExists. Returns after the sync (durable) or at once (ephemeral, but never published before earlier writes)."""

    async def update(self, key: str, expected: int, encode: Encode, *, durable: bool = True) -> Record:
        """Replace the version with revision `expected`. Raises KeyMissing, RevisionMismatch."""

    async def delete(self, key: str, expected: int, encode: Encode) -> Record:
        """Remove the version with revision `expected`; `encode` gives the last version as the DELETED event shows it.
        Durable exactly if the key ever reached the disk. Raises KeyMissing, RevisionMismatch."""

    def latest(self, key: str) -> Record | None:
        """As `get`, but sees a version that is still being committed: what the next compare-and-swap must expect."""

    async def close(self) -> None:
        """Commit what is queued, write ephemeral state once, release the file. Idempotent; later writes raise StoreUnavailable."""
