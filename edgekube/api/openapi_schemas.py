"""The API's types as OpenAPI schemas, with descriptions: made from the compact form, only those that something refers to."""

from collections.abc import Iterable, Mapping
from typing import Any

from edgekube.api.schema import SCHEMA, descriptions
from edgekube.api.types import Obj

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_SPECIAL_REFS = {"q": QUANTITY, "t": f"{_META}Time", "T": f"{_META}MicroTime", "x": INT_OR_STRING}
_SCALARS: Mapping[str, Obj] = {
    "s": {"type": "string"},
    "b": {"type": "boolean"},
    "i": {"type": "integer", "format": "int32"},
    "l": {"type": "integer", "format": "int64"},
    "d": {"type": "number", "format": "double"},
    "y": {"type": "string", "format": "byte"},
    "o": {"type": "object"},
    "j": {},
}
_SPECIALS: Mapping[str, tuple[Obj, Obj]] = {  # definition -> its schema in v2 and in v3
    QUANTITY: ({"type": "string"}, {"oneOf": [{"type": "string"}, {"type": "number"}]}),
    f"{_META}Time": ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}),
    f"{_META}MicroTime": ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}),
    INT_OR_STRING: (
        {"type": "string", "format": "int-or-string"},
        {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    ),
}
_LIST_TYPES = {"a": "atomic", "s": "set", "m": "map"}


class Schemas:
    """Builds the schemas of one document."""

    def __init__(self, *, version: int) -> None:
        self._v3 = version == 3
        self._prefix = "#/components/schemas/" if self._v3 else "#/definitions/"
        self._names = SCHEMA.names()
        self._descriptions = descriptions()

    def closure(self, roots: Iterable[str]) -> Mapping[str, Obj]:
        """The schemas of `roots` and of all they refer to, by name."""
        found: dict[str, Obj] = {}
        pending = list(roots)
        while pending:
            name = pending.pop()
            if name not in found:
                found[name] = self._schema(name, pending)
        return dict(sorted(found.items()))

    def _schema(self, name: str, pending: list[str]) -> Obj:
        text, of_fields = self._descriptions.get(name, ("", {}))
        schema: Obj = {"description": text} if text else {}
        if name in _SPECIALS:
            return schema | _SPECIALS[name][1 if self._v3 else 0]
        compact = SCHEMA.compact(name)
        schema["type"] = "object"
        fields = compact.get("f", {})
        if fields:
            schema["properties"] = {field: self._property(spec, of_fields.get(field, ""), pending) for field, spec in fields.items()}
        if compact.get("r"):
            schema["required"] = list(compact["r"])
        if compact.get("g"):
            kinds = [{"group": group, "version": version, "kind": kind} for group, version, kind in compact["g"]]
            schema["x-kubernetes-group-version-kind"] = kinds
        if compact.get("a"):
            schema["x-kubernetes-map-type"] = "atomic"
        if compact.get("u"):
            schema["x-kubernetes-unions"] = compact["u"]
        return schema

    def _property(self, spec: Any, text: str, pending: list[str]) -> Obj:
        code, options = (spec, {}) if isinstance(spec, str) else spec
        schema = self._value(code, pending)
        if "$ref" in schema and self._v3 and (text or options):
            schema = {"allOf": [schema]}
        if text:
            schema["description"] = text
        return schema | _extensions(options)

    def _value(self, code: str, pending: list[str]) -> Obj:
        first = code[0]
        if first == "[":
            return {"type": "array", "items": self._value(code[1:], pending)}
        if first == "{":
            return {"type": "object", "additionalProperties": self._value(code[1:], pending)}
        name = self._names[int(code[1:])] if first == "#" else _SPECIAL_REFS.get(first)
        if name is None:
            return dict(_SCALARS[first])
        pending.append(name)
        return {"$ref": self._prefix + name}


def _extensions(options: Mapping[str, Any]) -> Obj:
    found: Obj = {}
    if "l" in options:
        found["x-kubernetes-list-type"] = _LIST_TYPES[options["l"]]
    if "k" in options:
        found["x-kubernetes-list-map-keys"] = options["k"]
    if "m" in options:
        found["x-kubernetes-patch-merge-key"] = options["m"]
    if "p" in options:
        found["x-kubernetes-patch-strategy"] = options["p"]
    if "a" in options:
        found["x-kubernetes-map-type"] = "atomic" if options["a"] else "granular"
    if "v" in options:
        found["default"] = options["v"]
    return found
