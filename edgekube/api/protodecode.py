"""Protobuf messages as dicts of the API: the same dict that decoding the object from Go's JSON would give.

Go writes its plain (not pointer) fields even when they are zero, and its JSON leaves out those that are `omitempty`: so do we, by what
the schema knows of each field. Raises Malformed, nothing else, whatever the bytes are.

One `Reader` per message, built when first used: a map from field number to how the field is read and kept.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from edgekube.api.fields import Struct
from edgekube.api.protoleaves import DROP, SPECIAL, parts, scalar, text_of
from edgekube.api.prototable import FieldSpec, table
from edgekube.api.protowire import BYTES, FIXED64, VARINT, Malformed, read_length, read_tag, skip
from edgekube.api.schema import SCHEMA
from edgekube.api.types import Obj

MAX_DEPTH = 100
_WIRES = {"b": VARINT, "i": VARINT, "l": VARINT, "d": FIXED64}
_SINGLE, _LIST, _MAP, _INLINE = range(4)
ENVELOPE = b"k8s\0"

Open = Callable[[bytes, int], Any]  # decodes an enveloped object inside a RawExtension


class Slot:
    """How one field is read. `code` is that of the element for lists and maps; `omit`: a zero leaves no trace."""

    __slots__ = ("code", "message", "name", "omit", "shape", "wire")

    def __init__(self, name: str, spec: FieldSpec, *, omit: bool) -> None:
        code = spec.code
        self.name, self.omit = name, omit
        self.shape = _INLINE if spec.inline else _LIST if code[0] == "[" else _MAP if code[0] == "{" else _SINGLE
        self.code = code = code[1:] if self.shape in (_LIST, _MAP) else code
        self.wire = _WIRES.get(code, BYTES)
        self.message = int(code[1:]) if code[0] in "#ABC" else -1


class Reader:
    """Decodes one message. `name` is the short one that Go's errors show."""

    __slots__ = ("name", "slots")

    def __init__(self, number: int) -> None:
        self.name = table().names[number].rpartition(".")[2]
        struct = SCHEMA.struct(table().definition(number))
        self.slots = {spec.number: Slot(name, spec, omit=_omits(struct, name, spec.code)) for name, spec in table().fields(number).items()}


def _omits(struct: Struct | None, name: str, code: str) -> bool:
    """Whether JSON would not show a zero. Go's facts are not known for all types; those without never say so of numbers."""
    field = None if struct is None else struct.fields.get(name)
    if struct is None or field is None or code not in ("s", "b", "i", "l"):
        return code in ("s", "b")
    if field.omit:
        return True
    if ".pkg.apis.api" in struct.name:  # apiextensions and apiregistration
        return code in ("s", "b") and not field.required and name not in _POINTERS
    return False


_POINTERS = frozenset(
    ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type", "x-kubernetes-map-type", "optionalOldSelf", "path", "url", "reason")
)
_READERS: dict[int, Reader] = {}


def reader(number: int) -> Reader:
    """The reader of a message."""
    found = _READERS.get(number)
    if found is None:
        found = _READERS[number] = Reader(number)
    return found


