"""One pass over an object that does what decoding it into upstream's Go types and encoding it again does, in place.

It finds the first value of a wrong type, in the words of Go's decoder; drops and reports unknown fields; drops nulls, and the empty
lists, maps and zeros that Go omits; adds the empty structs that Go always writes; writes quantities and times canonically. About 50 us
for a pod of 6 KB.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from edgekube.api import fields
from edgekube.api.fields import STRUCT, Field, Struct
from edgekube.api.literals import (
    BAD_QUANTITY,
    PLAIN_TIME,
    Refused,
    base64_fault,
    canonical_micro_time,
    canonical_quantity,
    canonical_time,
)
from edgekube.api.types import Obj

_Path = tuple[Any, Any] | None  # (parent path, key or index): a linked list, so that a step down costs one small tuple
_DROP = object()
_MAX_UNKNOWN = 100  # upstream stops counting there too


class _MapKey(str):
    """A step through a map: strict decoding names it, a type error does not."""


class Check(NamedTuple):
    """`error` is empty, or what Go's decoder says of the first misfit. `unknown` are the paths of what was dropped."""

    error: str
    unknown: list[str]


def check(struct: Struct, obj: Obj) -> Check:
    """Check `obj` against `struct` and clean it in place."""
    walk = _Walk()
    try:
        walk.struct(struct, obj, None)
    except Refused as refused:
        return Check(str(refused), walk.unknown)
    return Check(walk.error, walk.unknown)


def empty(struct: Struct) -> Obj:
    """What Go writes of a struct that nobody filled in."""
    return {name: empty(inner) for name, inner in struct.always}


