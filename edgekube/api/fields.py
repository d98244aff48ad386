"""What the fields of the API's types may hold and how they merge: the shapes that schema.py fills and every walk over objects reads."""

from collections.abc import Mapping, Sequence
from typing import Any

STRING, BOOL, INT, DOUBLE, BYTES, ANY, QUANTITY, TIME, MICRO_TIME, INT_OR_STRING, LIST, MAP, STRUCT = range(13)
_LIST_TYPES = {"a": "atomic", "s": "set", "m": "map"}
_CLASSES: Mapping[int, type] = {STRING: str, BOOL: bool}


class Struct:
    """One definition. `go` is the short name that Go's decoder shows in errors; `always` the structs that Go writes even if empty."""

    __slots__ = ("always", "atomic", "fields", "go", "kinds", "name", "required", "unions")

    def __init__(self, name: str, compact: Mapping[str, Any]) -> None:
        self.name = name
        self.go = name.rsplit(".", 1)[-1]
        self.fields: dict[str, Field] = {}
        self.required: tuple[str, ...] = tuple(compact.get("r", ()))
        self.kinds: tuple[tuple[str, str, str], ...] = tuple((group, version, kind) for group, version, kind in compact.get("g", ()))
        self.unions: Sequence[Any] = compact.get("u", ())
        self.atomic = "a" in compact
        self.always: tuple[tuple[str, Struct], ...] = ()


NO_STRUCT = Struct("", {})


class Field:
    """What one field (or list element, or map value) may hold and how it merges.

    `struct` is set for STRUCT, `element` for LIST and MAP. `list_type` is "atomic", "set" or "map" ("atomic" where upstream says
    nothing); `keys` are the list-map keys and `merge_key` the strategic merge key: they differ for some lists. `strategy` holds
    "merge", "replace", "retainKeys". `atomic`: server-side apply owns the value as a whole. `default` exists for list-map keys only.
    `omit`: a zero value leaves no trace.
    """

    __slots__ = (
        "atomic", "code", "default", "element", "go", "high", "keys", "kind", "leaf", "list_type", "low", "merge_key", "omit",
        "required", "strategy", "struct", "zero",
    )  # fmt: skip

    def __init__(self, code: str, kind: int, go: str, options: Mapping[str, Any]) -> None:
        self.code, self.kind, self.go = code, kind, go
        self.leaf: type | None = _CLASSES.get(kind)  # a value of exactly this class needs no further look
        self.low, self.high = (-(2**31), 2**31 - 1) if code == "i" else (-(2**63), 2**63 - 1)
        self.struct: Struct = NO_STRUCT
        self.element: Field = self
        self.list_type = _LIST_TYPES.get(options.get("l", ""), "atomic" if kind == LIST else "")
        self.keys: tuple[str, ...] = tuple(options.get("k", ()))
        self.merge_key: str = options.get("m", "")
        self.strategy = frozenset(options.get("p", "").split(",")) - {""}
        self.default: Any = options.get("v")
        self.required = False
        self.atomic = options.get("a", 0) == 1 or (kind == LIST and self.list_type == "atomic")
        self.omit = kind in (LIST, MAP)
        self.zero: Any = None  # what a null means where something must stand: in a list or a map
