"""What rules cover, what they contain, and how refusals show them."""

import pytest

from edgekube.apiserver.rules import compact, compile_rules, show, subject_key, uncovered, url_covers
from tests.unit.apiserver.world import rule


@pytest.mark.parametrize(
    ("made", "verb", "group", "resource", "subresource", "covered"),
    [
        (rule("get", "core", "pods"), "get", "", "pods", "", True),
        (rule("get", "core", "pods"), "list", "", "pods", "", False),
        (rule("get", "core", "pods"), "get", "", "pods", "log", False),
        (rule("get", "core", "pods/log"), "get", "", "pods", "log", True),
        (rule("get", "core", "*"), "get", "", "pods", "log", True),
        (rule("get", "*", "*/scale"), "get", "apps", "deployments", "scale", True),
        (rule("get", "*", "*/scale"), "get", "apps", "deployments", "status", False),
        (rule("*", "*", "*"), "escalate", "rbac.authorization.k8s.io", "roles", "", True),
        (rule("get", "apps", "deployments"), "get", "extensions", "deployments", "", False),
        (rule("get", urls="/healthz"), "get", "", "pods", "", False),
    ],
)
def test_resources(made: dict, verb: str, group: str, resource: str, subresource: str, covered: bool) -> None:
    assert compile_rules([made])[0].covers_resource(verb, group, resource, subresource) is covered


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("*", "/any", True),
        ("/healthz", "/healthz", True),
        ("/healthz", "/healthz/x", False),
        ("/healthz/*", "/healthz/etcd", True),
        ("/healthz/*", "/healthz", False),
        ("/api*", "/apis/apps", True),
    ],
)
def test_urls(pattern: str, path: str, covered: bool) -> None:
    assert url_covers(pattern, path) is covered


@pytest.mark.parametrize(
    ("owned", "wanted", "missing"),
    [
        ([rule("*", "*", "*")], [rule("get list", "core apps", "pods")], 0),
        ([rule("get", "core", "pods")], [rule("get list", "core", "pods secrets")], 3),
        ([rule("get", "core", "pods", names="a")], [rule("get", "core", "pods")], 1),
        ([rule("get", "core", "pods", names="a b")], [rule("get", "core", "pods", names="a")], 0),
        ([rule("get", "core", "pods")], [rule("get", "core", "pods", names="a")], 0),
        ([rule("get", "*", "*/scale")], [rule("get", "apps", "deployments/scale")], 0),
        ([rule("get", "core", "pods")], [rule("get", "core", "pods/log")], 1),
        ([rule("get", urls="/api/*")], [rule("get", urls="/api/v1 /version")], 1),
        ([], [rule("get", "core", "pods")], 1),
    ],
)
def test_escalation_is_what_is_not_covered(owned: list, wanted: list, missing: int) -> None:
    assert len(uncovered(compile_rules(wanted), compile_rules(owned))) == missing


def test_refusals_show_rules_as_upstream_does() -> None:
    pieces = uncovered(compile_rules([rule("list get", "core", "pods")]), ())
    assert [show(one) for one in compact(pieces)] == ['{APIGroups:[""], Resources:["pods"], Verbs:["get", "list"]}']


def test_subjects() -> None:
    assert subject_key({"kind": "ServiceAccount", "name": "a", "namespace": "n"}, "") == ("User", "system:serviceaccount:n:a")
    assert subject_key({"kind": "ServiceAccount", "name": "a"}, "here") == ("User", "system:serviceaccount:here:a")
    assert subject_key({"kind": "ServiceAccount", "name": "a"}, "") is None
    assert subject_key({"kind": "Group", "name": "g"}, "") == ("Group", "g")
    assert subject_key({"kind": "Robot", "name": "g"}, "") is None
