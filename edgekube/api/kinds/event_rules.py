"""Validation of Events: lenient in core/v1, strict in events.k8s.io/v1 (pkg/apis/core/validation/events.go).

Problems name the fields of the core form, in both versions, as upstream does.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from edgekube.api import problems, validate
from edgekube.api.types import Obj
from edgekube.errors import Problem

_MOST, _NOTE = 128, 1024
_FROZEN = ("involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "type", "eventTime", "action",
           "related", "reportingController", "reportingInstance")  # fmt: skip
_KEYS: Mapping[str, str] = {"reportingController": "reportingComponent"}


def validate_core(event: Obj, _old: Obj | None) -> Iterator[Problem]:
    """What both versions ask for."""
    here = event["metadata"].get("namespace", "")
    there = (event.get("involvedObject") or {}).get("namespace", "")
    mismatch = problems.invalid("involvedObject.namespace", there, "does not match event.namespace")
    if not event.get("eventTime"):
        if there != here and (there or here not in ("", "default")):
            yield mismatch
    else:
        if not there and here not in ("default", "kube-system"):
            yield mismatch
        yield from _reported(event)
    yield from validate.each("namespace", here, validate.subdomain(here))


def _reported(event: Obj) -> Iterator[Problem]:
    controller = event.get("reportingComponent", "")
    if not controller:
        yield problems.required("reportingController")
    yield from validate.each("reportingController", controller, validate.qualified(controller))
    for name in ("reportingInstance", "action", "reason"):
        text = event.get(name, "")
        if not text:
            yield problems.required(name)
        elif len(text.encode()) > _MOST:
            yield problems.invalid(name, "", f"can have at most {_MOST} characters")
    if len(event.get("message", "").encode()) > _NOTE:
        yield problems.invalid("message", "", f"can have at most {_NOTE} characters")


def validate_strict(event: Obj, old: Obj | None) -> Iterator[Problem]:
    """The newer version, brought to the core form by the caller."""
    yield from validate_core(event, old)
    if old is not None:
        if event.get("series") != old.get("series"):
            yield from _series(event)
        for name in _FROZEN:
            key = _KEYS.get(name, name)
            if not _same(event.get(key), old.get(key)):
                yield problems.invalid(name, event.get(key, ""), validate.IMMUTABLE)
        return
    yield from _series(event)
    if not event.get("eventTime"):
        yield problems.required("eventTime")
    if event.get("type") not in ("Normal", "Warning"):
        yield problems.invalid("type", "", f"has invalid value: {event.get('type', '')}")
    for name in ("firstTimestamp", "lastTimestamp", "count", "source"):
        if event.get(name):
            yield problems.invalid(name, "", "needs to be unset")


def _same(new: Any, old: Any) -> bool:
    return (new or None) == (old or None)


def _series(event: Obj) -> Iterator[Problem]:
    series = event.get("series")
    if series is not None:
        if series.get("count", 0) < 2:
            yield problems.invalid("series.count", "", "should be at least 2")
        if not series.get("lastObservedTime"):
            yield problems.required("series.lastObservedTime")
