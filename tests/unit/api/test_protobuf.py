"""Protobuf as Kubernetes clients speak it: special messages byte by byte, whole objects both ways, damage. kubectl is the independent peer
(tests/api/test_protobuf.py).
"""

import base64
import functools
import gzip
import importlib.util
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekube.api import catalog, decoding, protobuf
from edgekube.api.protowire import Malformed, read_varint, signed, varint
from edgekube.errors import BadRequest

SAMPLES = {
    "pod": {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-1", "namespace": "default", "uid": "u", "labels": {"app": "web", "tier": "front"}, "annotations": {"a": "ü"},
            "creationTimestamp": "2026-01-02T03:04:05Z", "generation": 7, "finalizers": ["example.org/x"],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "r", "controller": True}],
            "managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                               "fieldsV1": {"f:metadata": {"f:labels": {}}}, "time": "2026-01-02T03:04:05Z"}],
        },
        "spec": {
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "activeDeadlineSeconds": 600, "nodeSelector": {"disk": "ssd"},
            "hostNetwork": True, "securityContext": {"runAsUser": 1000, "sysctls": [{"name": "kernel.x", "value": "1"}]},
            "containers": [{
                "name": "main", "image": "web:1", "command": ["a", "b"], "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}],
                "env": [{"name": "A", "value": "b"}, {"name": "C", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "250m"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10},
                "readinessProbe": {"tcpSocket": {"port": 80}, "initialDelaySeconds": 1},
                "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": True}],
            }],
            "volumes": [{"name": "v", "projected": {"defaultMode": 420, "sources": [{"configMap": {"name": "c"}}]}}],
            "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        },
        "status": {"phase": "Running", "podIP": "10.42.0.7", "podIPs": [{"ip": "10.42.0.7"}], "startTime": "2026-01-02T03:04:05Z"},
    },
    "deployment": {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 3, "selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
        "status": {"replicas": 3, "conditions": [{"type": "Available", "status": "True", "lastUpdateTime": "2026-01-02T03:04:05Z"}]},
    },
    "secret": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "aGk=", "b": "AAECAw=="}, "type": "Opaque"},
    "lease": {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-02T03:04:05.123456Z"},
    },
    "role": {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
    },
}  # fmt: skip


def pod(**spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}


def round_trip(obj):
    return protobuf.decode(protobuf.encode(obj))


def body(version, kind, message):
    return protobuf.envelope(version, kind, bytes.fromhex(message))


def only(obj):
    return {name: value for name, value in obj.items() if name not in ("apiVersion", "kind")}


