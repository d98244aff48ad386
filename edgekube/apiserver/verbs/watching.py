"""watch: where a watch starts, and what it is told before the live changes.

resourceVersion "" or "0"        everything there is as ADDED, then live (unless sendInitialEvents=false)
N                                what happened after N, then live; ERROR 410 where that is forgotten
sendInitialEvents=true           everything there is as ADDED, a BOOKMARK that says so, then live
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekube.api.item import Item
from edgekube.apiserver.identity import User, node_of
from edgekube.apiserver.negotiate import WATCH_TYPES, Output
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.registry import mapped
from edgekube.apiserver.request import PushResponse, Sink
from edgekube.apiserver.stream import Watcher, frame, pieces
from edgekube.apiserver.verbs.listing import NOT_OLDER, ListOptions
from edgekube.apiserver.watchlines import INITIAL_END, Entry, Spec, bookmark_line, error_line, item_line
from edgekube.errors import Expired, Invalid, Problem
from edgekube.store.protocol import Event, FutureRevision, StoreError

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

MIN_SECONDS = 1800
_PAUSE = 200  # objects looked at between two pauses


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What a watch asks for beyond a list."""

    listing: ListOptions
    bookmarks: bool = False
    initial: bool | None = None  # sendInitialEvents
    timeout: int = 0


def check(options: WatchOptions) -> None:
    """Raises Invalid."""
    problems: list[Problem] = []
    match = options.listing.match
    if options.initial is not None:
        if match != NOT_OLDER:
            text = f"Forbidden: sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER}"
            problems.append(Problem("resourceVersionMatch", "FieldValueForbidden", text))
    elif match:
        text = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        problems.append(Problem("resourceVersionMatch", "FieldValueForbidden", text))
    if problems:
        raise Invalid.of("meta.k8s.io", "ListOptions", "", problems)


def watch(server: "Server", op: Operation, options: WatchOptions, output: Output) -> PushResponse:
    """The answer registers itself with the hub when the front starts it."""
    check(options)
    spec = Spec(op.kind, op.namespace, options.listing.labels, options.listing.fields, output, options.bookmarks)
    timeout = lasts(op.user, options.timeout)
    joined: list[Watcher] = []

    def start(sink: Sink) -> None:
        try:
            backlog = _backlog(server, spec, options)
        except StoreError as error:
            refusal = Expired(str(error)) if isinstance(error, FutureRevision) else mapped(error, op.kind, "")
            line = error_line(output, refusal)
            sink.write(line, frame(line))
            sink.close()
            return
        joined.append(server.hub.join(spec, sink, backlog, timeout))

    def stop() -> None:
        for watcher in joined:
            server.hub.leave(watcher)

    return PushResponse(start=start, stop=stop, content_type=WATCH_TYPES[output.media])


def lasts(user: User, wanted: int) -> float:
    """Seconds. What a node may see changes with its pods, and a watch is authorized when it begins: so a node's are not for ever."""
    usual = random.uniform(MIN_SECONDS, 2 * MIN_SECONDS)
    return float(min(wanted or usual, usual) if node_of(user) is not None else wanted or usual)


def _backlog(server: "Server", spec: Spec, options: WatchOptions) -> Iterator[bytes] | None:
    """Taken at one instant, together with joining the live changes: nothing is missed and nothing comes twice."""
    revision = options.listing.revision or 0
    if options.initial is True or (not revision and options.initial is None):
        items = server.registry.page(spec.kind, spec.namespace).items
        return pieces(_initial(server, spec, items, server.store.revision, announce=options.initial is True and options.bookmarks))
    if not revision:
        return None
    events = server.store.since(spec.kind.bucket, revision)
    return pieces(_missed(server, spec, events)) if events else None


def _initial(server: "Server", spec: Spec, items: Sequence[Item], revision: int, *, announce: bool) -> Iterator[bytes]:
    for index, item in enumerate(items, start=1):
        if spec.matches(item):
            yield item_line(spec, "ADDED", item, server.clock)
        if index % _PAUSE == 0:
            yield b""
    if announce:
        yield bookmark_line(spec, revision, INITIAL_END)


def _missed(server: "Server", spec: Spec, events: Sequence[Event]) -> Iterator[bytes]:
    for index, event in enumerate(events, start=1):
        line = Entry(event).line(spec, server.clock)
        if line is not None:
            yield line
        if index % _PAUSE == 0:
            yield b""
