"""Namespaces, nodes, leases, revisions and priority classes that are refused."""

from typing import Any

import pytest

from edgekube.api.kind import Kind
from edgekube.api.kinds.controllerrevision import CONTROLLER_REVISION
from edgekube.api.kinds.lease import LEASE
from edgekube.api.kinds.namespace import NAMESPACE
from edgekube.api.kinds.node import NODE
from edgekube.api.kinds.priorityclass import PRIORITY_CLASS
from edgekube.api.types import Obj

INVALID, REQUIRED, FORBIDDEN = "FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden"
UNSUPPORTED, DUPLICATE = "FieldValueNotSupported", "FieldValueDuplicate"

Told = list[tuple[str, str, str]]


def problems(kind: Kind, new: Obj, old: Obj | None = None, *, status: bool = False) -> Told:
    objects = [{"metadata": {"name": "x"}, **each} for each in (new, old or {})]
    check = kind.validate_status if status else kind.validate
    found = check(objects[0], None if old is None else objects[1])
    return [(one.field, one.reason, one.message) for one in found]


# Namespace

STANDARD = "name is neither a standard finalizer name nor is it fully qualified"


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ({"spec": {"finalizers": ["kubernetes", "example.com/x"]}}, None, []),
        ({"spec": {"finalizers": ["x"]}}, None, [("spec.finalizers", INVALID, f'Invalid value: "x": {STANDARD}')]),
        ({"spec": {"finalizers": ["x"]}}, {"spec": {"finalizers": ["x"]}}, []),
        ({"spec": {"finalizers": ["kubernetes", "x"]}}, {}, [("spec.finalizers[1]", INVALID, f'Invalid value: "x": {STANDARD}')]),
        ({"spec": {}}, {"spec": {"finalizers": ["x"]}}, []),
    ],
)
def test_namespaces(new: Obj, old: Obj | None, expected: Told) -> None:
    assert problems(NAMESPACE, new, old) == expected


@pytest.mark.parametrize(
    ("ending", "phase", "why"),
    [
        (False, "Active", ""),
        (True, "Terminating", ""),
        (False, "Terminating", "may only be 'Active' if `deletionTimestamp` is empty"),
        (True, "Active", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
    ],
)
def test_namespace_status(phase: str, why: str, *, ending: bool) -> None:
    metadata = {"name": "x", **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if ending else {})}
    found = problems(NAMESPACE, {"metadata": metadata, "status": {"phase": phase}}, {}, status=True)
    assert found == ([("status.Phase", INVALID, f'Invalid value: "{phase}": {why}')] if why else [])


def test_namespace_names() -> None:
    assert NAMESPACE.validate_name is not None
    assert NAMESPACE.validate_name("a.b") == ["must not contain dots"]


# Node

EFFECTS = 'supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"'
ONCE = 'Forbidden: node updates may not change {} except from "" to valid'


