"""Roles and bindings that are refused."""

from typing import Any

import pytest

from edgekube.api.kind import Kind
from edgekube.api.kinds.rbac import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING
from edgekube.api.types import Obj

INVALID, REQUIRED, UNSUPPORTED = "FieldValueInvalid", "FieldValueRequired", "FieldValueNotSupported"
GROUP = "rbac.authorization.k8s.io"
Told = list[tuple[str, str, str]]


def problems(kind: Kind, new: Obj, old: Obj | None = None) -> Told:
    objects = [{"metadata": {"name": "x"}, **each} for each in (new, old or {})]
    for each in objects:
        kind.default(each)
    return [(one.field, one.reason, one.message) for one in kind.validate(objects[0], None if old is None else objects[1])]


READ = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}


@pytest.mark.parametrize("kind", [ROLE, CLUSTER_ROLE], ids=lambda kind: kind.plural)
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (READ, []),
        ({**READ, "resources": ["pods", "nodes"], "resourceNames": ["a"]}, []),
        ({**READ, "verbs": []}, [("rules[0].verbs", REQUIRED, "Required value: verbs must contain at least one value")]),
        (
            {**READ, "apiGroups": []},
            [("rules[0].apiGroups", REQUIRED, "Required value: resource rules must supply at least one api group")],
        ),
        ({**READ, "resources": []}, [("rules[0].resources", REQUIRED, "Required value: resource rules must supply at least one resource")]),
    ],
)
def test_rules(kind: Kind, rule: Obj, expected: Told) -> None:
    assert problems(kind, {"rules": [rule]}) == expected
    assert problems(kind, {"rules": [rule]}, {"rules": [READ]}) == expected


def test_urls() -> None:
    rule = {"verbs": ["get"], "nonResourceURLs": ["/x"]}
    assert problems(CLUSTER_ROLE, {"rules": [rule]}) == []
    why = "namespaced rules cannot apply to non-resource URLs"
    assert problems(ROLE, {"rules": [rule]}) == [("rules[0].nonResourceURLs", INVALID, f'Invalid value: ["/x"]: {why}')]
    why = "rules cannot apply to both regular resources and non-resource URLs"
    both = {**READ, **rule}
    assert problems(CLUSTER_ROLE, {"rules": [both]}) == [("rules[0].nonResourceURLs", INVALID, f'Invalid value: ["/x"]: {why}')]


def test_aggregation() -> None:
    at = "aggregationRule.clusterRoleSelectors"
    why = "at least one clusterRoleSelector required if aggregationRule is non-nil"
    assert problems(CLUSTER_ROLE, {"aggregationRule": {}}) == [(at, REQUIRED, f"Required value: {why}")]
    good = {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}
    assert problems(CLUSTER_ROLE, good) == []
    bad = {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"/a": "b"}}]}}
    assert [one[0] for one in problems(CLUSTER_ROLE, bad)] == [f"{at}[0].matchLabels"]


def binding(*subjects: Obj, **reference: Any) -> Obj:
    return {"roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "view", **reference}, "subjects": list(subjects)}


ACCOUNT = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}


@pytest.mark.parametrize("kind", [ROLE_BINDING, CLUSTER_ROLE_BINDING], ids=lambda kind: kind.plural)
@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (binding(), []),
        (binding(ACCOUNT, {"kind": "User", "name": "a b"}, {"kind": "Group", "name": "system:masters"}), []),
        (binding(apiGroup="x"), [("roleRef.apiGroup", UNSUPPORTED, f'Unsupported value: "x": supported values: "{GROUP}"')]),
        (binding(name=""), [("roleRef.name", REQUIRED, "Required value")]),
        (binding(name="a/b"), [("roleRef.name", INVALID, "Invalid value: \"a/b\": may not contain '/'")]),
        (binding({**ACCOUNT, "apiGroup": "x"}), [("subjects[0].apiGroup", UNSUPPORTED, 'Unsupported value: "x": supported values: ""')]),
        (binding({"kind": "User"}),
         [("subjects[0].name", REQUIRED, "Required value"), ("subjects[0].name", INVALID, 'Invalid value: "": user name cannot be empty')]),
        (binding({"kind": "Group", "name": "a", "apiGroup": "x"}),
         [("subjects[0].apiGroup", UNSUPPORTED, f'Unsupported value: "x": supported values: "{GROUP}"')]),
        (binding({"kind": "Robot", "name": "a"}),
         [("subjects[0].kind", UNSUPPORTED, 'Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"')]),
    ],
)  # fmt: skip
def test_bindings(kind: Kind, obj: Obj, expected: Told) -> None:
    assert problems(kind, obj) == expected


def test_what_differs_between_bindings() -> None:
    account = {"kind": "ServiceAccount", "name": "default"}
    assert problems(ROLE_BINDING, binding(account)) == []
    assert problems(CLUSTER_ROLE_BINDING, binding(account)) == [("subjects[0].namespace", REQUIRED, "Required value")]
    assert problems(ROLE_BINDING, binding(kind="Role")) == []
    assert problems(CLUSTER_ROLE_BINDING, binding(kind="Role")) == [
        ("roleRef.kind", UNSUPPORTED, 'Unsupported value: "Role": supported values: "ClusterRole"')
    ]
    assert problems(ROLE_BINDING, binding(kind="x")) == [
        ("roleRef.kind", UNSUPPORTED, 'Unsupported value: "x": supported values: "Role", "ClusterRole"')
    ]


@pytest.mark.parametrize("kind", [ROLE_BINDING, CLUSTER_ROLE_BINDING], ids=lambda kind: kind.plural)
def test_the_role_stays(kind: Kind) -> None:
    assert problems(kind, binding(ACCOUNT), binding()) == []
    shown = f'{{"APIGroup":"{GROUP}","Kind":"ClusterRole","Name":"edit"}}'
    assert problems(kind, binding(name="edit"), binding()) == [("roleRef", INVALID, f"Invalid value: {shown}: cannot change roleRef")]
