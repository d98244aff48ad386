"""The bootstrap data: well formed, complete, and what upstream promises about it."""

import pytest

from edgekube.apiserver.bootstrap import objects
from edgekube.apiserver.bootstrap.objects import parse_rule
from edgekube.apiserver.bootstrap.reconcile import reconcile_binding, reconcile_role

NAMED = {role["metadata"]["name"]: role for role in objects.cluster_roles()}


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("get list : core : pods services", {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "services"]}),
        ("get : url : /healthz", {"verbs": ["get"], "nonResourceURLs": ["/healthz"]}),
        ("get : core : secrets : a", {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
    ],
)
def test_notation(line: str, rule: dict) -> None:
    assert parse_rule(line) == rule


def test_every_role_and_binding_is_marked_and_named_once() -> None:
    every = [*objects.cluster_roles(), *objects.cluster_role_bindings(), *objects.roles(), *objects.role_bindings()]
    for obj in every:
        assert obj["metadata"]["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults"
        assert obj["metadata"]["annotations"][objects.AUTOUPDATE] == "true"
    keys = [(obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]) for obj in every]
    assert len(keys) == len(set(keys))


def test_bindings_lead_to_roles_that_exist() -> None:
    assert {binding["roleRef"]["name"] for binding in objects.cluster_role_bindings()} <= set(NAMED)
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]) for role in objects.roles()}
    assert {(one["metadata"]["namespace"], one["roleRef"]["name"]) for one in objects.role_bindings()} <= roles


def test_well_known_roles() -> None:
    expected = {
        "admin", "cluster-admin", "edit", "view", "system:aggregate-to-admin", "system:aggregate-to-edit", "system:aggregate-to-view",
        "system:auth-delegator", "system:basic-user", "system:discovery", "system:heapster", "system:kube-aggregator",
        "system:kube-controller-manager", "system:kube-dns", "system:kube-scheduler", "system:kubelet-api-admin", "system:monitoring",
        "system:node", "system:node-bootstrapper", "system:node-problem-detector", "system:node-proxier",
        "system:persistent-volume-provisioner", "system:public-info-viewer", "system:service-account-issuer-discovery",
        "system:volume-scheduler", "system:controller:deployment-controller", "system:controller:generic-garbage-collector",
    }  # fmt: skip
    assert expected <= set(NAMED)


def test_aggregated_roles_contain_each_other() -> None:
    assert all(rule in NAMED["edit"]["rules"] for rule in NAMED["view"]["rules"])
    assert all(rule in NAMED["admin"]["rules"] for rule in NAMED["edit"]["rules"])
    assert not any("secrets" in rule.get("resources", ()) for rule in NAMED["view"]["rules"])
    assert NAMED["view"]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"


def role(*rules: dict, **metadata: dict) -> dict:
    return {"metadata": {"name": "x", "labels": {}, "annotations": {}} | metadata, "rules": list(rules)}


GET, LIST = ({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]} for verb in ("get", "list"))
EXTRA = {"verbs": ["get"], "apiGroups": ["apps"], "resources": ["deployments"]}
WANTED = role(GET, LIST, annotations={objects.AUTOUPDATE: "true"}, labels={"a": "b"})


def test_role_gets_back_what_it_lost_and_keeps_what_was_added() -> None:
    changed = reconcile_role(role(GET, EXTRA), WANTED)
    assert changed is not None
    assert changed["rules"] == [GET, EXTRA, LIST]
    assert changed["metadata"]["labels"] == {"a": "b"}
    assert reconcile_role(changed, WANTED) is None


def test_role_that_covers_everything_in_other_words_is_left_alone() -> None:
    wide = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    current = role(wide, annotations={objects.AUTOUPDATE: "true"}, labels={"a": "b", "mine": "too"})
    assert reconcile_role(current, WANTED) is None


def test_protected_role_is_left_alone() -> None:
    assert reconcile_role(role(annotations={objects.AUTOUPDATE: "false"}), WANTED) is None


def test_binding_gets_back_subjects_and_is_replaced_when_it_leads_elsewhere() -> None:
    one, two = {"kind": "User", "name": "a"}, {"kind": "User", "name": "b"}
    wanted = role() | {"roleRef": {"name": "r"}, "subjects": [one]}
    lost = reconcile_binding(wanted | {"subjects": [two]}, wanted)
    assert lost is not None
    assert lost["subjects"] == [two, one]
    assert reconcile_binding(wanted | {"subjects": [two, one]}, wanted) is None
    assert reconcile_binding(wanted | {"roleRef": {"name": "other"}}, wanted) == wanted
