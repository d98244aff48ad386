"""The algebra of field sets, against sets of paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekube.api import fieldset
from edgekube.api.schema import SCHEMA

ELEMENTS = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"'])
PATHS = st.sets(st.lists(ELEMENTS, min_size=1, max_size=3).map(tuple), max_size=8)


def build(paths):
    """The set with exactly these members."""
    root = {}
    for path in paths:
        node = root
        for element in path:
            node = node.setdefault(element, {"-": None})
        node["."] = {}
    return shaped(root)


def shaped(node):
    inner = {key: shaped(below) for key, below in node.items() if key not in (".", "-")}
    return {".": {}, **inner} if inner and "." in node else inner


def paths_of(node):
    return set(fieldset.members(node))


@given(PATHS)
def test_members(paths):
    assert paths_of(build(paths)) == paths


@given(PATHS, PATHS)
def test_algebra_is_that_of_sets_of_paths(left, right):
    a, b = build(left), build(right)
    assert paths_of(fieldset.union(a, b)) == left | right
    assert paths_of(fieldset.difference(a, b)) == left - right
    assert paths_of(fieldset.intersection(a, b)) == left & right
    assert (a, b) == (build(left), build(right))


@given(PATHS, PATHS)
def test_results_have_one_form(left, right):
    a, b = build(left), build(right)
    assert fieldset.union(a, b) == build(left | right)
    assert fieldset.difference(a, b) == build(left - right)
    assert fieldset.intersection(a, b) == build(left & right)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("f:spec", "f:replicas"), ".spec.replicas"),
        (("f:spec", "f:containers", 'k:{"name":"web"}', "f:image"), '.spec.containers[name="web"].image'),
        (("f:ports", 'k:{"containerPort":80,"protocol":"TCP"}'), '.ports[containerPort=80,protocol="TCP"]'),
        (("f:metadata", "f:finalizers", 'v:"x"'), '.metadata.finalizers[="x"]'),
        (("f:a", "i:3"), ".a[3]"),
    ],
)
def test_paths_as_conflicts_show_them(path, text):
    assert fieldset.path_text(path) == text


def test_elements():
    struct = SCHEMA.struct("io.k8s.api.core.v1.Container")
    assert struct is not None
    ports, env = struct.fields["ports"], struct.fields["env"]
    assert fieldset.element_of(ports, {"containerPort": 80}) == 'k:{"containerPort":80,"protocol":"TCP"}'
    assert fieldset.element_of(env, {"name": "A", "value": "1"}) == 'k:{"name":"A"}'
    assert fieldset.element_of(env, {"value": "1"}) is None
    assert fieldset.element_of(env, "x") is None