def without_empty(value):
    """Structs that the reader fills in because Go always writes them count as absent."""
    if isinstance(value, dict):
        inner = {name: without_empty(each) for name, each in value.items()}
        return {name: each for name, each in inner.items() if each != {}}
    return [without_empty(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_what_is_written_is_what_was_given(name):
    obj = SAMPLES[name]
    assert without_empty(round_trip(obj)) == without_empty(obj)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_both_forms_are_the_same_after_cleaning(name):
    kind = catalog.find_kind(SAMPLES[name]["apiVersion"], SAMPLES[name]["kind"])
    decoded, plain = round_trip(SAMPLES[name]), orjson.loads(orjson.dumps(SAMPLES[name]))
    decoding.clean(kind, decoded)
    decoding.clean(kind, plain)
    assert decoded == plain


UPSTREAMS = [kind for kind in catalog.KINDS if "edgekube" not in kind.group]


@pytest.mark.parametrize("kind", UPSTREAMS, ids=lambda kind: f"{kind.api_version} {kind.kind}")
def test_every_kind_of_upstream_has_a_message_and_a_list(kind):
    assert protobuf.supports(kind.api_version, kind.kind)
    assert protobuf.supports(kind.api_version, kind.list_kind)


def test_which_kinds_have_messages():
    assert protobuf.supports("policy/v1", "Eviction")
    assert protobuf.supports("autoscaling/v1", "Scale")
    assert protobuf.supports("v1", "Status")
    assert protobuf.supports("apps/v1", "DeleteOptions")
    assert protobuf.supports("example.com/v1", "DeleteOptions")
    assert protobuf.supports("meta.k8s.io/v1beta1", "PartialObjectMetadata")
    assert not protobuf.supports("apps.example.com/v1", "Deployment")
    assert not protobuf.supports("v1", "Nothing")


def test_the_envelope():
    data = protobuf.encode({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}})
    about = b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap"
    message = b"\x0a\x03\x0a\x01a" + b"\x12\x06\x0a\x01k\x12\x01v"
    assert data == b"k8s\0" + about + b"\x12" + bytes([len(message)]) + message + b"\x1a\x00\x22\x00"


def test_a_watch_event_is_framed():
    frame = protobuf.watch_frame("ADDED", b"k8s\0x")
    assert frame == b"\0\0\0\x10" + b"\x0a\x05ADDED" + b"\x12\x07\x0a\x05k8s\0x"


def test_a_list_has_bare_items():
    items = [protobuf.message("v1", "Secret", {"metadata": {"name": name}}) for name in ("a", "b")]
    data = protobuf.encode_list("v1", "SecretList", {"resourceVersion": "7"}, items)
    found = protobuf.decode(data)
    assert found == {
        "apiVersion": "v1",
        "kind": "SecretList",
        "metadata": {"resourceVersion": "7"},
        "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}],
    }
    assert data.endswith(b"\x0a\x03\x12\x017" + b"\x12\x05\x0a\x03\x0a\x01a" + b"\x12\x05\x0a\x03\x0a\x01b" + b"\x1a\x00\x22\x00")


def part(tag, *inside):
    """A length-delimited field in hex."""
    content = "".join(inside)
    return f"{tag}{len(content) // 2:02x}{content}"


def text(tag, value):
    return part(tag, value.encode().hex())


VECTORS = [
    ("v1", "Secret", {"data": {"k": "aGk="}}, part("12", text("0a", "k"), text("12", "hi"))),
    ("v1", "Secret", {"data": {"k": ""}}, part("12", text("0a", "k"), "1200")),
    ("v1", "Secret", {"immutable": False}, "2800"),
    (
        "v1", "Service", {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}},
        part("12", part("0a", "1850", part("22", "0800", "10903f", "1a00"))),
    ),
    (
        "v1", "Service", {"spec": {"ports": [{"port": 80, "targetPort": "web"}]}},
        part("12", part("0a", "1850", part("22", "0801", "1000", text("1a", "web")))),
    ),
    (
        "v1", "LimitRange", {"spec": {"limits": [{"max": {"cpu": "100m"}}]}},
        part("12", part("0a", part("12", text("0a", "cpu"), part("12", text("0a", "100m"))))),
    ),
    ("coordination.k8s.io/v1", "Lease", {"spec": {"renewTime": "1970-01-01T00:00:01.500000Z"}}, part("12", part("22", "0801", "1080cab5ee01"))),
    ("v1", "Namespace", {"metadata": {"creationTimestamp": "1970-01-01T00:01:00Z"}}, part("0a", part("42", "083c", "1000"))),
    (
        "apps/v1", "ControllerRevision", {"data": {"a": 1}, "revision": -1},
        part("12", text("0a", '{"a":1}')) + "18ffffffffffffffffff01",
    ),
    ("v1", "Pod", {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}, part("12", part("0a", text("0a", "v"), part("12", "1200")))),
    (
        "authentication.k8s.io/v1", "TokenReview", {"status": {"user": {"extra": {"k": ["a", "b"]}}}},
        part("1a", part("12", part("22", text("0a", "k"), part("12", text("0a", "a"), text("0a", "b"))))),
    ),
    (
        "v1", "ConfigMap", {"metadata": {"managedFields": [{"fieldsV1": {"f:data": {}}}]}},
        part("0a", part("8a01", part("3a", text("0a", '{"f:data":{}}')))),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("version", "kind", "obj", "message"), VECTORS)
def test_the_special_messages_byte_by_byte(version, kind, obj, message):
    assert protobuf.message(version, kind, obj).hex() == message
    assert only(protobuf.decode(body(version, kind, message))) == obj


def crd(**schema):
    version = {"name": "v1", "served": True, "storage": False, "schema": {"openAPIV3Schema": schema}}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": {"versions": [version]}}


@pytest.mark.parametrize(
    "schema",
    [
        {"items": {"type": "string"}},
        {"items": [{"type": "string"}, {"type": "integer"}]},
        {"additionalProperties": True},
        {"additionalProperties": False},
        {"additionalProperties": {"type": "string"}},
        {"dependencies": {"a": ["b", "c"], "d": {"type": "object"}}},
        {"default": {"a": [1, None]}, "enum": ["a", 1, False, 0, ""], "minimum": 0, "maximum": 2.5, "minLength": 0},
        {"default": 0},
        {"default": ""},
        {"properties": {"a": {"not": {"type": "null"}}, "b": {}}, "x-kubernetes-preserve-unknown-fields": True, "nullable": True},
    ],
)
def test_schemas_of_custom_resources(schema):
    assert round_trip(crd(**schema)) == crd(**schema)


def test_zeros_that_go_writes_but_json_does_not():
    message = protobuf.message(
        "v1", "Pod", pod(hostNetwork=False, hostname="", terminationGracePeriodSeconds=0, automountServiceAccountToken=False)
    )
    found = protobuf.decode(protobuf.envelope("v1", "Pod", message))
    assert found["spec"] == {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False}
    scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0}, "status": {"replicas": 0}}
    assert round_trip(scaled) == scaled | {"status": {}}
    named = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "", "image": ""}]}}
    assert round_trip(named)["spec"] == {"containers": [{"name": ""}]}


