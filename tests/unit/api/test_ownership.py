"""Objects as typed trees: members, differences, merging and removing, and how they fit together."""

import copy

from hypothesis import given
from hypothesis import strategies as st

from edgekube.api import fieldset, ownership
from edgekube.api.schema import SCHEMA

POD = SCHEMA.struct("io.k8s.api.core.v1.Pod")
DEPLOYMENT = SCHEMA.struct("io.k8s.api.apps.v1.Deployment")
assert POD is not None
assert DEPLOYMENT is not None

NAMES = st.sampled_from("abc")
PORTS = st.lists(st.sampled_from([80, 81, 82]), unique=True, max_size=2).map(lambda ports: [{"containerPort": port} for port in ports])
CONTAINER = {"image": NAMES, "args": st.lists(NAMES, min_size=1, max_size=2), "ports": PORTS.filter(bool)}
CONTAINERS = st.lists(NAMES, unique=True, min_size=1).flatmap(
    lambda names: st.tuples(*(st.fixed_dictionaries({"name": st.just(name)}, optional=CONTAINER) for name in names)).map(list)
)
LABELS = st.dictionaries(NAMES, NAMES, min_size=1)
PODS = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries({}, optional={"labels": LABELS, "finalizers": st.lists(NAMES, unique=True, min_size=1)}).filter(
            bool
        ),
        "spec": st.fixed_dictionaries(
            {}, optional={"containers": CONTAINERS, "nodeSelector": LABELS, "priority": st.integers(0, 2)}
        ).filter(bool),
    },
)


def paths(node):
    return set(fieldset.members(node))


def test_a_new_object_against_the_skeleton_is_what_a_creator_manages():
    new = {
        "metadata": {"labels": {"a": "1"}},
        "spec": {
            "selector": {"matchLabels": {"a": "1"}},
            "template": {"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 1}]}]}},
        },
    }
    assert ownership.compare(DEPLOYMENT, ownership.skeleton(DEPLOYMENT), new).changed == {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {
            "f:selector": {},
            "f:template": {
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"c"}': {
                            ".": {},
                            "f:name": {},
                            "f:ports": {".": {}, 'k:{"containerPort":1,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
                        }
                    }
                }
            },
        },
    }


def test_what_an_applier_manages():
    config = {"metadata": {"labels": {"a": "1"}, "annotations": {}}, "spec": {"containers": [{"name": "c", "args": ["x"]}], "volumes": []}}
    assert ownership.field_set(POD, config) == {
        "f:metadata": {"f:labels": {"f:a": {}}, "f:annotations": {}},
        "f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:name": {}, "f:args": {}}}},
    }


def test_an_order_is_no_difference_but_an_atomic_list_is():
    left = {"spec": {"containers": [{"name": "a"}, {"name": "b"}], "tolerations": [{"key": "x"}]}}
    right = {"spec": {"containers": [{"name": "b"}, {"name": "a"}], "tolerations": [{"key": "y"}]}}
    assert ownership.compare(POD, left, right) == ({"f:spec": {"f:tolerations": {}}}, {})


def test_merging_weaves_lists():
    live = {"spec": {"containers": [{"name": name} for name in "abcd"]}}
    config = {"spec": {"containers": [{"name": name, "image": "i"} for name in "dxb"]}}
    merged = ownership.merge(POD, live, config)
    assert [item["name"] for item in merged["spec"]["containers"]] == ["a", "c", "d", "x", "b"]


@given(PODS, PODS)
def test_a_difference_is_empty_only_for_equals(old, new):
    difference = ownership.compare(POD, old, new)
    assert ownership.compare(POD, old, copy.deepcopy(old)).same
    assert difference.same is (normal(old) == normal(new))


@given(PODS, PODS)
def test_differences_mirror_each_other(old, new):
    forth, back = ownership.compare(POD, old, new), ownership.compare(POD, new, old)
    assert paths(forth.removed) <= paths(back.changed)
    assert paths(back.changed) - paths(forth.removed) == paths(forth.changed) - paths(back.removed)


@given(PODS, PODS)
def test_merging_keeps_all_of_the_config(live, config):
    before = copy.deepcopy((live, config))
    merged = ownership.merge(POD, live, config)
    assert (live, config) == before
    assert ownership.merge(POD, merged, config) == merged
    assert paths(ownership.field_set(POD, merged)) == paths(ownership.field_set(POD, live)) | paths(ownership.field_set(POD, config))


@given(PODS, PODS)
def test_removing_takes_exactly_the_members(obj, other):
    before = copy.deepcopy(obj)
    gone = ownership.field_set(POD, other)
    left = ownership.remove(POD, obj, gone)
    assert obj == before
    assert paths(ownership.field_set(POD, left)) <= paths(ownership.field_set(POD, obj))
    assert ownership.remove(POD, obj, {}) == obj
    assert ownership.remove(POD, obj, ownership.with_parents(POD, ownership.field_set(POD, obj))) == {}


def normal(obj):
    """Without the order of what has none."""
    if isinstance(obj, dict):
        return {key: normal(value) if key not in ("args",) else value for key, value in obj.items() if value not in ([], {})}
    if isinstance(obj, list):
        return sorted((normal(item) for item in obj), key=repr)
    return obj
