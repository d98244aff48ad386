"""ConfigMaps and Secrets that are refused, and that the frozen ones stay as they are."""

import base64
from typing import Any

import pytest

from edgekube.api.kind import Kind
from edgekube.api.kinds.configmap import CONFIG_MAP
from edgekube.api.kinds.secret import SECRET
from edgekube.api.types import Obj

CONFIG = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', "
    "regex used for validation is '[-._a-zA-Z0-9]+')"
)
INVALID, REQUIRED, FORBIDDEN, LONG = "FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden", "FieldValueTooLong"
FROZEN = "Forbidden: field is immutable when `immutable` is set"
TOO_LONG = "Too long: may not be more than 1048576 bytes"
MEGA = 1 << 20
SHOWN = 'Invalid value: "<secret contents redacted>": '


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def problems(kind: Kind, new: Obj, old: Obj | None = None) -> list[tuple[str, str, str]]:
    objects = [{"metadata": {"name": "x", "namespace": "default"}, **each} for each in (new, old or {})]
    for each in objects:
        kind.default(each)
    found = kind.validate(objects[0], None if old is None else objects[1])
    return [(one.field, one.reason, one.message) for one in found]


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({}, []),
        ({"data": {"a.b": "x"}, "binaryData": {"c": encoded(b"\xff")}}, []),
        ({"data": {"a b": "x"}}, [("data[a b]", INVALID, f'Invalid value: "a b": {CONFIG}')]),
        ({"binaryData": {"..x": "eA=="}}, [("binaryData[..x]", INVALID, "Invalid value: \"..x\": must not start with '..'")]),
        (
            {"data": {"a": "x"}, "binaryData": {"a": "eA=="}},
            [("data[a]", INVALID, 'Invalid value: "a": duplicate of key present in binaryData')],
        ),
        ({"data": {"a": "x" * MEGA}}, []),
        ({"data": {"a": "x" * (MEGA + 1)}}, [("[]", LONG, TOO_LONG)]),
        ({"data": {"a": "ä" * (MEGA // 2)}, "binaryData": {"b": "eA=="}}, [("[]", LONG, TOO_LONG)]),
        ({"data": {"a": "x" * (MEGA - 1)}, "binaryData": {"b": "eA=="}}, []),
    ],
)
def test_config_maps(obj: Obj, expected: list[tuple[str, str, str]]) -> None:
    assert problems(CONFIG_MAP, obj) == expected


@pytest.mark.parametrize(
    ("new", "fields"),
    [
        ({"immutable": True, "data": {"a": "eA=="}}, []),
        ({"data": {"a": "eA=="}}, ["immutable"]),
        ({"immutable": False, "data": {"a": "eA=="}}, ["immutable"]),
        ({"immutable": True, "data": {"a": "eQ=="}}, ["data"]),
        ({"immutable": True}, ["data"]),
    ],
)
@pytest.mark.parametrize("kind", [CONFIG_MAP, SECRET], ids=["configmap", "secret"])
def test_frozen(kind: Kind, new: Obj, fields: list[str]) -> None:
    old = {"immutable": True, "data": {"a": "eA=="}}
    assert problems(kind, new, old) == [(field, FORBIDDEN, FROZEN) for field in fields]


def test_frozen_binary_data() -> None:
    new, old = {"immutable": True, "binaryData": {"a": "eA=="}}, {"immutable": True}
    assert problems(CONFIG_MAP, new, old) == [("binaryData", FORBIDDEN, FROZEN)]
    assert problems(CONFIG_MAP, {"immutable": True, "data": {}}, old) == []


def of(kind: str, **data: bytes) -> dict[str, Any]:
    return {"type": kind, "data": {key.replace("__", "."): encoded(text) for key, text in data.items()}}


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        ({}, []),
        (of("example.com/x"), []),
        ({"stringData": {"a": "x"}}, []),
        ({"data": {"a b": ""}}, [("data[a b]", INVALID, f'Invalid value: "a b": {CONFIG}')]),
        (of("Opaque", a=b"x" * MEGA), []),
        (of("Opaque", a=b"x" * (MEGA + 1)), [("data", LONG, TOO_LONG)]),
        (of("kubernetes.io/service-account-token"),
         [("metadata.annotations[kubernetes.io/service-account.name]", REQUIRED, "Required value")]),
        (of("kubernetes.io/dockerconfigjson"), [("data[.dockerconfigjson]", REQUIRED, "Required value")]),
        (of("kubernetes.io/dockerconfigjson", __dockerconfigjson=b"{}"), []),
        (of("kubernetes.io/dockerconfigjson", __dockerconfigjson=b""),
         [("data[.dockerconfigjson]", INVALID, SHOWN + "unexpected end of JSON input")]),
        (of("kubernetes.io/dockerconfigjson", __dockerconfigjson=b'{"a":'),
         [("data[.dockerconfigjson]", INVALID, SHOWN + "unexpected end of JSON input")]),
        (of("kubernetes.io/dockerconfigjson", __dockerconfigjson=b"hello"),
         [("data[.dockerconfigjson]", INVALID, SHOWN + "invalid character 'h' looking for beginning of value")]),
        (of("kubernetes.io/dockerconfigjson", __dockerconfigjson=b"[]"),
         [("data[.dockerconfigjson]", INVALID, SHOWN + "json: cannot unmarshal array into Go value of type map[string]interface {}")]),
        (of("kubernetes.io/dockercfg"), [("data[.dockercfg]", REQUIRED, "Required value")]),
        (of("kubernetes.io/basic-auth"), [("data[username]", REQUIRED, "Required value"), ("data[password]", REQUIRED, "Required value")]),
        (of("kubernetes.io/basic-auth", password=b""), []),
        (of("kubernetes.io/ssh-auth"), [("data[ssh-privatekey]", REQUIRED, "Required value")]),
        ({"type": "kubernetes.io/ssh-auth", "data": {"ssh-privatekey": ""}}, [("data[ssh-privatekey]", REQUIRED, "Required value")]),
        (of("kubernetes.io/tls", tls__crt=b""), [("data[tls.key]", REQUIRED, "Required value")]),
        (of("kubernetes.io/tls"), [("data[tls.crt]", REQUIRED, "Required value"), ("data[tls.key]", REQUIRED, "Required value")]),
        (of("kubernetes.io/tls", tls__crt=b"", tls__key=b""), []),
    ],
)  # fmt: skip
def test_secrets(secret: Obj, expected: list[tuple[str, str, str]]) -> None:
    assert problems(SECRET, secret) == expected


def test_type_is_kept() -> None:
    assert problems(SECRET, of("a/b"), of("c/d")) == [("type", INVALID, 'Invalid value: "a/b": field is immutable')]