def tainted(*taints: Obj) -> Obj:
    return {"spec": {"taints": list(taints)}}


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ({}, None, []),
        ({"spec": {"podCIDRs": ["10.42.0.0/24"]}, "status": {"capacity": {"cpu": "4", "example.com/x": "1"}}}, None, []),
        (tainted({"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}), None, []),
        (tainted({"key": "a"}), None, [("metadata.taints[0].effect", REQUIRED, "Required value")]),
        (tainted({"key": "a", "effect": "Go"}), None, [("metadata.taints[0].effect", UNSUPPORTED, f'Unsupported value: "Go": {EFFECTS}')]),
        (tainted({"key": "/a", "effect": "NoExecute"}), {},
         [("metadata.taints[0].key", INVALID, 'Invalid value: "/a": prefix part must be non-empty')]),
        (tainted({"key": "a", "value": "b" * 64, "effect": "NoExecute"}), None,
         [("metadata.taints[0].value", INVALID, f'Invalid value: "{"b" * 64}": must be no more than 63 bytes')]),
        (tainted({"key": "a", "effect": "NoExecute"}, {"key": "a", "value": "b", "effect": "NoExecute"}), None,
         [("metadata.taints[1]", DUPLICATE,
           'Duplicate value: {"Key":"a","Value":"b","Effect":"NoExecute","TimeAdded":null}: taints must be unique by key and effect pair')]),
        ({"status": {"capacity": {"cpu": "-1"}}}, None,
         [("status.capacity.cpu", INVALID, 'Invalid value: "-1": must be greater than or equal to 0')]),
        ({"status": {"allocatable": {"pods": "1500m"}}}, {},
         [("status.allocatable.pods", INVALID, 'Invalid value: "1500m": must be an integer')]),
        ({"status": {"allocatable": {"example.com/x": "500m"}}}, {},
         [("status.allocatable.example.com/x", INVALID, 'Invalid value: "500m": must be an integer')]),
        ({"spec": {"podCIDRs": ["10.42.0.1/24"]}}, None,
         [("spec.podCIDRs[0]", INVALID, 'Invalid value: "10.42.0.1/24": must not have bits set beyond the prefix length')]),
        ({"spec": {"podCIDRs": ["10.42.0.0/24", "10.43.0.0/24"]}}, None,
         [("spec.podCIDRs", INVALID, 'Invalid value: ["10.42.0.0/24","10.43.0.0/24"]: may specify no more than one CIDR for each IP family')]),
        ({"spec": {"podCIDRs": ["10.42.0.0/24"]}}, {}, []),
        ({"spec": {"podCIDRs": ["10.42.1.0/24"]}}, {"spec": {"podCIDRs": ["10.42.0.0/24"]}},
         [("spec.podCIDRs", FORBIDDEN, ONCE.format("podCIDR"))]),
        ({}, {"spec": {"podCIDRs": ["10.42.0.0/24"]}}, [("spec.podCIDRs", FORBIDDEN, ONCE.format("podCIDR"))]),
        ({"spec": {"providerID": "a"}}, {}, []),
        ({"spec": {"providerID": "b"}}, {"spec": {"providerID": "a"}}, [("spec.providerID", FORBIDDEN, ONCE.format("providerID"))]),
        ({"status": {"addresses": [{"type": "Hostname", "address": "a"}] * 2}}, {},
         [("status.addresses[1]", DUPLICATE, 'Duplicate value: {"Type":"Hostname","Address":"a"}')]),
    ],
)  # fmt: skip
def test_nodes(new: Obj, old: Obj | None, expected: Told) -> None:
    assert problems(NODE, new, old) == expected
    if old is not None:
        assert problems(NODE, new, old, status=True) == expected


# Lease, ControllerRevision


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"leaseDurationSeconds": 1, "leaseTransitions": 0}, []),
        ({"leaseDurationSeconds": 0}, [("spec.leaseDurationSeconds", INVALID, "Invalid value: 0: must be greater than 0")]),
        ({"leaseTransitions": -1}, [("spec.leaseTransitions", INVALID, "Invalid value: -1: must be greater than or equal to 0")]),
        ({"strategy": "OldestEmulationVersion", "preferredHolder": "a"}, []),
        (
            {"strategy": "x"},
            [("spec.strategy.strategy", UNSUPPORTED, 'Unsupported value: "x": supported values: "OldestEmulationVersion"')],
        ),
        ({"strategy": "/x"}, [("spec.strategy.strategy", INVALID, 'Invalid value: "/x": prefix part must be non-empty')]),
        ({"preferredHolder": "a"}, [("spec.preferredHolder", FORBIDDEN, "Forbidden: may only be specified if `strategy` is defined")]),
    ],
)
def test_leases(spec: dict[str, Any], expected: Told) -> None:
    assert problems(LEASE, {"spec": spec}) == expected
    assert problems(LEASE, {"spec": spec}, {}) == expected


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ({"data": {}, "revision": 1}, None, []),
        ({"revision": 1}, None, [("data", REQUIRED, "Required value: data is mandatory")]),
        ({"data": {}, "revision": -1}, None, [("revision", INVALID, "Invalid value: -1: must be greater than or equal to 0")]),
        ({"data": {}, "revision": 2}, {"data": {}, "revision": 1}, []),
        ({"data": {"a": 1}}, {"data": {}}, [("data", INVALID, 'Invalid value: {"a":1}: field is immutable')]),
    ],
)
def test_controller_revisions(new: Obj, old: Obj | None, expected: Told) -> None:
    assert problems(CONTROLLER_REVISION, new, old) == expected


# PriorityClass

RESERVED = "Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: "


def named(name: str, **fields: Any) -> Obj:
    return {"metadata": {"name": name}, **fields}


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (named("a", value=1000000000, preemptionPolicy="Never"), None, []),
        (named("a", value=-5), None, []),
        (named("a", value=1000000001), None, [("value", FORBIDDEN, "Forbidden: maximum allowed value of a user defined priority is 1000000000")]),
        (named("system-node-critical", value=2000001000), None, []),
        (named("system-x", value=1), None, [("metadata.name", FORBIDDEN, RESERVED + "system-x is not a known system priority class")]),
        (named("system-node-critical", value=1), None,
         [("metadata.name", FORBIDDEN, RESERVED + "value of system-node-critical PriorityClass must be 2000001000")]),
        (named("system-cluster-critical", value=2000000000, globalDefault=True), None,
         [("metadata.name", FORBIDDEN, RESERVED + "globalDefault of system-cluster-critical PriorityClass must be false")]),
        (named("a", preemptionPolicy="x"), None,
         [("preemptionPolicy", UNSUPPORTED, 'Unsupported value: "x": supported values: "PreemptLowerPriority", "Never"')]),
        (named("a", preemptionPolicy=""), None, [("preemptionPolicy", REQUIRED, "Required value")]),
        (named("a", value=2), named("a", value=1), [("value", FORBIDDEN, "Forbidden: may not be changed in an update.")]),
        (named("a", preemptionPolicy="Never"), named("a", preemptionPolicy="PreemptLowerPriority"),
         [("preemptionPolicy", INVALID, 'Invalid value: "Never": field is immutable')]),
        (named("a", description="new"), named("a", description="old"), []),
    ],
)  # fmt: skip
def test_priority_classes(new: Obj, old: Obj | None, expected: Told) -> None:
    assert problems(PRIORITY_CLASS, new, old) == expected
