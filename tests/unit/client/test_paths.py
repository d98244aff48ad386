"""Addresses of kinds."""

import pytest

from edgekube.api.catalog import DEPLOYMENT, NODE, POD
from edgekube.client.paths import path_of, with_query


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ((POD,), "/api/v1/pods"),
        ((POD, "default"), "/api/v1/namespaces/default/pods"),
        ((POD, "default", "web"), "/api/v1/namespaces/default/pods/web"),
        ((POD, "default", "web", "log"), "/api/v1/namespaces/default/pods/web/log"),
        ((NODE, "", "pi"), "/api/v1/nodes/pi"),
        ((DEPLOYMENT, "a", "b", "scale"), "/apis/apps/v1/namespaces/a/deployments/b/scale"),
    ],
)
def test_paths(arguments, path):
    assert path_of(*arguments) == path


def test_only_given_parameters_are_sent():
    assert with_query("/x", {"a": "", "b": "1,2", "c": "x=y"}) == "/x?b=1%2C2&c=x%3Dy"
    assert with_query("/x", {"a": ""}) == "/x"