def test_zero_times_and_nulls_leave_no_trace():
    data = body("v1", "ConfigMap", "0a05 0a0161 4200")
    assert protobuf.decode(data)["metadata"] == {"name": "a"}
    assert round_trip(pod() | {"metadata": {"name": "a", "creationTimestamp": None}})["metadata"] == {"name": "a"}


def test_a_time_has_seconds_only_and_a_micro_time_microseconds():
    stamp = "0801 10cdceb55f"  # 1 s, 200_107_853 ns
    assert protobuf.decode(body("v1", "Namespace", f"0a09 4207 {stamp}"))["metadata"] == {"creationTimestamp": "1970-01-01T00:00:01Z"}
    lease = protobuf.decode(body("coordination.k8s.io/v1", "Lease", f"1209 2207 {stamp}"))
    assert lease["spec"] == {"renewTime": "1970-01-01T00:00:01.200107Z"}


def test_unknown_fields_are_skipped():
    unknown = "f83f01" + "fa3f0161" + "fd3f00000000" + "f93f0000000000000000" + "fb3f0801fc3f"
    assert only(protobuf.decode(body("v1", "ConfigMap", unknown + "0a03 0a0161 " + unknown))) == {"metadata": {"name": "a"}}


def test_two_parts_of_one_message_are_one():
    assert protobuf.decode(body("v1", "ConfigMap", "0a03 0a0161 0a03 1a0162"))["metadata"] == {"name": "a", "namespace": "b"}


def test_packed_and_loose_numbers():
    obj = {"spec": {"securityContext": {"supplementalGroups": [1, 300]}}}
    loose, packed = part("12", part("72", "2001", "20ac02")), part("12", part("72", part("22", "01", "ac02")))
    assert protobuf.message("v1", "Pod", obj).hex() == loose
    assert only(protobuf.decode(body("v1", "Pod", loose))) == only(protobuf.decode(body("v1", "Pod", packed))) == obj


def test_what_is_no_utf8_is_replaced():
    assert protobuf.decode(body("v1", "ConfigMap", "0a03 0a01ff"))["metadata"] == {"name": "\N{REPLACEMENT CHARACTER}"}


def test_nested_objects_may_be_enveloped():
    inner = protobuf.encode({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
    raw = b"\x12" + varint(len(inner) + 2) + b"\x0a" + varint(len(inner)) + inner
    found = protobuf.decode(protobuf.envelope("apps/v1", "ControllerRevision", raw))
    assert found["data"] == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}


def test_what_the_body_does_not_say_is_as_expected():
    data = b"k8s\0\x12\x05\x0a\x03\x0a\x01a"
    assert protobuf.decode(data, api_version="v1", kind="ConfigMap") == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the object provided is unrecognized (must be of type Pod): empty data (<empty>)"),
        (b"{}", "the object provided is unrecognized (must be of type Pod): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (7b7d)"),
        (b"k8s\0", "the object provided is unrecognized (must be of type Pod): empty body (6b387300)"),
        (b"k8s\0\x0a\x05", "the object provided is unrecognized (must be of type Pod): unexpected EOF (6b3873000a05)"),
        (body("v1", "Pod", "0aff01"), 'Pod in version "v1" cannot be handled as a Pod: unexpected EOF'),
        (body("v1", "Pod", "0801"), 'Pod in version "v1" cannot be handled as a Pod: proto: wrong wireType = 0 for field Metadata'),
        (body("v1", "Pod", "0c"), 'Pod in version "v1" cannot be handled as a Pod: proto: Pod: wiretype end group for non-group'),
        (body("v1", "Pod", "00"), 'Pod in version "v1" cannot be handled as a Pod: proto: Pod: illegal tag 0 (wire type 0)'),
        (body("v1", "Pod", "ffffffffffffffffffff01"), 'Pod in version "v1" cannot be handled as a Pod: proto: integer overflow'),
        (body("v1", "Pod", "0affffffffffffffffff01"), 'Pod in version "v1" cannot be handled as a Pod: proto: negative length found during unmarshaling'),
        (body("example.com/v1", "Thing", ""), 'Thing in version "v1" cannot be handled as a Pod: no kind "Thing" is registered for version "example.com/v1" in scheme "pkg/api/legacyscheme/scheme.go:30"'),
    ],
)  # fmt: skip
def test_what_is_no_message(data, message):
    with pytest.raises(BadRequest) as caught:
        protobuf.decode(data, api_version="v1", kind="Pod")
    assert caught.value.message == message


