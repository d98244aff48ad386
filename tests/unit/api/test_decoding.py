"""Bodies: fieldValidation, duplicate fields, and the refusal of what a patch made."""

import orjson
import pytest

from edgekube.api import catalog, decoding
from edgekube.errors import BadRequest, Invalid

BODY = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"extra":1,"data":{"k":"1","k":"2"}}'


def test_warn_drops_and_tells():
    obj = orjson.loads(BODY)
    assert decoding.clean(catalog.CONFIG_MAP, obj, body=BODY) == ['unknown field "extra"', 'duplicate field "data.k"']
    assert "extra" not in obj
    assert obj["data"] == {"k": "2"}


def test_ignore_drops_in_silence():
    obj = orjson.loads(BODY)
    assert decoding.clean(catalog.CONFIG_MAP, obj, body=BODY, mode="Ignore") == []
    assert "extra" not in obj


def test_strict_refuses():
    with pytest.raises(BadRequest) as refused:
        decoding.clean(catalog.CONFIG_MAP, orjson.loads(BODY), body=BODY, mode="Strict")
    assert refused.value.message == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "extra", duplicate field "data.k"'
    )


@pytest.mark.parametrize("mode", ["Ignore", "Warn", "Strict"])
def test_a_wrong_type_is_refused_in_every_mode(mode):
    with pytest.raises(BadRequest) as refused:
        decoding.clean(catalog.DEPLOYMENT, {"spec": {"replicas": "3"}}, mode=mode)
    assert refused.value.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: '
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    )


def test_a_bad_patch_result_is_invalid():
    with pytest.raises(Invalid) as refused:
        decoding.clean_patched(catalog.DEPLOYMENT, {"spec": {"replicas": "3"}})
    assert refused.value.message == (
        ' "" is invalid: patch: Invalid value: "{\\"spec\\":{\\"replicas\\":\\"3\\"}}": '
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    )
    assert refused.value.causes[0]["field"] == "patch"


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (b'{"a":1,"b":{"a":1}}', []),
        (b'{"a":"x\\":y","b":"\\":"}', []),
        (b'{"a":1, "a" : 2}', ["a"]),
        (b'{"s":[{"k":1},{"k":1,"k":2,"k":3}]}', ["s[1].k"]),
        (b'{"a":{"b":1},"a":{"c":1,"c":2}}', ["a", "a.c"]),
        (b'{"a" :1}', []),
    ],
)
def test_duplicates(body, paths):
    assert decoding.duplicates(body, orjson.loads(body)) == paths
