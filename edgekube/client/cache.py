"""A component's picture of the cluster: an indexed, always current set of Items per kind it watches (upstream's informers).

    cache = Cache(client=client, sources=(Source(POD, fields="spec.nodeName=pi"), SERVICE))
    cache.add_index(POD, "node", lambda item: (item.fields["spec.nodeName"],))
    cache.on_change(POD, lambda old, new: queue.add((new or old).key))
    ... group: cache.run(ready) ...
    await cache.wait_synced()

One source per kind. Items are immutable and shared: `decode()` gives a dict of your own. Handlers run on the loop, must be quick and must
not raise; those added before `run` hear of every object. Reads never wait: before `wait_synced` they show what has arrived so far.
"""

import asyncio
from collections.abc import Callable, Sequence

from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Key
from edgekube.client.index import CONTROLLER, OWNER, IndexFunction, KindStore, Matcher, OnChange
from edgekube.client.protocol import Client
from edgekube.client.reflector import Reflector, Source

__all__ = ("Cache", "IndexFunction", "Matcher", "OnChange", "Source")


class Cache:
    """The kinds named by `sources`, kept current by one reflector each while `run` runs."""

    name = "cache"

    def __init__(self, *, client: Client, sources: Sequence[Source | Kind]) -> None:
        full = [source if isinstance(source, Source) else Source(source) for source in sources]
        self._stores: dict[Kind, KindStore] = {source.kind: KindStore() for source in full}
        if len(self._stores) != len(full):
            raise ValueError("a cache watches each kind once")
        self._reflectors = [(source, Reflector(client, source, self._stores[source.kind])) for source in full]

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Watch until cancelled; `ready` is set once every source has been listed."""
        async with asyncio.TaskGroup() as group:
            for source, reflector in self._reflectors:
                group.create_task(reflector.run(), name=f"reflector/{source.kind.plural}")
            await self.wait_synced()
            if ready is not None:
                ready.set()

    @property
    def kinds(self) -> Sequence[Kind]:
        return tuple(self._stores)

    def watches(self, kind: Kind) -> bool:
        return kind in self._stores

    def get(self, kind: Kind, key: Key) -> Item | None:
        return self._stores[kind].get(key)

    def list(self, kind: Kind, namespace: str = "", selector: Matcher | None = None) -> Sequence[Item]:
        """`namespace` "" is all of them; `selector` is matched against labels."""
        return self._stores[kind].list(namespace, selector)

    def count(self, kind: Kind) -> int:
        return len(self._stores[kind])

    def owned(self, kind: Kind, uid: str) -> Sequence[Item]:
        """Items whose controller reference names `uid`."""
        return self._stores[kind].by_index(CONTROLLER, uid)

    def dependents(self, kind: Kind, uid: str) -> Sequence[Item]:
        """Items of which any owner reference names `uid`."""
        return self._stores[kind].by_index(OWNER, uid)

    def by_uid(self, kind: Kind, uid: str) -> Item | None:
        return self._stores[kind].by_uid(uid)

    def add_index(self, kind: Kind, name: str, function: IndexFunction) -> None:
        """`function(item)` yields the values under which `by_index` finds the item; it must be pure."""
        self._stores[kind].add_index(name, function)

    def add_field_index(self, kind: Kind, field: str) -> None:
        """Find items with `by_index(kind, field, value)` by one of the kind's selectable fields."""
        self.add_index(kind, field, lambda item: (item.fields.get(field, ""),))

    def add_label_index(self, kind: Kind, label: str) -> None:
        """Find items with `by_index(kind, label, value)` by the value of a label."""
        self.add_index(kind, label, lambda item: (item.labels[label],) if label in item.labels else ())

    def by_index(self, kind: Kind, name: str, value: str) -> Sequence[Item]:
        return self._stores[kind].by_index(name, value)

    def index_values(self, kind: Kind, name: str) -> Sequence[str]:
        """The values an index knows now."""
        return self._stores[kind].index_values(name)

    def on_change(self, kind: Kind, handler: OnChange) -> None:
        """Call `handler(old, new)` on each change: None stands for not there."""
        self._stores[kind].on_change(handler)

    def revision(self, kind: Kind) -> int:
        """Every change of `kind` up to this revision is in the cache."""
        return self._stores[kind].revision

    async def wait_synced(self) -> None:
        """Until every source has been listed once."""
        for store in self._stores.values():
            await store.synced.wait()

    async def wait_fresh(self) -> None:
        """Until every source has been listed once by the server itself: until then what is not here may exist all the same."""
        for store in self._stores.values():
            await store.fresh.wait()

    @property
    def synced(self) -> bool:
        return all(store.synced.is_set() for store in self._stores.values())

    async def wait_for(self, kind: Kind, revision: int) -> None:
        """Until the cache has seen everything of `kind` up to `revision`: how a writer sees its own write. No deadline of its own.

        A source narrowed by selectors advances by bookmarks only when others write: wait on it with `asyncio.timeout`.
        """
        await self._stores[kind].wait_for(revision)

    async def wait_until(self, kind: Kind, key: Key, condition: Callable[[Item | None], bool]) -> None:
        """Until `condition(item)` holds for what the cache has under `key` (None: nothing). No deadline of its own."""
        await self._stores[kind].wait_until(key, condition)