def test_depth_is_limited():
    deep = crd(**functools.reduce(lambda inner, _: {"not": inner}, range(150), {}))
    with pytest.raises(BadRequest, match="exceeded max depth"):
        protobuf.decode(protobuf.encode(deep))
    fine = crd(**functools.reduce(lambda inner, _: {"not": inner}, range(50), {}))
    assert round_trip(fine) == fine
    with pytest.raises(BadRequest, match="exceeded maximum nesting depth"):
        protobuf.decode(b"k8s\0" + b"\xe3\x01" * 1000)


def test_numbers():
    for value in (0, 1, 127, 128, 300, 2**31 - 1, 2**63 - 1, -1, -(2**63)):
        data = varint(value)
        found, at = read_varint(data, 0, len(data))
        assert (signed(found, 64), at) == (value, len(data))
    with pytest.raises(Malformed):
        read_varint(b"\x80", 0, 1)


KINDS = [
    ("v1", "Pod"),
    ("v1", "Secret"),
    ("apps/v1", "Deployment"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("v1", "Event"),
]


@given(kind=st.sampled_from(KINDS), message=st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(kind, message):
    try:
        found = protobuf.decode(protobuf.envelope(*kind, message))
    except BadRequest:
        return
    orjson.dumps(found)


@given(data=st.data())
def test_damaged_bodies_are_read_or_refused(data):
    whole = protobuf.encode(SAMPLES[data.draw(st.sampled_from(sorted(SAMPLES)))])
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.binary(max_size=8)) + whole[at + data.draw(st.integers(0, 8)) :]
    try:
        found = protobuf.decode(damaged)
    except BadRequest:
        return
    orjson.dumps(found)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    labels=st.dictionaries(_TEXT, _TEXT, max_size=4),
    data=st.dictionaries(_TEXT, st.binary(max_size=20).map(lambda raw: base64.b64encode(raw).decode()), max_size=4),
    generation=st.integers(-(2**63), 2**63 - 1).filter(bool),
)
def test_whatever_is_written_is_read_back(labels, data, generation):
    obj = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": labels, "generation": generation}, "data": data}
    wanted = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "generation": generation}}
    wanted["metadata"] |= {"labels": labels} if labels else {}
    wanted |= {"data": data} if data else {}
    assert round_trip(obj) == wanted


def test_the_compact_table_from_plain_facts():
    spec = importlib.util.spec_from_file_location(
        "compile_protobuf", Path(__file__).resolve().parents[3] / "packaging" / "compile_protobuf.py"
    )
    compiler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compiler)
    facts = {
        "k8s.io.api.core.v1.A": {"b": [2, ["list", "k8s.io.api.core.v1.B"]], "m": [1, ["map", "string", "bytes"]]},
        "k8s.io.api.core.v1.B": {"a": [1, "k8s.io.api.core.v1.A", "inline"], "t": [3, "k8s.io.apimachinery.pkg.apis.meta.v1.Time"]},
        "k8s.io.api.extensions.v1beta1.C": {},
        "k8s.io.apimachinery.pkg.apis.meta.v1.Time": {"seconds": [1, "int64"]},
    }
    data = compiler.compile_messages(facts)
    assert data == compiler.compile_messages(facts)
    assert orjson.loads(gzip.decompress(data)) == {
        "names": ["k8s.io.api.core.v1.A", "k8s.io.api.core.v1.B"],
        "messages": [{"b": [2, "[#1"], "m": [1, "{y"]}, {"a": [1, "#0", 1], "t": [3, "t"]}],
    }
