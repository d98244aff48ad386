"""What a cache knows of one kind: the newest Items, indexes over them, and who wants to hear of changes.

Filled by a Reflector, read by everybody else of the component. Holds Items only, which share their bytes with the store in process.
Promises handlers one call per change, in order: (None, new), (old, new) or (old, None); an object that was deleted and made again under
its name is told as a deletion and a creation. Indexes are built when first asked, so an unused one costs nothing.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from edgekube.api.item import Item
from edgekube.api.types import Key

OnChange = Callable[[Item | None, Item | None], None]
IndexFunction = Callable[[Item], Iterable[str]]


class Matcher(Protocol):
    """What `list` asks of a selector."""

    def matches(self, labels: Mapping[str, str], /) -> bool: ...


class _Index:
    """Value -> the items that have it."""

    __slots__ = ("_function", "_items")

    def __init__(self, function: IndexFunction, items: Iterable[Item]) -> None:
        self._function = function
        self._items: dict[str, dict[Key, Item]] = {}
        for item in items:
            self.put(None, item)

    def put(self, old: Item | None, new: Item | None) -> None:
        if old is not None:
            for value in self._function(old):
                bucket = self._items.get(value)
                if bucket is not None:
                    bucket.pop(old.key, None)
                    if not bucket:
                        del self._items[value]
        if new is not None:
            for value in self._function(new):
                self._items.setdefault(value, {})[new.key] = new

    def find(self, value: str) -> list[Item]:
        return list(self._items.get(value, {}).values())

    def values(self) -> list[str]:
        return list(self._items)


def _by_controller(item: Item) -> Iterable[str]:
    return (item.controller,) if item.controller else ()


def _by_owner(item: Item) -> Iterable[str]:
    return item.owners


CONTROLLER = "controller"
OWNER = "owner"
_BUILT_IN: Mapping[str, IndexFunction] = {CONTROLLER: _by_controller, OWNER: _by_owner}


class KindStore:
    """The newest known Items of one kind. Only its Reflector changes it."""

    def __init__(self) -> None:
        self.revision = 0  # every change up to here has been applied
        self.synced = asyncio.Event()
        self.fresh = asyncio.Event()  # synced with the server itself, not with what a node remembers of it
        self._namespaces: dict[str, dict[str, Item]] = {}
        self._functions: dict[str, IndexFunction] = dict(_BUILT_IN)
        self._indexes: dict[str, _Index] = {}
        self._uids: dict[str, Item] | None = None  # made when first asked for
        self._handlers: list[OnChange] = []
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._changed: dict[Key, list[asyncio.Future[None]]] = {}

    # reading

    def get(self, key: Key) -> Item | None:
        names = self._namespaces.get(key.namespace)
        return None if names is None else names.get(key.name)

    def __len__(self) -> int:
        return sum(len(names) for names in self._namespaces.values())

    def __iter__(self) -> Iterator[Item]:
        for names in list(self._namespaces.values()):
            yield from list(names.values())

    def list(self, namespace: str, selector: Matcher | None) -> Sequence[Item]:
        items: Iterable[Item] = self if not namespace else self._namespaces.get(namespace, {}).values()
        return [item for item in items if selector is None or selector.matches(item.labels)]

    def add_index(self, name: str, function: IndexFunction) -> None:
        self._functions[name] = function
        self._indexes.pop(name, None)

    def by_index(self, name: str, value: str) -> Sequence[Item]:
        return self._index(name).find(value)

    def by_uid(self, uid: str) -> Item | None:
        if self._uids is None:
            self._uids = {item.uid: item for item in self}
        return self._uids.get(uid)

    def index_values(self, name: str) -> Sequence[str]:
        return self._index(name).values()

    def _index(self, name: str) -> _Index:
        index = self._indexes.get(name)
        if index is None:
            index = self._indexes[name] = _Index(self._functions[name], self)
        return index

    # changing

    def on_change(self, handler: OnChange) -> None:
        self._handlers.append(handler)

    def put(self, item: Item) -> None:
        """`item` is the newest version of its key."""
        old = self.get(item.key)
        if old is not None and old.uid != item.uid:
            self._set(item.key, old, None)
            old = None
        self._set(item.key, old, item)

    def drop(self, key: Key, last: Item | None = None) -> None:
        """`key` is gone; `last` is how it looked in the end, if known. Nothing happens when it was not there."""
        old = self.get(key)
        if old is not None:
            self._set(key, old, None, last if last is not None and last.uid == old.uid else old)

    def _set(self, key: Key, old: Item | None, new: Item | None, told: Item | None = None) -> None:
        names = self._namespaces.setdefault(key.namespace, {})
        if new is None:
            names.pop(key.name, None)
            if not names:
                del self._namespaces[key.namespace]
        else:
            names[key.name] = new
        for index in self._indexes.values():
            index.put(old, new)
        if self._uids is not None:
            if old is not None:
                self._uids.pop(old.uid, None)
            if new is not None:
                self._uids[new.uid] = new
        for handler in self._handlers:
            handler(told or old, new)
        if self._changed:
            for waiter in self._changed.pop(key, ()):
                _resolve(waiter)

    def reached(self, revision: int) -> None:
        """Everything up to `revision` is applied: wake those who wait for it."""
        if revision > self.revision:
            self.revision = revision
        while self._waiters and self._waiters[0][0] <= self.revision:
            _resolve(heapq.heappop(self._waiters)[2])

    # waiting

    async def wait_for(self, revision: int) -> None:
        if self.revision >= revision:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (revision, next(self._order), waiter))
        await waiter

    async def wait_until(self, key: Key, condition: Callable[[Item | None], bool]) -> None:
        while not condition(self.get(key)):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._changed.setdefault(key, []).append(waiter)
            try:
                await waiter
            finally:
                waiting = self._changed.get(key)
                if waiting is not None and waiter in waiting:
                    waiting.remove(waiter)
                    if not waiting:
                        del self._changed[key]


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
