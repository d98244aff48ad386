"""What an update of a pod may change, in its spec and in its status."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from edgekube.api.kinds.pod import POD
from edgekube.api.types import Obj
from tests.unit.api.test_pod_validation import judged, made

_UPDATABLE = (
    "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
)
_TOLERATION = {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}
_TERM = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_MORE = {"matchExpressions": [*_TERM["matchExpressions"], {"key": "disk", "operator": "Exists"}]}
_GATED = {"schedulingGates": [{"name": "one"}, {"name": "two"}]}
_FINISHED = "Forbidden: may not be transitioned to non-terminated state"


def updated(change: Callable[[Obj], Any], container: Obj | None = None, **spec: Any) -> list[tuple[str, str, str]]:
    old = made(container, **spec)
    POD.default(old)
    new = copy.deepcopy(old)
    change(new["spec"])
    return judged(new, old)


def wanted(*terms: Obj) -> Obj:
    return {"affinity": {"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": list(terms)}}}}


ALLOWED: list[tuple[Obj, Callable[[Obj], Any]]] = [
    ({}, lambda spec: None),
    ({}, lambda spec: spec["containers"][0].update(image="nginx:2")),
    ({}, lambda spec: spec.update(activeDeadlineSeconds=10)),
    ({"activeDeadlineSeconds": 10}, lambda spec: spec.update(activeDeadlineSeconds=5)),
    ({}, lambda spec: spec.update(tolerations=[_TOLERATION])),
    ({"tolerations": [_TOLERATION]}, lambda spec: spec.update(tolerations=[{**_TOLERATION, "tolerationSeconds": 20}])),
    (_GATED, lambda spec: spec["schedulingGates"].pop()),
    (_GATED, lambda spec: spec.pop("schedulingGates")),
    (_GATED, lambda spec: spec.update(nodeSelector={"a": "b"})),
    (_GATED, lambda spec: spec.update(wanted(_TERM))),
    ({**_GATED, **wanted(_TERM)}, lambda spec: spec.update(wanted(_MORE))),
    ({"terminationGracePeriodSeconds": -5}, lambda spec: spec.update(terminationGracePeriodSeconds=1)),
    # a client with Go's types leaves these out
    ({"hostNetwork": False, "nodeSelector": {}, "imagePullSecrets": []}, lambda spec: [spec.pop(n) for n in list(spec) if not spec[n]]),
    ({}, lambda spec: spec["containers"][0].update(tty=False, env=[], workingDir="", resources={"limits": {}})),
]


@pytest.mark.parametrize(("spec", "change"), ALLOWED)
def test_what_may_change(spec: Obj, change: Callable[[Obj], Any]) -> None:
    assert updated(change, **spec) == []


def test_quantities_may_be_spelled_otherwise() -> None:
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0.5", "memory": "1024Mi"}}
    settled = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}
    assert updated(lambda spec: spec["containers"][0].update(resources=settled), {"resources": resources}) == []


REFUSED: list[tuple[Obj, Callable[[Obj], Any], tuple[str, str, str]]] = [
    (
        {},
        lambda spec: spec["containers"].append({"name": "more", "image": "nginx"}),
        ("spec.containers", "Forbidden", "Forbidden: pod updates may not add or remove containers"),
    ),
    (
        {"activeDeadlineSeconds": 10},
        lambda spec: spec.update(activeDeadlineSeconds=20),
        ("spec.activeDeadlineSeconds", "Invalid", "Invalid value: 20: must be less than or equal to previous value"),
    ),
    (
        {"activeDeadlineSeconds": 10},
        lambda spec: spec.pop("activeDeadlineSeconds"),
        ("spec.activeDeadlineSeconds", "Invalid", "Invalid value: null: must not update from a positive integer to nil value"),
    ),
    (
        {"tolerations": [_TOLERATION]},
        lambda spec: spec.pop("tolerations"),
        ("spec.tolerations", "Forbidden", "Forbidden: existing toleration can not be modified except its tolerationSeconds"),
    ),
    (
        _GATED,
        lambda spec: spec["schedulingGates"].append({"name": "three"}),
        (
            "spec.schedulingGates[2].name",
            "Forbidden",
            "Forbidden: only deletion is allowed, but found new scheduling gate 'three'",
        ),
    ),
]


@pytest.mark.parametrize(("spec", "change", "expected"), REFUSED)
def test_what_may_not_change(spec: Obj, change: Callable[[Obj], Any], expected: tuple[str, str, str]) -> None:
    assert updated(change, **spec) == [expected]


IMMUTABLE: list[tuple[Obj, Callable[[Obj], Any], str, str]] = [
    ({}, lambda spec: spec.update(hostname="other"), "Hostname: nil", 'Hostname: "other"'),
    ({}, lambda spec: spec["containers"][0].update(command=["sh"]), "Command: nil", 'Command: {"sh"}'),
    ({"hostNetwork": True}, lambda spec: spec.update(hostNetwork=False), "HostNetwork: true", "HostNetwork: nil"),
    (
        {},
        lambda spec: spec.update(terminationGracePeriodSeconds=1),
        "TerminationGracePeriodSeconds: 30",
        "TerminationGracePeriodSeconds: 1",
    ),
    ({}, lambda spec: spec.update(nodeSelector={"a": "b"}), "NodeSelector: nil", 'NodeSelector: {A: "b"}'),
]


@pytest.mark.parametrize(("spec", "change", "minus", "plus"), IMMUTABLE)
def test_the_rest_is_refused_with_the_difference(spec: Obj, change: Callable[[Obj], Any], minus: str, plus: str) -> None:
    (found,) = updated(change, **spec)
    assert found[:2] == ("spec", "Forbidden")
    assert found[2].startswith(_UPDATABLE + "  core.PodSpec{\n")
    lines = found[2].splitlines()
    assert [line[1:].strip().rstrip(",") for line in lines if line.startswith("-")] == [minus]
    assert [line[1:].strip().rstrip(",") for line in lines if line.startswith("+")] == [plus]


def test_annotations_of_static_pods_stay() -> None:
    mirror = "kubernetes.io/config.mirror"
    old = made(nodeName="n", metadata={"annotations": {mirror: "x"}})
    POD.default(old)
    new = copy.deepcopy(old)
    new["metadata"]["annotations"] = {}
    assert judged(new, old) == [
        (f"metadata.annotations[{mirror}]", "Forbidden", "Forbidden: may not remove or update mirror pod annotation")
    ]
    assert judged(old, new) == [(f"metadata.annotations[{mirror}]", "Forbidden", "Forbidden: may not add mirror pod annotation")]


def ended(code: int) -> Obj:
    return {"qosClass": "BestEffort", "containerStatuses": [{"name": "web", "state": {"terminated": {"exitCode": code}}}]}


_RUNS = {"qosClass": "BestEffort", "containerStatuses": [{"name": "web", "state": {"running": {}}}]}
_RULE = {"action": "Restart", "exitCodes": {"operator": "In", "values": [3]}}


@pytest.mark.parametrize(
    ("policy", "container", "code", "refused"),
    [
        ("Always", {}, 0, False),
        ("Never", {}, 0, True),
        ("Never", {}, 1, True),
        ("OnFailure", {}, 0, True),
        ("OnFailure", {}, 1, False),
        ("Never", {"restartPolicy": "Always"}, 0, False),
        ("Never", {"restartPolicy": "OnFailure"}, 0, True),
        ("Never", {"restartPolicy": "Never", "restartPolicyRules": [_RULE]}, 3, False),
        ("Never", {"restartPolicy": "Never", "restartPolicyRules": [_RULE]}, 4, True),
        ("Never", {"restartPolicy": "Never", "restartPolicyRules": [{**_RULE, "action": "RestartAllContainers"}]}, 4, False),
    ],
)
def test_what_has_ended_stays_ended(policy: str, container: Obj, code: int, refused: bool) -> None:
    old = made(container, restartPolicy=policy) | {"status": ended(code)}
    found = list(POD.validate_status({**old, "status": _RUNS}, old))
    assert [(one.field, one.message) for one in found] == [("status.containerStatuses[0].state", _FINISHED)] * refused


STATUS: list[tuple[Obj, list[tuple[str, str]]]] = [
    ({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "hostIP": "1.2.3.4", "hostIPs": [{"ip": "1.2.3.4"}]}, []),
    ({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}, []),
    (
        {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]},
        [("status.podIPs", "may specify no more than one IP for each IP family")],
    ),
    ({"hostIP": "1.2.3.5", "hostIPs": [{"ip": "1.2.3.4"}]}, [("status.hostIPs[0].ip", "must be equal to `hostIP`")]),
    ({"podIPs": [{"ip": "here"}]}, [("status.podIPs[0]", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]),
    ({"conditions": [{"type": "PodReadyToStartContainers"}, {"type": "example.com/ready"}]}, []),
    ({"qosClass": "Guaranteed"}, [("status.qosClass", "field is immutable")]),
]


@pytest.mark.parametrize(("status", "expected"), STATUS)
def test_status(status: Obj, expected: list[tuple[str, str]]) -> None:
    old = made() | {"status": {"qosClass": "BestEffort"}}
    found = list(POD.validate_status(made() | {"status": {"qosClass": "BestEffort", **status}}, old))
    assert [(one.field, one.message.split(": ", 2)[-1]) for one in found] == expected
