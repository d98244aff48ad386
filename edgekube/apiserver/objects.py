"""Reading and following objects straight from the store's memory, for parts of the server (who asks, may they, admission).

The same look-ups that handlers do through the registry, without a request: synchronous, never stale, no permission asked. Writes always go
through the verbs.
"""

from collections.abc import Callable, Iterator, Sequence

from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.store.protocol import Event, EventType, Store

OnChange = Callable[[Item | None, Item | None], None]  # old, new


class Objects:
    """A reading view of the store in terms of kinds."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, kind: Kind, name: str, namespace: str = "") -> Item | None:
        """The committed version, or None."""
        record = self._store.get(f"{kind.bucket}/{namespace}/{name}" if kind.namespaced else f"{kind.bucket}/{name}")
        return None if record is None else _item(record.tag)

    def items(self, kind: Kind, namespace: str = "") -> Iterator[Item]:
        """All of a kind, or those of one namespace, in key order."""
        prefix = f"{kind.bucket}/{namespace}/" if namespace else f"{kind.bucket}/"
        records, _ = self._store.range(prefix)
        return (_item(record.tag) for record in records)

    def follow(self, kind: Kind, on_change: OnChange) -> Callable[[], None]:
        """Call `on_change(None, item)` for all that is there, then for every change as it is committed. Returns the way to stop."""

        def changed(events: Sequence[Event]) -> None:
            for event in events:
                old = None if event.previous is None else _item(event.previous.tag)
                on_change(old, None if event.type is EventType.DELETED else _item(event.record.tag))

        stop = self._store.subscribe(kind.bucket, changed)
        for item in self.items(kind):
            on_change(None, item)
        return stop


def _item(tag: object) -> Item:
    if not isinstance(tag, Item):
        raise TypeError("the store was opened without a tagger for items")
    return tag
