"""Event: core/v1 and events.k8s.io/v1 are two views of one stored object (the core form is what is stored).

Conversions as in pkg/apis/events/v1/conversion.go; columns as printEvent.
"""

from collections.abc import Callable, Iterable

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import event_rules, printing
from edgekube.api.kinds.printing import NAME
from edgekube.api.types import Obj
from edgekube.api.validate import path_segment
from edgekube.errors import Problem

_RENAMED = (  # core name, events.k8s.io name
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
)


def to_storage(obj: Obj) -> Obj:
    """events.k8s.io/v1 -> v1."""
    return _renamed(obj, "v1", {new: old for old, new in _RENAMED})


def from_storage(obj: Obj) -> Obj:
    """v1 -> events.k8s.io/v1."""
    return _renamed(obj, "events.k8s.io/v1", dict(_RENAMED))


def _renamed(obj: Obj, version: str, names: dict[str, str]) -> Obj:
    found = {names.get(key, key): value for key, value in obj.items()}
    found["apiVersion"] = version
    return found


def validate_v1(new: Obj, old: Obj | None) -> Iterable[Problem]:
    """The newer version is judged in its core form."""
    return event_rules.validate_strict(to_storage(new), None if old is None else to_storage(old))


def _about(obj: Obj) -> Obj:
    found: Obj = obj.get("involvedObject") or obj.get("regarding") or {}
    return found


def _source(obj: Obj) -> Obj:
    found: Obj = obj.get("source") or obj.get("deprecatedSource") or {}
    return found


def _last_seen(obj: Obj, now: float) -> str:
    series = obj.get("series")
    if series is not None:
        return printing.since(series.get("lastObservedTime"), now)
    text = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp")
    return printing.since(text, now) if text else _first_seen(obj, now)


def _first_seen(obj: Obj, now: float) -> str:
    return printing.since(obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime"), now)


def _target(obj: Obj, _now: float) -> str:
    about = _about(obj)
    kind = str(about.get("kind", "")).lower()
    return f"{kind}/{about['name']}" if about.get("name") else kind


def _subobject(obj: Obj, _now: float) -> str:
    return str(_about(obj).get("fieldPath") or "")


def _shown_source(obj: Obj, _now: float) -> str:
    source = _source(obj)
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return f"{component}, {host}" if host else str(component)


def _count(obj: Obj, _now: float) -> int:
    series = obj.get("series") or {}
    return int(series.get("count") or obj.get("count") or obj.get("deprecatedCount") or 1)


def _message(obj: Obj, _now: float) -> str:
    return str(obj.get("message") or obj.get("note") or "").strip()


def _about_field(name: str) -> Callable[[Obj], str]:
    return lambda obj: str(_about(obj).get(name) or "")


_SELECTABLE = {
    f"involvedObject.{name}": _about_field(name)
    for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
} | {
    "reason": lambda obj: str(obj.get("reason") or ""),
    "reportingComponent": lambda obj: str(obj.get("reportingComponent") or obj.get("reportingController") or ""),
    "source": lambda obj: str(_source(obj).get("component") or obj.get("reportingComponent") or ""),
    "type": lambda obj: str(obj.get("type") or ""),
}
_COLUMNS = (
    Column("Last Seen", _last_seen, description="Time since the event was last seen."),
    Column("Type", lambda o, _: o.get("type") or "", description="Normal or Warning."),
    Column("Reason", lambda o, _: o.get("reason") or "", description="Why it happened, in one word."),
    Column("Object", _target, description="What it is about."),
    Column("Subobject", _subobject, priority=1, description="Which part of it."),
    Column("Source", _shown_source, priority=1, description="Who says so."),
    Column("Message", _message, description="What happened."),
    Column("First Seen", _first_seen, priority=1, description="Time since it was first seen."),
    Column("Count", _count, priority=1, description="How often it happened."),
    Column("Name", NAME.cell, format="name", priority=1, description="Name of the event."),
)

EVENT = Kind(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    short=("ev",),
    schema="io.k8s.api.core.v1.Event",
    validate=event_rules.validate_core,
    validate_name=path_segment,  # what core/v1 has always taken
    ephemeral=True,
    allow_create_on_update=True,
    selectable=_SELECTABLE,
    columns=_COLUMNS,
)

EVENT_V1 = Kind(
    group="events.k8s.io",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    short=("ev",),
    schema="io.k8s.api.events.v1.Event",
    validate=validate_v1,
    ephemeral=True,
    allow_create_on_update=True,
    store_bucket="events",
    selectable=_SELECTABLE,
    to_storage=to_storage,
    from_storage=from_storage,
    columns=_COLUMNS,
)
