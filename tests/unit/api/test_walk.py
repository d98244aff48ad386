"""The walk over an object: what Go's decoder refuses, what it drops, and what writing the object again changes."""

import orjson
import pytest

from edgekube.api.schema import SCHEMA
from edgekube.api.walk import check, strict_path

DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"
POD = "io.k8s.api.core.v1.Pod"
SECRET = "io.k8s.api.core.v1.Secret"
SERVICE = "io.k8s.api.core.v1.Service"
TEMPLATE = ("spec", "template", "spec")


def nested(path, value):
    for step in reversed(path):
        value = {step: value}
    return value


def run(definition, obj):
    struct = SCHEMA.struct(definition)
    assert struct is not None
    return check(struct, obj)


@pytest.mark.parametrize(
    ("definition", "obj", "error"),
    [
        (
            DEPLOYMENT,
            nested(("spec", "replicas"), "3"),
            "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            DEPLOYMENT,
            nested(("spec", "replicas"), 1.5),
            "cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            DEPLOYMENT,
            nested(("spec", "replicas"), 2**31),
            "cannot unmarshal number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            DEPLOYMENT,
            nested(("spec", "paused"), "no"),
            "cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
        (
            DEPLOYMENT,
            nested((*TEMPLATE, "containers"), [{"name": "c", "env": [{"name": "A", "value": 1}]}]),
            "cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            DEPLOYMENT,
            nested((*TEMPLATE, "containers"), "c"),
            "cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (POD, {"spec": []}, "cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec"),
        (POD, {"metadata": {"labels": {"a": 1}}}, "cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"),
        (
            POD,
            {"metadata": {"labels": "a"}},
            "cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            POD,
            {"spec": {"restartPolicy": True}},
            "cannot unmarshal bool into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (SECRET, {"data": {"a": 5}}, "cannot unmarshal number into Go struct field Secret.data of type []uint8"),
    ],
)
def test_wrong_types_are_refused_in_the_words_of_gos_decoder(definition, obj, error):
    assert run(definition, obj).error == f"json: {error}"


def test_the_first_mismatch_is_told():
    assert ".hostNetwork " in run(POD, {"spec": {"hostNetwork": 1, "hostPID": 1}}).error


@pytest.mark.parametrize(
    ("definition", "obj", "error"),
    [
        (SECRET, {"data": {"a": "!!!!"}}, "illegal base64 data at input byte 0"),
        (SECRET, {"data": {"a": "YWJj*"}}, "illegal base64 data at input byte 4"),
        (SECRET, {"data": {"a": "YWI"}}, "illegal base64 data at input byte 3"),
        (SERVICE, {"spec": {"ports": [{"targetPort": True}]}}, "json: cannot unmarshal bool into Go value of type int32"),
        (
            POD,
            {"metadata": {"creationTimestamp": "yesterday"}},
            'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"',
        ),
        (
            POD,
            {"metadata": {"creationTimestamp": "2026-01-01"}},
            'parsing time "2026-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T"',
        ),
        (POD, {"metadata": {"creationTimestamp": 5}}, "json: cannot unmarshal number into Go value of type string"),
    ],
)
def test_what_a_types_own_decoder_refuses(definition, obj, error):
    assert run(definition, obj).error == error


@pytest.mark.parametrize("text", ["YQ==", "YWI=", "YWJj", "", "YW\nJj"])
def test_good_base64_is_left_alone(text):
    obj = {"data": {"a": text}}
    assert run(SECRET, obj).error == ""
    assert obj["data"] == {"a": text}


def test_unknown_fields_are_dropped_and_named():
    obj = {"spec": {"foo": 1, "containers": [{"name": "c", "ports": [{"containerPort": 1, "prot": "x"}]}]}, "bar": {}}
    assert run(POD, obj).unknown == ["spec.foo", "spec.containers[0].ports[0].prot", "bar"]
    assert obj["spec"] == {"containers": [{"name": "c", "ports": [{"containerPort": 1}], "resources": {}}]}
    assert "bar" not in obj


def test_nulls_empty_containers_and_omitted_zeros_leave_no_trace():
    obj = {
        "metadata": {"name": "a", "labels": {}, "finalizers": [], "generation": 0, "annotations": None},
        "spec": {"containers": [], "hostNetwork": False, "nodeName": "", "automountServiceAccountToken": False, "activeDeadlineSeconds": 0},
    }
    run(POD, obj)
    assert obj["metadata"] == {"name": "a"}
    assert obj["spec"] == {"containers": [], "automountServiceAccountToken": False, "activeDeadlineSeconds": 0}


def test_structs_that_go_always_writes_are_there():
    obj = {"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}
    run(DEPLOYMENT, obj)
    assert obj["status"] == {}
    assert obj["spec"]["strategy"] == {}
    assert obj["spec"]["template"]["metadata"] == {}
    service = {"spec": {}}
    run(SERVICE, service)
    assert service["status"] == {"loadBalancer": {}}


def test_nulls_inside_lists_and_maps_become_zero_values():
    obj = {"metadata": {"labels": {"a": None}}, "spec": {"containers": [None], "imagePullSecrets": [{"name": "x"}]}}
    run(POD, obj)
    assert obj["metadata"]["labels"] == {"a": ""}
    assert obj["spec"]["containers"] == [{"resources": {}}]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00.987Z", "2026-01-01T00:00:00Z"),
    ],
)
def test_times_are_written_in_utc_to_the_second(given, kept):
    obj = {"metadata": {"creationTimestamp": given}}
    assert run(POD, obj).error == ""
    assert obj["metadata"]["creationTimestamp"] == kept


def test_micro_times_keep_six_digits():
    obj = {"spec": {"renewTime": "2026-01-01T01:00:00.5+01:00"}}
    assert run("io.k8s.api.coordination.v1.Lease", obj).error == ""
    assert obj["spec"]["renewTime"] == "2026-01-01T00:00:00.500000Z"


@pytest.mark.parametrize(("given", "kept"), [("1000m", "1"), (2, "2"), (0.5, "500m"), ("1024Mi", "1Gi"), ("100m", "100m")])
def test_quantities_are_written_canonically(given, kept):
    obj = {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": given}}}]}}
    assert run(POD, obj).error == ""
    assert obj["spec"]["containers"][0]["resources"] == {"limits": {"cpu": kept}}


@pytest.mark.parametrize("bad", [True, [], {}, "1x", ""])
def test_a_bad_quantity_is_refused(bad):
    obj = {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": bad}}}]}}
    assert run(POD, obj).error


def test_a_clean_object_stays_as_it_is():
    obj = {"spec": {"template": {"spec": {"containers": [{"name": "c", "args": ["a"]}]}}}}
    run(DEPLOYMENT, obj)
    again = orjson.loads(orjson.dumps(obj))
    run(DEPLOYMENT, again)
    assert again == obj


def test_strict_path():
    assert strict_path((((None, "spec"), "containers"), 0)) == "spec.containers[0]"
