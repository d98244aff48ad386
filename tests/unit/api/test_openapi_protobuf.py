"""The protobuf form of OpenAPI v2, read back with a small reader of its own; kubectl up to 1.27 reads it in the end-to-end tests."""

import json

import orjson
import pytest

from edgekube.api import openapi, openapi_protobuf
from edgekube.api.catalog import KINDS
from edgekube.api.protowire import read_length, read_varint

BYTES = 2


def fields(data):
    """(number, value) of a message's fields; bytes for what is length-delimited."""
    at, found = 0, []
    while at < len(data):
        key, at = read_varint(data, at, len(data))
        if key & 7 == BYTES:
            start, at = read_length(data, at, len(data))
            found.append((key >> 3, data[start:at]))
        else:
            value, at = read_varint(data, at, len(data))
            found.append((key >> 3, value))
    return found


def named(data, entry=1):
    """Name -> value of a message that stands for a map."""
    pairs = (dict(fields(value)) for number, value in fields(data) if number == entry)
    return {pair[1].decode(): pair.get(2, b"") for pair in pairs}


@pytest.fixture(scope="module")
def both():
    source = openapi.v2(KINDS)
    return json.loads(source), dict(fields(openapi_protobuf.document(source)))


def test_every_path_and_definition_is_there(both):
    source, message = both
    assert message[1] == b"2.0"
    assert set(named(message[8], 2)) == set(source["paths"])
    assert set(named(message[9])) == set(source["definitions"])


def test_a_definition_with_its_extensions_and_references(both):
    source, message = both
    name = "io.k8s.api.core.v1.PodSpec"
    schema = fields(named(message[9])[name])
    expected = source["definitions"][name]
    assert [value.decode() for number, value in schema if number == 19] == expected["required"]
    properties = named(next(value for number, value in schema if number == 25))
    assert set(properties) == set(expected["properties"])
    containers = fields(properties["containers"])
    (items,) = [value for number, value in containers if number == 23]
    (item,) = [value for number, value in fields(items) if number == 1]
    assert dict(fields(item))[1].decode() == expected["properties"]["containers"]["items"]["$ref"]
    found = {pair[0][1].decode(): orjson.loads(dict(fields(pair[1][1]))[2]) for pair in (fields(v) for n, v in containers if n == 31)}
    assert found["x-kubernetes-patch-merge-key"] == "name"


def test_kinds_are_found_by_their_extension(both):
    _, message = both
    pod = fields(named(message[9])["io.k8s.api.core.v1.Pod"])
    (pair,) = [fields(value) for number, value in pod if number == 31 and b"group-version-kind" in value]
    assert orjson.loads(dict(fields(pair[1][1]))[2]) == [{"group": "", "kind": "Pod", "version": "v1"}]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (openapi_protobuf.MEDIA_TYPE, True),
        (openapi_protobuf.MEDIA_TYPE + ", application/json", True),
        ("application/json, " + openapi_protobuf.MEDIA_TYPE, False),
        ("*/*", False),
        ("", False),
    ],
)
def test_who_gets_it(accept, expected):
    assert openapi_protobuf.preferred(accept) is expected
