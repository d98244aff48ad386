"""What Deployments and ReplicaSets may not be: the field, the reason and the message of each refusal."""

import copy
from typing import Any

import pytest

from edgekube.api.kind import Kind
from edgekube.api.kinds.deployment import DEPLOYMENT
from edgekube.api.kinds.replicaset import REPLICA_SET
from edgekube.api.types import Obj

_KINDS = (DEPLOYMENT, REPLICA_SET)
_NOT_NEGATIVE = "must be greater than or equal to 0"
_PERCENT = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
_OVER = "cannot be greater than status.replicas"
_PARTS = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")
_NO_MATCH = "`selector` does not match template `labels`"


def made(**spec: Any) -> Obj:
    """A workload that is fine, but for what is given."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx"}]}}
    fine = {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": {k: v for k, v in fine.items() if v is not None}}


def judged(kind: Kind, obj: Obj, old: Obj | None = None) -> list[tuple[str, str, str]]:
    kind.default(obj)
    return [(one.field, one.reason.removeprefix("FieldValue"), one.message) for one in kind.validate(obj, old)]


def template(spec: Obj, labels: Obj | None = None) -> Obj:
    containers = {"containers": [{"name": "web", "image": "nginx"}]}
    return {"metadata": {"labels": labels or {"app": "web"}}, "spec": {**containers, **spec}}


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.kind)
def test_a_plain_workload_is_fine(kind: Kind) -> None:
    obj = made()
    assert judged(kind, obj) == []
    assert judged(kind, copy.deepcopy(obj), obj) == []


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.kind)
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"replicas": -1}, [("spec.replicas", "Invalid", f"Invalid value: -1: {_NOT_NEGATIVE}")]),
        ({"minReadySeconds": -1}, [("spec.minReadySeconds", "Invalid", f"Invalid value: -1: {_NOT_NEGATIVE}")]),
        (
            {"selector": None},
            [
                ("spec.selector", "Required", "Required value"),
                ("spec.template.metadata.labels", "Invalid", f'Invalid value: {{"app":"web"}}: {_NO_MATCH}'),
            ],
        ),
        ({"selector": {}}, [("spec.selector", "Invalid", "Invalid value: {}: empty selector is invalid for deployment")]),
        (
            {"selector": {"matchLabels": {"app": "db"}}},
            [("spec.template.metadata.labels", "Invalid", f'Invalid value: {{"app":"web"}}: {_NO_MATCH}')],
        ),
        (
            {"template": template({"restartPolicy": "Never"})},
            [("spec.template.spec.restartPolicy", "NotSupported", 'Unsupported value: "Never": supported values: "Always"')],
        ),
        (
            {"template": template({"activeDeadlineSeconds": 5})},
            [
                (
                    "spec.template.spec.activeDeadlineSeconds",
                    "Forbidden",
                    "Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
                )
            ],
        ),
        (
            {"template": template({"containers": []})},
            [("spec.template.spec.containers", "Required", "Required value")],
        ),
        (
            {"template": template({"containers": [{"name": "web"}]})},
            [("spec.template.spec.containers[0].image", "Required", "Required value")],
        ),
        (
            {"template": template({"ephemeralContainers": [{"name": "debug", "image": "busybox"}]})},
            [
                (
                    "spec.template.spec.ephemeralContainers",
                    "Forbidden",
                    "Forbidden: ephemeral containers not allowed in pod template",
                )
            ],
        ),
    ],
)
def test_what_both_refuse(kind: Kind, spec: Obj, expected: list[tuple[str, str, str]]) -> None:
    assert judged(kind, copy.deepcopy(made(**spec))) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
            ("spec.strategy.rollingUpdate", "Forbidden", "Forbidden: may not be specified when strategy `type` is 'Recreate'"),
        ),
        (
            {"strategy": {"type": "Canary"}},
            (
                "spec.strategy",
                "NotSupported",
                'Unsupported value: {"Type":"Canary","RollingUpdate":null}: supported values: "Recreate", "RollingUpdate"',
            ),
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
            ("spec.strategy.rollingUpdate.maxUnavailable", "Invalid", "Invalid value: 0: may not be 0 when `maxSurge` is 0"),
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": "0%"}}},
            ("spec.strategy.rollingUpdate.maxUnavailable", "Invalid", 'Invalid value: "0%": may not be 0 when `maxSurge` is 0'),
        ),
        (
            {"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}},
            ("spec.strategy.rollingUpdate.maxUnavailable", "Invalid", 'Invalid value: "101%": must not be greater than 100%'),
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": "many"}}},
            ("spec.strategy.rollingUpdate.maxSurge", "Invalid", f'Invalid value: "many": {_PERCENT}'),
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": -1}}},
            ("spec.strategy.rollingUpdate.maxSurge", "Invalid", f"Invalid value: -1: {_NOT_NEGATIVE}"),
        ),
        ({"revisionHistoryLimit": -1}, ("spec.revisionHistoryLimit", "Invalid", f"Invalid value: -1: {_NOT_NEGATIVE}")),
        (
            {"minReadySeconds": 600},
            ("spec.progressDeadlineSeconds", "Invalid", "Invalid value: 600: must be greater than minReadySeconds"),
        ),
    ],
)
def test_what_a_deployment_refuses(spec: Obj, expected: tuple[str, str, str]) -> None:
    assert judged(DEPLOYMENT, copy.deepcopy(made(**spec))) == [expected]


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.kind)
def test_the_selector_stays(kind: Kind) -> None:
    labels = {"app": "web", "tier": "front"}
    old = made(template=template({}, labels))
    new = made(template=template({}, labels), selector={"matchLabels": {"tier": "front"}})
    shown = 'Invalid value: {"matchLabels":{"tier":"front"}}: field is immutable'
    assert judged(kind, new, old) == [("spec.selector", "Invalid", shown)]


def test_an_unknown_operator_is_told_twice() -> None:
    """Once as the operator, once as the selector that cannot be made of it; the template is not looked at."""
    selector = {"matchExpressions": [{"key": "app", "operator": "Like", "values": ["web"]}]}
    found = judged(DEPLOYMENT, made(selector=selector))
    assert [(field, reason) for field, reason, _ in found] == [
        ("spec.selector.matchExpressions[0].operator", "Invalid"),
        ("spec.selector", "Invalid"),
    ]
    assert found[1][2].endswith(": invalid label selector")


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        (DEPLOYMENT, {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 1, "availableReplicas": 1, "unavailableReplicas": 1}, []),
        (DEPLOYMENT, {"replicas": 1, "readyReplicas": 2}, [("status.readyReplicas", "cannot be greater than status.replicas")]),
        (
            DEPLOYMENT,
            {"replicas": 2, "readyReplicas": 1, "availableReplicas": 2},
            [("status.availableReplicas", "cannot be greater than readyReplicas")],
        ),
        (DEPLOYMENT, {"replicas": 1, "unavailableReplicas": -1}, [("status.unavailableReplicas", _NOT_NEGATIVE)]),
        (REPLICA_SET, {"replicas": -1}, [("status.replicas", _NOT_NEGATIVE), *((f"status.{name}", _OVER) for name in _PARTS)]),
        (DEPLOYMENT, {"collisionCount": 1}, [("status.collisionCount", "cannot be decremented")]),
        (DEPLOYMENT, {}, [("status.collisionCount", "cannot be decremented")]),
        (
            REPLICA_SET,
            {"replicas": 1, "fullyLabeledReplicas": 2},
            [("status.fullyLabeledReplicas", "cannot be greater than status.replicas")],
        ),
        (REPLICA_SET, {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1, "observedGeneration": 3}, []),
    ],
)
def test_status(kind: Kind, status: Obj, expected: list[tuple[str, str]]) -> None:
    had = {"collisionCount": 2} if "collisionCount" in status or not status else {}
    found = kind.validate_status(made() | {"status": status}, made() | {"status": had})
    assert [(one.field, one.message.split(": ")[-1]) for one in found] == expected
