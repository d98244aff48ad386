"""Strategic merge patch: the cases kubectl relies on, directives, refusals, and properties over generated patches."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekube.api.schema import SCHEMA
from edgekube.api.strategic import strategic_merge
from edgekube.errors import BadRequest, Invalid, Unclassified

POD = SCHEMA.struct("io.k8s.api.core.v1.Pod")
DEPLOYMENT = SCHEMA.struct("io.k8s.api.apps.v1.Deployment")
SERVICE = SCHEMA.struct("io.k8s.api.core.v1.Service")
assert POD is not None
assert DEPLOYMENT is not None
assert SERVICE is not None


def spec(**fields):
    return {"spec": fields}


def meta(**fields):
    return {"metadata": fields}


A, B, C = ({"name": name, "image": f"{name}:1"} for name in "abc")


@pytest.mark.parametrize(
    ("old", "patch", "new"),
    [
        pytest.param(
            spec(containers=[A, B]),
            spec(containers=[{"name": "b", "image": "b:2"}]),
            spec(containers=[A, {"name": "b", "image": "b:2"}]),
            id="set image",
        ),
        pytest.param(spec(containers=[A]), spec(containers=[B]), spec(containers=[B, A]), id="a new element comes first"),
        pytest.param(
            spec(containers=[A, B, C]),
            spec(containers=[{"name": "b", "$patch": "delete"}]),
            spec(containers=[A, C]),
            id="delete an element",
        ),
        pytest.param(spec(containers=[A, B]), spec(containers=[{"$patch": "replace"}, C]), spec(containers=[C]), id="replace a list"),
        pytest.param(
            spec(containers=[A], nodeSelector={"x": "1"}),
            {"spec": {"$patch": "replace", "containers": [B]}},
            spec(containers=[B]),
            id="replace a map",
        ),
        pytest.param(
            spec(securityContext={"fsGroup": 1}), spec(securityContext={"$patch": "delete"}), spec(securityContext={}), id="empty a map"
        ),
        pytest.param(spec(nodeName="x", hostname="y"), spec(nodeName=None), spec(hostname="y"), id="null deletes"),
        pytest.param(meta(labels={"a": "1"}), meta(labels={"b": "2"}), meta(labels={"a": "1", "b": "2"}), id="maps merge"),
        pytest.param(meta(labels={"a": "1"}), meta(labels={"a": None, "b": None}), meta(labels={}), id="label a-"),
        pytest.param({}, meta(annotations={"a": None, "b": "1"}), meta(annotations={"b": "1"}), id="nulls of a new map are dropped"),
        pytest.param(
            meta(finalizers=["a", "b"]), meta(finalizers=["b", "c"]), meta(finalizers=["a", "b", "c"]), id="scalars of a merging list unite"
        ),
        pytest.param(
            meta(finalizers=["a", "b", "c"]),
            meta(**{"$deleteFromPrimitiveList/finalizers": ["b"]}),
            meta(finalizers=["a", "c"]),
            id="scalars are taken out",
        ),
        pytest.param(
            spec(tolerations=[{"key": "a"}]),
            spec(tolerations=[{"key": "b"}]),
            spec(tolerations=[{"key": "b"}]),
            id="atomic lists are replaced",
        ),
        pytest.param(
            spec(containers=[A, B, C]),
            {"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "c", "image": "c:2"}]}},
            spec(containers=[B, {"name": "c", "image": "c:2"}, A]),
            id="the order wanted",
        ),
        pytest.param(
            spec(containers=[A, B]),
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            spec(containers=[B, A]),
            id="order only",
        ),
        pytest.param(
            spec(containers=[A, B]),
            {
                "spec": {
                    "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}],
                    "containers": [{"name": "c", "image": "c:1"}, {"name": "b", "$patch": "delete"}],
                }
            },
            spec(containers=[A, C]),
            id="as kubectl apply sends it",
        ),
        pytest.param(
            spec(volumes=[{"name": "v", "emptyDir": {}}]),
            spec(volumes=[{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}]),
            spec(volumes=[{"name": "v", "hostPath": {"path": "/x"}}]),
            id="retain keys",
        ),
        pytest.param(
            spec(containers=[{"name": "a", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80, "protocol": "TCP"}]}]),
            spec(containers=[{"name": "a", "env": [{"name": "Y", "value": "2"}], "ports": [{"containerPort": 80, "name": "http"}]}]),
            spec(
                containers=[
                    {
                        "name": "a",
                        "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}],
                        "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}],
                    }
                ]
            ),
            id="lists in lists, by their own keys",
        ),
        pytest.param(
            {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
            {"status": {"$setElementOrder/conditions": [{"type": "Ready"}], "conditions": [{"type": "Ready", "status": "True"}]}},
            {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            id="kubelet status",
        ),
    ],
)
def test_pods(old, patch, new):
    before, asked = copy.deepcopy(old), copy.deepcopy(patch)
    assert strategic_merge(POD, old, patch) == new
    assert old == before
    assert patch == asked


def test_a_strategy_keeps_only_its_own_keys():
    old = spec(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})
    patch = spec(strategy={"$retainKeys": ["type"], "type": "Recreate"})
    assert strategic_merge(DEPLOYMENT, old, patch) == spec(strategy={"type": "Recreate"})


def test_service_ports_merge_by_port():
    old = spec(ports=[{"port": 80, "nodePort": 30080}, {"port": 443}])
    assert strategic_merge(SERVICE, old, spec(ports=[{"port": 80, "targetPort": 8080}])) == spec(
        ports=[{"port": 80, "nodePort": 30080, "targetPort": 8080}, {"port": 443}]
    )


@pytest.mark.parametrize(
    ("patch", "error", "message"),
    [
        ([], BadRequest, "invalid JSON document"),
        (spec(containers=[{"image": "x"}]), Unclassified, "map: map[image:x] does not contain declared merge key: name"),
        (spec(containers=[{"$patch": "delete"}]), Unclassified, "map: map[$patch:delete] does not contain declared merge key: name"),
        ({"$patch": "frobnicate"}, Invalid, "the server rejected our request due to an error in our request"),
        (spec(containers=[{"$patch": "merge"}]), Invalid, "the server rejected our request due to an error in our request"),
        ({"spec": {"$retainKeys": ["a"], "nodeName": "x"}}, BadRequest, "invalid patch format of retainKeys"),
        ({"spec": {"$setElementOrder/containers": {}}}, BadRequest, "invalid patch format of setElementOrder list"),
    ],
)
def test_refusals(patch, error, message):
    with pytest.raises(error) as refused:
        strategic_merge(POD, spec(containers=[A]), patch)
    assert refused.value.message == message


def test_an_order_that_contradicts_the_patch_is_refused():
    patch = {"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [B, A]}}
    with pytest.raises(Unclassified, match=r"The order in patch list"):
        strategic_merge(POD, spec(containers=[A]), patch)


NAMES = st.sampled_from("abcd")
CONTAINERS = st.lists(NAMES, unique=True, max_size=4).flatmap(
    lambda names: st.tuples(
        *(st.fixed_dictionaries({"name": st.just(name)}, optional={"image": st.sampled_from("xy")}) for name in names)
    ).map(list)
)
PODS = st.fixed_dictionaries(
    {"spec": st.fixed_dictionaries({"containers": CONTAINERS}, optional={"nodeSelector": st.dictionaries(NAMES, NAMES)})},
    optional={
        "metadata": st.fixed_dictionaries(
            {}, optional={"labels": st.dictionaries(NAMES, NAMES), "finalizers": st.lists(NAMES, unique=True)}
        )
    },
)


@given(PODS, PODS)
def test_a_patch_without_directives_only_adds_and_is_idempotent(old, patch):
    before = copy.deepcopy(old)
    new = strategic_merge(POD, old, patch)
    assert old == before
    assert strategic_merge(POD, new, patch) == new
    names = [item["name"] for item in new["spec"]["containers"]]
    assert len(names) == len(set(names))
    assert set(names) == {item["name"] for pod in (old, patch) for item in pod["spec"]["containers"]}
    wanted = [item["name"] for item in patch["spec"]["containers"]]
    assert [name for name in names if name in wanted] == wanted


@given(PODS, PODS)
def test_order_and_deletions_lead_to_any_list(old, new):
    """What kubectl apply does: changes, deletions and the order wanted give exactly the new containers."""
    wanted = new["spec"]["containers"]
    gone = {item["name"] for item in old["spec"]["containers"]} - {item["name"] for item in wanted}
    changes = [{"$retainKeys": list(item), **item} for item in wanted]
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": item["name"]} for item in wanted],
            "containers": changes + [{"name": name, "$patch": "delete"} for name in sorted(gone)],
        }
    }
    assert strategic_merge(POD, old, patch)["spec"]["containers"] == wanted
