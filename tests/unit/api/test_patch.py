"""JSON patch and JSON merge patch: the RFCs' examples, refusals, and against naive models."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekube.api.patch import json_patch, merge_patch
from edgekube.errors import BadRequest, Invalid, TooLarge


@pytest.mark.parametrize(
    ("old", "steps", "new"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
        ({"a": [1, 2, 3]}, [{"op": "remove", "path": "/a/-1"}], {"a": [1, 2]}),
        (
            {"a": 1},
            [{"op": "replace", "path": "/a", "value": {"x": 1}}, {"op": "add", "path": "/a/y", "value": 2}],
            {"a": {"x": 1, "y": 2}},
        ),
        ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
        (
            {"a": {"b": [1]}},
            [{"op": "copy", "from": "/a", "path": "/c"}, {"op": "add", "path": "/c/b/-", "value": 2}],
            {"a": {"b": [1]}, "c": {"b": [1, 2]}},
        ),
        ({"a/b": 1, "m~n": 2}, [{"op": "remove", "path": "/a~1b"}, {"op": "test", "path": "/m~0n", "value": 2}], {"m~n": 2}),
        ({"a": None}, [{"op": "test", "path": "/a", "value": None}, {"op": "test", "path": "/b", "value": None}], {"a": None}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1.0}], {"a": 1}),
        ({}, [{"op": "add", "path": "", "value": {"b": 1}}], {"b": 1}),
    ],
)
def test_json_patch(old, steps, new):
    before = copy.deepcopy(old)
    assert json_patch(old, steps) == new
    assert old == before


@pytest.mark.parametrize(
    "step",
    [
        {"op": "test", "path": "/a", "value": 2},
        {"op": "test", "path": "/a", "value": True},
        {"op": "remove", "path": "/x"},
        {"op": "replace", "path": "/x", "value": 1},
        {"op": "add", "path": "/x/y", "value": 1},
        {"op": "add", "path": "/l/9", "value": 1},
        {"op": "add", "path": "/l/x", "value": 1},
        {"op": "remove", "path": "/l/1"},
        {"op": "copy", "from": "/x", "path": "/y"},
        {"op": "move", "path": "/y"},
        {"op": "add", "path": "b", "value": 1},
        {"op": "frobnicate", "path": "/a"},
        {"op": "add", "path": "/a/b", "value": 1},
        {"path": "/a"},
    ],
)
def test_what_cannot_be_done_is_unprocessable(step):
    with pytest.raises(Invalid) as refused:
        json_patch({"a": 1, "l": [1]}, [step])
    assert refused.value.code == 422
    assert refused.value.message == "the server rejected our request due to an error in our request"


def test_what_is_no_patch_is_a_bad_request():
    with pytest.raises(BadRequest):
        json_patch({}, {"op": "add"})
    with pytest.raises(BadRequest):
        json_patch({}, [[]])
    with pytest.raises(TooLarge):
        json_patch({}, [{"op": "test", "path": "/a", "value": None}] * 10_001)


def test_copies_cannot_blow_an_object_up():
    steps = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 40
    with pytest.raises(Invalid):
        json_patch({"a": [1]}, steps)


@pytest.mark.parametrize(
    ("old", "patch", "new"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ],
)
def test_merge_patch(old, patch, new):
    before = copy.deepcopy(old)
    assert merge_patch(old, patch) == new
    assert old == before


def test_a_merge_patch_is_an_object():
    with pytest.raises(BadRequest, match="Invalid JSON Patch"):
        merge_patch({}, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), JSON, max_size=3)
POINTERS = st.lists(st.sampled_from(["a", "b", "c", "0", "1", "-"]), min_size=1, max_size=3).map(lambda steps: "/" + "/".join(steps))
STEPS = st.one_of(
    st.fixed_dictionaries({"op": st.sampled_from(["add", "replace"]), "path": POINTERS, "value": JSON}),
    st.fixed_dictionaries({"op": st.just("remove"), "path": POINTERS}),
    st.fixed_dictionaries({"op": st.sampled_from(["copy", "move"]), "path": POINTERS, "from": POINTERS}),
)


def naive(document, step):
    """One operation on a deep copy, by the letter of the RFC."""
    document = copy.deepcopy(document)

    def parent(path):
        *way, last = path.split("/")[1:]
        node = document
        for name in way:
            node = node[name] if isinstance(node, dict) else node[int(name)]
        if not isinstance(node, (dict, list)):
            raise KeyError
        return node, last

    def take(path):
        node, last = parent(path)
        if isinstance(node, dict):
            return node, last, node[last]
        return node, int(last), node[int(last)]

    def put(path, value):
        node, last = parent(path)
        if isinstance(node, dict):
            node[last] = value
        elif last == "-":
            node.append(value)
        elif int(last) > len(node):
            raise IndexError
        else:
            node.insert(int(last), value)

    if step["op"] == "add":
        put(step["path"], step["value"])
    elif step["op"] == "replace":
        node, at, _ = take(step["path"])
        node[at] = step["value"]
    elif step["op"] == "remove":
        node, at, _ = take(step["path"])
        del node[at]
    else:
        node, at, value = take(step["from"])
        if step["op"] == "move":
            del node[at]
        put(step["path"], copy.deepcopy(value))
    return document


@given(OBJECTS, st.lists(STEPS, max_size=6))
def test_json_patch_does_what_the_rfc_says(old, steps):
    before, expected = copy.deepcopy(old), old
    try:
        for step in steps:
            expected = naive(expected, step)
    except (KeyError, IndexError, ValueError, TypeError):
        with pytest.raises(Invalid):
            json_patch(old, steps)
    else:
        assert json_patch(old, steps) == expected
    assert old == before


def difference(old, new):
    """The merge patch from `old` to `new`."""
    patch = {key: None for key in old if key not in new}
    for key, value in new.items():
        if isinstance(old.get(key), dict) and isinstance(value, dict):
            patch[key] = difference(old[key], value)
        elif key not in old or old[key] != value or type(old[key]) is not type(value):
            patch[key] = value
    return patch


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


@given(OBJECTS.map(without_nulls), OBJECTS.map(without_nulls))
def test_a_merge_patch_made_of_a_difference_leads_there(old, new):
    before = copy.deepcopy(old)
    assert merge_patch(old, difference(old, new)) == new
    assert old == before
