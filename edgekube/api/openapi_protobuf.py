"""The OpenAPI v2 document in protobuf (gnostic's openapi.v2 messages): the only form that kubectl up to 1.27 asks for.

Built from our own JSON document, so only the shapes that it has are known here; an unknown key is an extension if it starts with `x-`
and left out otherwise. Field numbers: google/gnostic openapiv2/OpenAPIv2.proto. Extension values travel as YAML; JSON is YAML.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from edgekube.api.protowire import BYTES, FIXED64, VARINT, chunk, tag, varint

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
ANSWER_TYPE = MEDIA_TYPE.replace("@", ".")  # `@` is no character of a media type, so upstream answers with this
_JSON = ("application/json", "application/*", "*/*")

Write = Callable[[Any], bytes]
Fields = Mapping[str, tuple[int, Callable[[int, Any], bytes]]]


def preferred(accept: str) -> bool:
    """Whether an Accept header names this form before any that JSON satisfies."""
    for clause in accept.split(","):
        media = clause.partition(";")[0].strip()
        if media in (MEDIA_TYPE, ANSWER_TYPE):
            return True
        if media in _JSON:
            return False
    return False


def document(source: bytes) -> bytes:
    """The whole document, from its JSON form."""
    return _message(orjson.loads(source), _DOCUMENT, 16)


def _message(value: Mapping[str, Any], fields: Fields, extensions: int) -> bytes:
    out = [write(number, value[name]) for name, (number, write) in fields.items() if name in value]
    out += [_length(extensions, _named(name, _any(extra))) for name, extra in value.items() if name.startswith("x-")]
    return b"".join(out)


def _length(number: int, data: bytes) -> bytes:
    return chunk(tag(number, BYTES), data)


def _text(number: int, value: str) -> bytes:
    return _length(number, value.encode())


def _texts(number: int, values: list[str]) -> bytes:
    return b"".join(_text(number, value) for value in values)


def _bool(number: int, value: bool) -> bytes:
    return tag(number, VARINT) + varint(1) if value else b""


def _integer(number: int, value: int) -> bytes:
    return tag(number, VARINT) + varint(value)


def _double(number: int, value: float) -> bytes:
    return tag(number, FIXED64) + struct.pack("<d", value)


def _any(value: Any) -> bytes:
    return _text(2, orjson.dumps(value).decode())


def _default(number: int, value: Any) -> bytes:
    return _length(number, _any(value))


def _anys(number: int, values: list[Any]) -> bytes:
    return b"".join(_default(number, value) for value in values)


def _named(name: str, data: bytes) -> bytes:
    return _text(1, name) + _length(2, data)


def _of(write: Write) -> Callable[[int, Any], bytes]:
    """A field that holds one message."""
    return lambda number, value: _length(number, write(value))


def _each(write: Write) -> Callable[[int, Any], bytes]:
    """A repeated field of messages."""
    return lambda number, values: b"".join(_length(number, write(value)) for value in values)


def _map(write: Write, entry: int = 1) -> Callable[[int, Any], bytes]:
    """A message that stands for a map: ordered (name, value) pairs in its field `entry`."""
    return lambda number, values: _length(number, b"".join(_length(entry, _named(name, write(value))) for name, value in values.items()))


def _schema(value: Mapping[str, Any]) -> bytes:
    return _message(value, _SCHEMA, 31)


def _type(number: int, value: str | list[str]) -> bytes:
    return _length(number, _texts(1, [value] if isinstance(value, str) else value))


def _additional(number: int, value: Any) -> bytes:
    return _length(number, _bool(2, value) if isinstance(value, bool) else _length(1, _schema(value)))


def _items(number: int, value: Mapping[str, Any]) -> bytes:
    return _length(number, _length(1, _schema(value)))


def _parameter(value: Mapping[str, Any]) -> bytes:
    if "$ref" in value:
        return _length(2, _text(1, value["$ref"]))
    if value["in"] == "body":
        return _length(1, _length(1, _message(value, _BODY, 6)))
    number, fields, extensions = _PLACES[value["in"]]
    return _length(1, _length(2, _length(number, _message(value, fields, extensions))))


def _response(value: Mapping[str, Any]) -> bytes:
    return _length(1, _message(value, _RESPONSE, 5))


def _operation(value: Mapping[str, Any]) -> bytes:
    return _message(value, _OPERATION, 13)


def _path(value: Mapping[str, Any]) -> bytes:
    return _message(value, _PATH, 10)


def _plain(first: int, *, empty: bool) -> Iterator[tuple[str, tuple[int, Callable[[int, Any], bytes]]]]:
    """Fields of a parameter outside the body; `allowEmptyValue` shifts those of query parameters by one."""
    names: list[tuple[str, Callable[[int, Any], bytes]]] = [("required", _bool), ("in", _text), ("description", _text), ("name", _text)]
    if empty:
        names.append(("allowEmptyValue", _bool))
    names += [("type", _text), ("format", _text)]
    for offset, (name, write) in enumerate(names):
        yield name, (first + offset, write)
    yield "uniqueItems", (20 if empty else 19, _bool)


_SCHEMA: Fields = {
    "$ref": (1, _text),
    "format": (2, _text),
    "title": (3, _text),
    "description": (4, _text),
    "default": (5, _default),
    "maximum": (7, _double),
    "minimum": (9, _double),
    "maxLength": (11, _integer),
    "minLength": (12, _integer),
    "pattern": (13, _text),
    "maxItems": (14, _integer),
    "minItems": (15, _integer),
    "required": (19, _texts),
    "enum": (20, _anys),
    "additionalProperties": (21, _additional),
    "type": (22, _type),
    "items": (23, _items),
    "allOf": (24, _each(_schema)),
    "properties": (25, _map(_schema)),
}
_BODY: Fields = {
    "description": (1, _text),
    "name": (2, _text),
    "in": (3, _text),
    "required": (4, _bool),
    "schema": (5, _of(_schema)),
}
_PLACES: Mapping[str, tuple[int, Fields, int]] = {
    "query": (3, dict(_plain(1, empty=True)), 23),
    "path": (4, dict(_plain(1, empty=False)), 22),
}
_RESPONSE: Fields = {"description": (1, _text), "schema": (2, lambda number, value: _length(number, _length(1, _schema(value))))}
_OPERATION: Fields = {
    "tags": (1, _texts),
    "summary": (2, _text),
    "description": (3, _text),
    "operationId": (5, _text),
    "produces": (6, _texts),
    "consumes": (7, _texts),
    "parameters": (8, _each(_parameter)),
    "responses": (9, _map(_response)),
    "schemes": (10, _texts),
    "deprecated": (11, _bool),
}
_PATH: Fields = {
    "$ref": (1, _text),
    "get": (2, _of(_operation)),
    "put": (3, _of(_operation)),
    "post": (4, _of(_operation)),
    "delete": (5, _of(_operation)),
    "options": (6, _of(_operation)),
    "head": (7, _of(_operation)),
    "patch": (8, _of(_operation)),
    "parameters": (9, _each(_parameter)),
}
_INFO: Fields = {"title": (1, _text), "version": (2, _text), "description": (3, _text)}
_DOCUMENT: Fields = {
    "swagger": (1, _text),
    "info": (2, lambda number, value: _length(number, _message(value, _INFO, 7))),
    "schemes": (5, _texts),
    "consumes": (6, _texts),
    "produces": (7, _texts),
    "paths": (8, _map(_path, 2)),
    "definitions": (9, _map(_schema)),
}
