"""One committed change as the lines that watchers get: which type for which filter, in which form; encoded once for all who share both."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from edgekube.api import meta, protobuf, table
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.selectors import FieldSelector, Selector
from edgekube.apiserver.codec import partial, to_yaml
from edgekube.apiserver.negotiate import PROTOBUF, YAML, Output, Shape
from edgekube.apiserver.registry import view
from edgekube.errors import ApiError
from edgekube.lib.clock import Clock
from edgekube.store.protocol import Event, EventType

INITIAL_END: Mapping[str, str] = {"k8s.io/initial-events-end": "true"}


@dataclass(frozen=True, slots=True)
class Spec:
    """What a watcher wants to see; watchers with equal specs share their lines."""

    kind: Kind
    namespace: str
    labels: Selector
    fields: FieldSelector
    output: Output
    bookmarks: bool

    def matches(self, item: Item) -> bool:
        if self.namespace and item.key.namespace != self.namespace:
            return False
        return self.labels.matches(item.labels) and self.fields.matches(item.fields)


class Entry:
    """A committed event and its encoded forms, each made when first asked for."""

    __slots__ = ("_lines", "_views", "event")

    def __init__(self, event: Event) -> None:
        self.event = event
        self._lines: dict[tuple[Kind, Output, str, bool], bytes] = {}
        self._views: dict[Kind, tuple[Item, Item | None]] = {}

    def items(self, kind: Kind) -> tuple[Item, Item | None]:
        """The new version (for deletions: the last) and the one before."""
        event = self.event
        if kind.from_storage is None:
            return event.record.tag, None if event.previous is None else event.previous.tag
        found = self._views.get(kind)
        if found is None:
            previous = None if event.previous is None else view(kind, event.previous.tag)
            found = self._views[kind] = (view(kind, event.record.tag), previous)
        return found

    def line(self, spec: Spec, clock: Clock) -> bytes | None:
        """What a watcher with that spec gets of this event; None: nothing. Leaving a selection is a DELETED of the version before."""
        item, previous = self.items(spec.kind)
        kind = self.event.type
        if kind is EventType.DELETED:
            return self._encoded(spec, "DELETED", item, clock) if spec.matches(previous or item) else None
        now = spec.matches(item)
        before = kind is EventType.UPDATED and previous is not None and spec.matches(previous)
        if now:
            return self._encoded(spec, "MODIFIED" if before else "ADDED", item, clock)
        if before and previous is not None:
            return self._encoded(spec, "DELETED", previous, clock, left=True)
        return None

    def _encoded(self, spec: Spec, change: str, item: Item, clock: Clock, *, left: bool = False) -> bytes:
        key = (spec.kind, spec.output, change, left)
        line = self._lines.get(key)
        if line is None:
            shown = _moved(spec.kind, item, self.event.revision) if left else item
            line = self._lines[key] = item_line(spec, change, shown, clock)
        return line


def _moved(kind: Kind, item: Item, revision: int) -> Item:
    obj = item.decode()
    obj["metadata"]["resourceVersion"] = str(revision)
    return meta.item_of(kind, meta.encode(obj), revision, obj)


def item_line(spec: Spec, change: str, item: Item, clock: Clock) -> bytes:
    """One event about one object."""
    output = spec.output
    if output.shape is Shape.OBJECT:
        raw = item.raw
    elif output.shape is Shape.PARTIAL:
        raw = orjson.dumps(partial(item, output))
    else:
        now = clock.now().timestamp()
        raw = orjson.dumps(table.render(spec.kind, [item.decode()], now=now, include=output.include, version=output.group_version))
    return _line(output, change, raw)


def bookmark_line(spec: Spec, revision: int, annotations: Mapping[str, str] | None = None) -> bytes:
    """Everything up to `revision` has been sent."""
    metadata: dict[str, object] = {"resourceVersion": str(revision), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    output = spec.output
    if output.shape is Shape.PARTIAL:
        about = {"kind": "PartialObjectMetadata", "apiVersion": output.group_version, "metadata": metadata}
    elif output.shape is Shape.TABLE:
        about = {"kind": "Table", "apiVersion": output.group_version, "metadata": {"resourceVersion": str(revision)}, "rows": []}
    else:
        about = {"kind": spec.kind.kind, "apiVersion": spec.kind.api_version, "metadata": metadata}
    return _line(output, "BOOKMARK", orjson.dumps(about))


def error_line(output: Output, error: ApiError) -> bytes:
    """The last thing a watcher hears."""
    return _line(output, "ERROR", orjson.dumps(error.to_status()))


def _line(output: Output, change: str, raw: bytes) -> bytes:
    if output.media == PROTOBUF:
        return protobuf.watch_frame(change, protobuf.encode(orjson.loads(raw)))
    line = b'{"type":"%s","object":%s}\n' % (change.encode(), raw)
    if output.media == YAML:
        return to_yaml(orjson.loads(line)) + b"---\n"
    return line
