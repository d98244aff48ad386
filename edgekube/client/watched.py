"""Single objects, watched only while somebody needs them: a kubelet's ConfigMaps and Secrets, which it may read by name but not list.

    tracker = ObjectTracker(client=client)
    tracker.on_change(lambda kind, key, item: ...)
    await tracker.acquire(SECRET, Key("default", "db"))     # counted; returns once the object's state is known
    tracker.get(SECRET, Key("default", "db"))               # Item, or None: not there
    tracker.release(SECRET, Key("default", "db"))           # the last release ends the watch

Each object is its own list+watch with the field selector `metadata.name=NAME`, as upstream's kubelet does and node authorization allows.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Key
from edgekube.client.index import KindStore
from edgekube.client.protocol import Client
from edgekube.client.reflector import Reflector, Source
from edgekube.lib.tasks import TaskScope

log = logging.getLogger(__name__)

OnObject = Callable[[Kind, Key, Item | None], None]


@dataclass(slots=True)
class _Watched:
    store: KindStore
    task: asyncio.Task[None]
    users: int = 0


class ObjectTracker:
    """Use it as an async context manager: leaving ends all watches."""

    def __init__(self, *, client: Client) -> None:
        self._client = client
        self._watched: dict[tuple[Kind, Key], _Watched] = {}
        self._handlers: list[OnObject] = []
        self._scope = TaskScope("object-tracker")

    async def __aenter__(self) -> "ObjectTracker":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all watches. Safe to call twice."""
        self._watched.clear()
        await self._scope.close()

    def on_change(self, handler: OnObject) -> None:
        """Call `handler(kind, key, item)` when a watched object appears, changes or goes (None)."""
        self._handlers.append(handler)

    def hold(self, kind: Kind, key: Key) -> None:
        """Count one more user of the object and start its watch if it is the first."""
        entry = self._watched.get((kind, key))
        if entry is None:
            entry = self._watched[kind, key] = self._start(kind, key)
        entry.users += 1

    async def acquire(self, kind: Kind, key: Key) -> Item | None:
        """`hold`, then wait until the object's state is known. Cancelled, it gives the hold back."""
        self.hold(kind, key)
        with contextlib.ExitStack() as undo:
            undo.callback(self.release, kind, key)
            await self._watched[kind, key].store.synced.wait()
            undo.pop_all()
        return self.get(kind, key)

    def release(self, kind: Kind, key: Key) -> None:
        """One user less; the last one ends the watch. Unknown objects are ignored."""
        entry = self._watched.get((kind, key))
        if entry is None:
            return
        entry.users -= 1
        if entry.users <= 0:
            del self._watched[kind, key]
            entry.task.cancel("released")

    def get(self, kind: Kind, key: Key) -> Item | None:
        entry = self._watched.get((kind, key))
        return None if entry is None else entry.store.get(key)

    def known(self, kind: Kind, key: Key) -> bool:
        """Whether the object is watched and its state (there or not) has been seen."""
        entry = self._watched.get((kind, key))
        return entry is not None and entry.store.synced.is_set()

    def _start(self, kind: Kind, key: Key) -> _Watched:
        store = KindStore()
        store.on_change(lambda _old, new: self._tell(kind, key, store, new))
        source = Source(kind, namespace=key.namespace, fields=f"metadata.name={key.name}")
        task = self._scope.spawn(Reflector(self._client, source, store).run(), name=f"{kind.plural}/{key}")
        return _Watched(store, task)

    def _tell(self, kind: Kind, key: Key, store: KindStore, item: Item | None) -> None:
        entry = self._watched.get((kind, key))
        if entry is not None and entry.store is store:
            for handler in self._handlers:
                handler(kind, key, item)
