"""Dicts of the API as protobuf messages. Writes what is in the dict; Go reads absent fields as zero, so nothing more is needed.

One `Writer` per message, built when first used: a map from JSON name to a function that writes the field, tag included.
"""

import base64
import binascii
import datetime
import struct
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from edgekube.api.prototable import FieldSpec, table
from edgekube.api.protowire import BYTES, FIXED64, VARINT, chunk, tag, varint
from edgekube.api.types import Obj

_Put = Callable[[Any], bytes]  # a value with its tag
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SECOND = datetime.timedelta(seconds=1)
_ONE, _TWO, _THREE = (tag(number, BYTES) for number in (1, 2, 3))
_INT_ONE, _INT_TWO = tag(1, VARINT), tag(2, VARINT)


class Writer:
    """Encodes one message. `names` are the JSON names it takes from a dict, those of inlined messages included."""

    __slots__ = ("_inlines", "_puts", "names")

    def __init__(self) -> None:
        self._puts: dict[str, _Put] = {}
        self._inlines: list[tuple[bytes, Writer]] = []
        self.names: frozenset[str] = frozenset()

    def fill(self, fields: Mapping[str, FieldSpec]) -> None:
        """After construction, because messages contain themselves."""
        names: set[str] = set()
        for name, spec in fields.items():
            if spec.inline:
                inner = writer(int(spec.code[1:]))
                self._inlines.append((tag(spec.number, BYTES), inner))
                names |= inner.names
            else:
                self._puts[name] = _put(spec.number, spec.code)
                names.add(name)
        self.names = frozenset(names)

    def encode(self, obj: Obj) -> bytes:
        puts = self._puts
        parts = [puts[name](value) for name, value in obj.items() if name in puts and value is not None]
        for prefix, inner in self._inlines:
            inlined = {name: obj[name] for name in inner.names if name in obj}
            if inlined:
                parts.append(chunk(prefix, inner.encode(inlined)))
        return b"".join(parts)


_WRITERS: dict[int, Writer] = {}


def writer(number: int) -> Writer:
    """The writer of a message."""
    found = _WRITERS.get(number)
    if found is None:
        found = _WRITERS[number] = Writer()
        found.fill(table().fields(number))
    return found


def _put(number: int, code: str) -> _Put:
    if code[0] == "[":
        one = _put(number, code[1:])
        return lambda values: b"".join([one(value) for value in values])
    if code[0] == "{":
        return _put_map(tag(number, BYTES), _put(2, code[1:]))
    if code in "bil":
        prefix = tag(number, VARINT)
        return lambda value: prefix + varint(int(value))
    if code == "d":
        prefix = tag(number, FIXED64)
        return lambda value: prefix + struct.pack("<d", value)
    prefix = tag(number, BYTES)
    if code == "s":
        return lambda value: chunk(prefix, value.encode(errors="replace"))
    payload = _payload(code)
    return lambda value: chunk(prefix, payload(value))


def _put_map(prefix: bytes, put: _Put) -> _Put:
    def put_map(values: Mapping[str, Any]) -> bytes:
        return b"".join([chunk(prefix, chunk(_ONE, key.encode()) + put(value)) for key, value in values.items()])

    return put_map


def _payload(code: str) -> _Put:
    if code[0] == "#":
        number = int(code[1:])
        return lambda value: writer(number).encode(value)
    if code[0] in "ABC":
        return lambda value: _union(code[0], int(code[1:]), value)
    return _PAYLOADS[code]


def _bytes(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except (binascii.Error, ValueError):
        return b""


def _quantity(value: Any) -> bytes:
    return chunk(_ONE, str(value).encode())


def _time(text: str) -> bytes:
    if not text:
        return b""
    seconds, rest = divmod(datetime.datetime.fromisoformat(text) - _EPOCH, _SECOND)
    return _INT_ONE + varint(seconds) + _INT_TWO + varint(rest.microseconds * 1000)


def _int_or_string(value: Any) -> bytes:
    if isinstance(value, str):
        return _INT_ONE + b"\1" + _INT_TWO + b"\0" + chunk(_THREE, value.encode())
    return _INT_ONE + b"\0" + _INT_TWO + varint(int(value)) + _THREE + b"\0"


def _raw(value: Any) -> bytes:
    return chunk(_ONE, orjson.dumps(value))


def _names(values: list[str]) -> bytes:
    return b"".join([chunk(_ONE, value.encode()) for value in values])


def _union(code: str, number: int, value: Any) -> bytes:
    if isinstance(value, bool):
        return _INT_ONE + varint(value)
    if isinstance(value, dict):
        body = writer(number).encode(value)
        return _INT_ONE + b"\1" + chunk(_TWO, body) if code == "B" else chunk(_ONE, body)
    if code == "A":
        return b"".join([chunk(_TWO, writer(number).encode(each)) for each in value])
    return b"".join([chunk(_TWO, each.encode()) for each in value])


_PAYLOADS: Mapping[str, _Put] = {
    "y": _bytes,
    "q": _quantity,
    "t": _time,
    "T": _time,
    "x": _int_or_string,
    "r": _raw,
    "n": _names,
}