class _Walk:
    """The pass over one object."""

    __slots__ = ("error", "unknown")

    def __init__(self) -> None:
        self.error = ""
        self.unknown: list[str] = []

    def struct(self, struct: Struct, obj: Obj, path: _Path) -> None:
        find = struct.fields.get
        dropped: list[str] | None = None
        for key, value in obj.items():
            field = find(key)
            if field is None:
                if len(self.unknown) < _MAX_UNKNOWN:
                    self.unknown.append(strict_path((path, key)))
            elif (cls := value.__class__) is field.leaf:
                if value or not field.omit:
                    continue
            elif cls is dict and field.kind == STRUCT:
                self.struct(field.struct, value, (path, key))
                continue
            elif value is not None:
                kept = _VISITS[field.kind](self, field, value, (path, key), struct)
                if kept is value:
                    continue
                if kept is not _DROP:
                    obj[key] = kept
                    continue
            dropped = [key] if dropped is None else [*dropped, key]
        if dropped:
            for key in dropped:
                del obj[key]
        for name, inner in struct.always:
            if name not in obj:
                obj[name] = empty(inner)

    def list(self, field: Field, value: Any, path: _Path, owner: Struct) -> Any:
        if value.__class__ is not list:
            return self.mismatch(field, value, path, owner)
        if not value:
            return _DROP if field.omit else value
        element = field.element
        if element.leaf and set(map(type, value)) == {element.leaf}:
            return value
        for index, item in enumerate(value):
            if element.kind == STRUCT and item.__class__ is dict:
                self.struct(element.struct, item, (path, index))
            else:
                value[index] = self.inner(element, item, (path, index), owner)
        return value

    def map(self, field: Field, value: Any, path: _Path, owner: Struct) -> Any:
        if value.__class__ is not dict:
            return self.mismatch(field, value, path, owner)
        if not value:
            return _DROP if field.omit else value
        element = field.element
        if element.leaf and set(map(type, value.values())) == {element.leaf}:
            return value
        for key, item in value.items():
            if element.kind == STRUCT and item.__class__ is dict:
                self.struct(element.struct, item, (path, _MapKey(key)))
            else:
                value[key] = self.inner(element, item, (path, _MapKey(key)), owner)
        return value

    def inner(self, element: Field, item: Any, path: _Path, owner: Struct) -> Any:
        """An element of a list or map: a null is the element's zero value there."""
        if item is None:
            return empty(element.struct) if element.kind == STRUCT else element.zero
        if item.__class__ is element.leaf:
            return item
        kept = _VISITS[element.kind](self, element, item, path, owner)
        return item if kept is _DROP else kept

    def mismatch(self, field: Field, value: Any, path: _Path, owner: Struct) -> Any:
        """Note the misfit as Go's decoder words it, if it is the first."""
        if not self.error:
            kind = _json_kind(value)
            if kind == "number" and field.kind in (fields.INT, fields.DOUBLE):
                kind = f"number {value}"
            self.error = f"json: cannot unmarshal {kind} into Go struct field {owner.go}.{_field_path(path)} of type {field.go}"
        return value

    def integer(self, field: Field, value: Any, path: _Path, owner: Struct) -> Any:
        if value.__class__ is int and field.low <= value <= field.high:
            return _DROP if value == 0 and field.omit else value
        return self.mismatch(field, value, path, owner)

    def double(self, field: Field, value: Any, path: _Path, owner: Struct) -> Any:
        return value if value.__class__ in (int, float) else self.mismatch(field, value, path, owner)

    def bytes(self, field: Field, value: Any, path: _Path, owner: Struct) -> Any:
        if value.__class__ is not str:
            return self.mismatch(field, value, path, owner)
        if not self.error and (fault := base64_fault(value)) is not None:
            self.error = f"illegal base64 data at input byte {fault}"
        return value

    def any(self, _field: Field, value: Any, _path: _Path, _owner: Struct) -> Any:
        return value

    def quantity(self, _field: Field, value: Any, _path: _Path, _owner: Struct) -> Any:
        if value.__class__ is bool or value.__class__ in (dict, list):
            raise Refused(BAD_QUANTITY)
        return canonical_quantity(value if value.__class__ is str else repr(value))

    def time(self, _field: Field, value: Any, _path: _Path, _owner: Struct) -> Any:
        if value.__class__ is not str:
            raise Refused(f"json: cannot unmarshal {_json_kind(value)} into Go value of type string")
        return value if PLAIN_TIME(value) else canonical_time(value)

    def micro_time(self, _field: Field, value: Any, _path: _Path, _owner: Struct) -> Any:
        if value.__class__ is not str:
            raise Refused(f"json: cannot unmarshal {_json_kind(value)} into Go value of type string")
        return canonical_micro_time(value)

    def int_or_string(self, _field: Field, value: Any, _path: _Path, _owner: Struct) -> Any:
        if value.__class__ is str or (value.__class__ is int and -(2**31) <= value < 2**31):
            return value
        kind = _json_kind(value)
        raise Refused(f"json: cannot unmarshal {f'number {value}' if kind == 'number' else kind} into Go value of type int32")


_VISITS: Mapping[int, Callable[[_Walk, Field, Any, _Path, Struct], Any]] = {
    fields.STRING: _Walk.mismatch,
    fields.BOOL: _Walk.mismatch,
    fields.INT: _Walk.integer,
    fields.DOUBLE: _Walk.double,
    fields.BYTES: _Walk.bytes,
    fields.ANY: _Walk.any,
    fields.QUANTITY: _Walk.quantity,
    fields.TIME: _Walk.time,
    fields.MICRO_TIME: _Walk.micro_time,
    fields.INT_OR_STRING: _Walk.int_or_string,
    fields.LIST: _Walk.list,
    fields.MAP: _Walk.map,
    fields.STRUCT: _Walk.mismatch,
}


def strict_path(path: _Path) -> str:
    """`spec.containers[0].foo`, as strict decoding names what it does not know."""
    parts: list[str] = []
    while path is not None:
        path, step = path
        parts.append(f"[{step}]" if step.__class__ is int else f".{step}")
    return "".join(reversed(parts)).removeprefix(".")


def _field_path(path: _Path) -> str:
    """`spec.containers.env.value`: Go's errors name struct fields only, neither indexes nor the keys of maps."""
    parts: list[str] = []
    while path is not None:
        path, step = path
        if step.__class__ is str:
            parts.append(step)
    return ".".join(reversed(parts))


def _json_kind(value: Any) -> str:
    return _JSON_KINDS.get(value.__class__, "object")


_JSON_KINDS: Mapping[type, str] = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
