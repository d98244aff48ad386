"""Facts read out of Items once per version: controllers look at the same pod many times, but decode it once.

`derived(item)` returns `function(item)`, remembered until the cache sees another version of the object or its end. What the function
returns is shared: make it immutable.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Key
from edgekube.client.cache import Cache

T = TypeVar("T")


class Derived(Generic[T]):
    """A memo over one kind of a cache, as large as what was asked for and is still there."""

    def __init__(self, cache: Cache, kind: Kind, function: Callable[[Item], T]) -> None:
        self._function = function
        self._known: dict[Key, tuple[int, T]] = {}
        cache.on_change(kind, self._forget)

    def __call__(self, item: Item) -> T:
        known = self._known.get(item.key)
        if known is not None and known[0] == item.revision:
            return known[1]
        value = self._function(item)
        self._known[item.key] = (item.revision, value)
        return value

    def _forget(self, old: Item | None, _new: Item | None) -> None:
        if old is not None:
            self._known.pop(old.key, None)
