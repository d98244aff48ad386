import pytest

from edgekube.apiserver.request import Request, Target
from edgekube.apiserver.target import parse, truth
from tests.kit.api import Api

CASES = [
    ("GET", "/api/v1/pods", Target("list", "", "v1", "", "pods")),
    ("GET", "/api/v1/pods?watch=true", Target("watch", "", "v1", "", "pods")),
    ("GET", "/api/v1/pods?watch=false", Target("list", "", "v1", "", "pods")),
    ("GET", "/api/v1/pods?watch", Target("watch", "", "v1", "", "pods")),
    ("GET", "/api/v1/namespaces/a/pods/b", Target("get", "", "v1", "a", "pods", "b")),
    ("HEAD", "/api/v1/namespaces/a/pods/b", Target("get", "", "v1", "a", "pods", "b")),
    ("GET", "/api/v1/namespaces/a/pods/b/log", Target("get", "", "v1", "a", "pods", "b", "log")),
    ("GET", "/api/v1/namespaces/a/pods/b/proxy/x/y", Target("get", "", "v1", "a", "pods", "b", "proxy", "x/y")),
    ("GET", "/api/v1/namespaces/a", Target("get", "", "v1", "a", "namespaces", "a")),
    ("PUT", "/api/v1/namespaces/a/status", Target("update", "", "v1", "a", "namespaces", "a", "status")),
    ("PUT", "/api/v1/namespaces/a/finalize", Target("update", "", "v1", "a", "namespaces", "a", "finalize")),
    ("GET", "/api/v1/namespaces", Target("list", "", "v1", "", "namespaces")),
    ("DELETE", "/api/v1/namespaces/a/pods", Target("deletecollection", "", "v1", "a", "pods")),
    ("DELETE", "/api/v1/namespaces/a/pods/b", Target("delete", "", "v1", "a", "pods", "b")),
    ("POST", "/apis/apps/v1/namespaces/a/deployments", Target("create", "apps", "v1", "a", "deployments")),
    ("PATCH", "/apis/apps/v1/namespaces/a/deployments/b/scale", Target("patch", "apps", "v1", "a", "deployments", "b", "scale")),
    ("GET", "/api/v1/watch/namespaces/a/pods", Target("watch", "", "v1", "a", "pods")),
    ("GET", "/api/v1/watch/pods", Target("watch", "", "v1", "", "pods")),
    ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Db", Target("list", "", "v1", "a", "pods", "b")),
    ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name!%3Db", Target("list", "", "v1", "a", "pods")),
    ("GET", "/api/v1", Target("get")),
    ("GET", "/apis/apps/v1", Target("get")),
    ("GET", "/apis", Target("get")),
    ("POST", "/healthz", Target("post")),
]


@pytest.mark.parametrize(("method", "path", "expected"), CASES, ids=[f"{case[0]} {case[1]}" for case in CASES])
def test_path_is_read_once(method, path, expected):
    request: Request = Api.request(None, method, path)
    assert parse(request) == expected


def test_truth_of_query_values():
    assert [truth(text) for text in (None, "", "1", "true", "nonsense", "false", "0", "F")] == [
        False, True, True, True, True, False, False, False,
    ]  # fmt: skip
