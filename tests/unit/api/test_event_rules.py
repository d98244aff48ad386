"""Events of both versions: what is refused, and that they are one stored object."""

from typing import Any

import pytest

from edgekube.api.kinds.event import EVENT, EVENT_V1
from edgekube.api.types import Obj

_FROZEN = "field is immutable"


def core(**more: Any) -> Obj:
    return {"metadata": {"name": "e", "namespace": "team"}, "involvedObject": {"namespace": "team", "name": "web"}, **more}


def strict(**more: Any) -> Obj:
    fine = {
        "apiVersion": "events.k8s.io/v1", "metadata": {"name": "e", "namespace": "team"}, "regarding": {"namespace": "team", "name": "web"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "Pulled", "action": "Pulling",
        "reportingController": "example.com/kubelet", "reportingInstance": "n1", "note": "done",
    }  # fmt: skip
    return {name: value for name, value in {**fine, **more}.items() if value is not None}


def judged(found: Any) -> list[tuple[str, str, str]]:
    return [(one.field, one.reason.removeprefix("FieldValue"), one.message) for one in found]


def test_fine_ones() -> None:
    assert judged(EVENT.validate(core(), None)) == []
    assert judged(EVENT_V1.validate(strict(), None)) == []
    assert judged(EVENT_V1.validate(strict(series={"count": 2, "lastObservedTime": "2026-01-01T00:00:00Z"}), strict())) == []


@pytest.mark.parametrize(
    ("namespace", "about", "fine"),
    [("team", "other", False), ("team", "", False), ("default", "", True), ("other", "other", True)],
)
def test_the_namespace_is_that_of_what_it_is_about(namespace: str, about: str, fine: bool) -> None:
    event = core(metadata={"name": "e", "namespace": namespace}, involvedObject={"namespace": about})
    wanted = [("involvedObject.namespace", "Invalid", f'Invalid value: "{about}": does not match event.namespace')]
    assert judged(EVENT.validate(event, None)) == ([] if fine else wanted)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"eventTime": None}, ("eventTime", "Required", "Required value")),
        ({"type": "Odd"}, ("type", "Invalid", 'Invalid value: "": has invalid value: Odd')),
        ({"reason": None}, ("reason", "Required", "Required value")),
        ({"reason": "x" * 129}, ("reason", "Invalid", 'Invalid value: "": can have at most 128 characters')),
        ({"action": None}, ("action", "Required", "Required value")),
        ({"reportingInstance": None}, ("reportingInstance", "Required", "Required value")),
        ({"note": "x" * 1025}, ("message", "Invalid", 'Invalid value: "": can have at most 1024 characters')),
        ({"deprecatedCount": 1}, ("count", "Invalid", 'Invalid value: "": needs to be unset')),
        ({"deprecatedSource": {"component": "c"}}, ("source", "Invalid", 'Invalid value: "": needs to be unset')),
        ({"deprecatedFirstTimestamp": "2026-01-01T00:00:00Z"}, ("firstTimestamp", "Invalid", 'Invalid value: "": needs to be unset')),
        (
            {"series": {"count": 1, "lastObservedTime": "2026-01-01T00:00:00Z"}},
            ("series.count", "Invalid", 'Invalid value: "": should be at least 2'),
        ),
        ({"series": {"count": 2}}, ("series.lastObservedTime", "Required", "Required value")),
    ],
)
def test_the_newer_version_is_strict(change: Obj, expected: tuple[str, str, str]) -> None:
    assert judged(EVENT_V1.validate(strict(**change), None)) == [expected]


@pytest.mark.parametrize(
    ("change", "field", "shown"),
    [
        ({"reason": "Other"}, "reason", '"Other"'),
        ({"note": "else"}, "message", '"else"'),
        ({"type": "Warning"}, "type", '"Warning"'),
        ({"action": "Else"}, "action", '"Else"'),
        ({"reportingController": "example.com/x"}, "reportingController", '"example.com/x"'),
    ],
)
def test_the_newer_version_changes_only_its_series(change: Obj, field: str, shown: str) -> None:
    assert judged(EVENT_V1.validate(strict(**change), strict())) == [(field, "Invalid", f"Invalid value: {shown}: {_FROZEN}")]
    old = EVENT_V1.to_storage(strict()) if EVENT_V1.to_storage else {}
    new = EVENT_V1.to_storage(strict(**change)) if EVENT_V1.to_storage else {}
    assert judged(EVENT.validate(new, old)) == []  # the older version lets it pass


def test_one_object_in_two_forms() -> None:
    assert EVENT.bucket == EVENT_V1.bucket == "events"
    assert EVENT_V1.to_storage is not None
    assert EVENT_V1.from_storage is not None
    stored = EVENT_V1.to_storage(strict())
    assert (stored["apiVersion"], stored["involvedObject"]["name"], stored["message"]) == ("v1", "web", "done")
    assert stored["reportingComponent"] == "example.com/kubelet"
    assert EVENT_V1.from_storage(stored) == strict()
