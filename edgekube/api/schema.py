"""The types of the API, by definition name: loaded lazily from the compact form that packaging/compile_schema.py made.

    SCHEMA.struct("io.k8s.api.core.v1.Pod")   the fields, for walks that merge, own or document them
    SCHEMA.check("io.k8s.api.core.v1.Pod", obj)   check and clean an object in place

Reads edgekube/api/schema_data: types.json.gz and go.json.gz (3 ms, 2 MB in memory, all 760 definitions) and, for OpenAPI only, the
descriptions. The types of edgekube's own kinds (owntypes.py) follow behind upstream's.
"""

import gzip
import hashlib
import lzma
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import orjson

from edgekube.api import fields, owntypes, walk
from edgekube.api.fields import Field, Struct
from edgekube.api.types import Obj
from edgekube.api.walk import Check

_LEAVES: Mapping[str, tuple[int, str, Any]] = {
    "s": (fields.STRING, "string", ""),
    "b": (fields.BOOL, "bool", False),
    "i": (fields.INT, "int32", 0),
    "l": (fields.INT, "int64", 0),
    "d": (fields.DOUBLE, "float64", 0),
    "y": (fields.BYTES, "[]uint8", None),
    "o": (fields.ANY, "interface {}", None),
    "j": (fields.ANY, "interface {}", None),
    "q": (fields.QUANTITY, "resource.Quantity", "0"),
    "t": (fields.TIME, "v1.Time", None),
    "T": (fields.MICRO_TIME, "v1.MicroTime", None),
    "x": (fields.INT_OR_STRING, "intstr.IntOrString", 0),
}
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


class Schema:
    """All definitions; each becomes a Struct when first asked for."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._types: list[dict[str, Any]] = []
        self._go: dict[str, dict[str, str]] = {}
        self._structs: dict[int, Struct] = {}

    def check(self, definition: str, obj: Obj) -> Check:
        """(error, unknown) of `obj`, which is cleaned in place: see walk.py. A definition that has no types accepts anything."""
        struct = self.struct(definition)
        return Check("", []) if struct is None else walk.check(struct, obj)

    def struct(self, definition: str) -> Struct | None:
        """The definition with that full name, e.g. "io.k8s.api.core.v1.Pod"."""
        self._load()
        number = self._numbers.get(definition)
        return None if number is None else self._struct(number)

    def names(self) -> Sequence[str]:
        """The full names of all definitions that are structs: upstream's, sorted, then our own."""
        self._load()
        return self._names

    def compact(self, definition: str) -> Mapping[str, Any]:
        """The definition as the data has it; OpenAPI is built from this."""
        self._load()
        return self._types[self._numbers[definition]]

    def _load(self) -> None:
        if self._names:
            return
        data = orjson.loads(gzip.decompress(_resource("types.json.gz")))
        self._types = data["types"]
        self._go = orjson.loads(gzip.decompress(_resource("go.json.gz")))
        self._names = [*data["names"], *owntypes.TYPES]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._types += [self._numbered(compact) for compact in owntypes.TYPES.values()]

    def _numbered(self, compact: Mapping[str, Any]) -> dict[str, Any]:
        """One of our own types with numbers for the names it refers to."""

        def code(text: str) -> str:
            before, mark, name = text.partition("#")
            return f"{before}#{self._numbers[name]}" if mark else text

        found = {name: code(spec) if isinstance(spec, str) else [code(spec[0]), spec[1]] for name, spec in compact["f"].items()}
        return {**compact, "f": found}

    def _struct(self, number: int) -> Struct:
        struct = self._structs.get(number)
        if struct is None:
            compact = self._types[number]
            struct = self._structs[number] = Struct(self._names[number], compact)  # before its fields: types contain themselves
            facts = self._go.get(struct.name, {})
            for name, spec in compact.get("f", {}).items():
                field = self._field(spec, {}) if isinstance(spec, str) else self._field(spec[0], spec[1])
                field.required = name in struct.required
                fact, _, named = facts.get(name, "").partition(" ")
                field.omit = fact == "e" if field.kind not in (fields.LIST, fields.MAP) else not field.required
                field.go = named or field.go
                struct.fields[name] = field
            struct.always = tuple(
                (name, struct.fields[name].struct) for name, fact in facts.items() if fact == "v" and name in struct.fields
            )
        return struct

    def _field(self, code: str, options: Mapping[str, Any]) -> Field:
        first = code[0]
        if first in "[{":
            element = self._field(code[1:], {})
            prefix = "[]" if first == "[" else "map[string]"
            field = Field(code, fields.LIST if first == "[" else fields.MAP, prefix + element.go, options)
            field.element = element
        elif first == "#":
            struct = self._struct(int(code[1:]))
            field = Field(code, fields.STRUCT, ".".join(struct.name.split(".")[-2:]), options)
            field.struct = struct
            field.atomic = options["a"] == 1 if "a" in options else struct.atomic
        else:
            kind, go, zero = _LEAVES[first]
            field = Field(code, kind, go, options)
            field.zero = zero
        return field


def descriptions() -> Mapping[str, Any]:
    """`{definition: [description, {field: description}]}`, decoded anew on every call (10 ms, 3 MB): for building OpenAPI."""
    found: dict[str, Any] = orjson.loads(lzma.decompress(_resource("descriptions.json.xz")))
    return found | dict(owntypes.DESCRIPTIONS)


def fingerprint() -> str:
    """Changes with the data: part of the hash of every OpenAPI document."""
    data = b"".join(_resource(name) for name in ("types.json.gz", "descriptions.json.xz"))
    return hashlib.sha256(data + orjson.dumps([owntypes.TYPES, owntypes.DESCRIPTIONS])).hexdigest()


def _resource(name: str) -> bytes:
    return resources.files("edgekube.api").joinpath("schema_data", name).read_bytes()


SCHEMA = Schema()