class Decoding:
    """One pass over one body."""

    __slots__ = ("_open",)

    def __init__(self, open_: Open) -> None:
        self._open = open_

    def message(self, number: int, data: bytes, at: int, end: int, depth: int, into: Obj | None = None) -> Obj:
        """The message in `data[at:end]`; a second part of one message is merged into the first."""
        if depth > MAX_DEPTH:
            raise Malformed("exceeded max depth")
        obj: Obj = {} if into is None else into
        found = reader(number)
        slots = found.slots
        while at < end:
            tagged, wire, at = read_tag(data, at, end, found.name)
            slot = slots.get(tagged)
            if slot is None:
                at = skip(data, at, end, wire)
            elif wire == BYTES:
                start, at = read_length(data, at, end)
                self._delimited(slot, obj, data, start, at, depth)
            else:
                if wire != slot.wire or slot.shape == _MAP:
                    raise Malformed(f"proto: wrong wireType = {wire} for field {slot.name[:1].upper() + slot.name[1:]}")
                value, at = scalar(slot.code, data, at, end)
                _keep(slot, obj, value)
        return obj

    def _delimited(self, slot: Slot, obj: Obj, data: bytes, at: int, end: int, depth: int) -> None:
        shape = slot.shape
        if slot.wire != BYTES and shape != _MAP:
            if shape != _LIST:
                raise Malformed(f"proto: wrong wireType = {BYTES} for field {slot.name[:1].upper() + slot.name[1:]}")
            while at < end:  # packed
                value, at = scalar(slot.code, data, at, end)
                _keep(slot, obj, value)
        elif shape == _MAP:
            key, value = self._entry(slot, data, at, end, depth + 1)
            obj.setdefault(slot.name, {})[key] = value
        elif shape == _INLINE:
            self.message(slot.message, data, at, end, depth + 1, obj)
        elif slot.code[0] == "#":
            earlier = obj.get(slot.name) if shape == _SINGLE else None
            value = self.message(slot.message, data, at, end, depth + 1, earlier)
            _keep(slot, obj, value)
        else:
            _keep(slot, obj, self._value(slot, data, at, end, depth + 1))

    def _entry(self, slot: Slot, data: bytes, at: int, end: int, depth: int) -> tuple[str, Any]:
        key, value = "", DROP
        while at < end:
            number, wire, at = read_tag(data, at, end, "entry")
            if number == 1 and wire == BYTES:
                start, at = read_length(data, at, end)
                key = text_of(data, start, at)
            elif number == 2 and wire == BYTES and slot.wire == BYTES:
                start, at = read_length(data, at, end)
                value = self._value(slot, data, start, at, depth)
            elif number == 2 and wire == slot.wire:
                value, at = scalar(slot.code, data, at, end)
            else:
                at = skip(data, at, end, wire)
        return key, _zero(slot) if value is DROP else value

    def _value(self, slot: Slot, data: bytes, at: int, end: int, depth: int) -> Any:
        code = slot.code
        if code == "s":
            return text_of(data, at, end)
        if code[0] == "#":
            return self.message(slot.message, data, at, end, depth)
        if code == "r":
            return self._raw(data, at, end, depth)
        if code[0] in "ABC":
            return self._union(slot, data, at, end, depth)
        return SPECIAL[code](data, at, end)

    def _raw(self, data: bytes, at: int, end: int, depth: int) -> Any:
        raw = b""
        for number, value in parts(data, at, end, "RawExtension"):
            if number == 1 and isinstance(value, bytes):
                raw = value
        if not raw:
            return DROP
        if raw.startswith(ENVELOPE):
            return self._open(raw, depth + 1)
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"json: error calling MarshalJSON for type runtime.RawExtension: {error}") from error
        return DROP if value is None else value

    def _union(self, slot: Slot, data: bytes, at: int, end: int, depth: int) -> Any:
        schema: Obj | None = None
        many: list[Any] = []
        allows = False
        second = slot.code[0] != "B"
        for number, value in parts(data, at, end, "JSONSchemaProps"):
            if isinstance(value, bytes) and number == 2 and second:
                is_text = slot.code[0] == "C"
                many.append(text_of(value, 0, len(value)) if is_text else self.message(slot.message, value, 0, len(value), depth + 1))
            elif isinstance(value, bytes):
                schema = self.message(slot.message, value, 0, len(value), depth + 1)
            else:
                allows = bool(value)
        if schema is not None:
            return schema
        if second:
            return many or DROP
        return allows


def _keep(slot: Slot, obj: Obj, value: Any) -> None:
    if slot.shape == _LIST:
        obj.setdefault(slot.name, []).append(_zero(slot) if value is DROP else value)
    elif value is DROP or (slot.omit and not value):
        obj.pop(slot.name, None)
    else:
        obj[slot.name] = value


def _zero(slot: Slot) -> Any:
    """What an element that says nothing is."""
    code = slot.code[0]
    if code in "#n":
        return {} if code == "#" else []
    return _ZEROS.get(code, "")


_ZEROS: Mapping[str, Any] = dict.fromkeys("ildx", 0) | dict.fromkeys("rtTAC") | {"b": False, "B": False, "q": "0"}
