"""Objects as typed trees for server-side apply: which fields one holds, how two differ, merging, and taking fields out.

Pure and copy-on-write. Which lists merge by key and which values are owned as a whole comes from the types. Follows
sigs.k8s.io/structured-merge-diff/typed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edgekube.api.fields import LIST, MAP, STRUCT, Field, Struct
from edgekube.api.fieldset import Set, element_of, has, is_member
from edgekube.api.types import Obj

_ABSENT = object()


class Difference(NamedTuple):
    """`changed`: members added or modified. `removed`: members that are gone."""

    changed: Set
    removed: Set

    @property
    def same(self) -> bool:
        return not self.changed and not self.removed


def compare(struct: Struct, old: Obj, new: Obj) -> Difference:
    """How `new` differs from `old`."""
    if old == new:
        return Difference({}, {})
    changed: Set = {}
    removed: Set = {}
    _compare_maps(struct, old, new, changed, removed)
    return Difference(changed, removed)


def field_set(struct: Struct, obj: Obj) -> Set:
    """All members of `obj`: what somebody who applies it owns."""
    return {f"f:{key}": _members(struct.fields.get(key), value) for key, value in obj.items() if _counts(struct.fields.get(key), value)}


def skeleton(struct: Struct) -> Obj:
    """What an object without content has in Go: structs that are always there, nulls and zeros that are always written."""
    found: Obj = {name: skeleton(inner) for name, inner in struct.always}
    for name, field in struct.fields.items():
        if field.required and name not in found:
            found[name] = field.zero if field.kind not in (LIST, MAP, STRUCT) else None
    return found


def _container(field: Field | None, value: Any) -> bool:
    """Whether `value` is looked into: neither scalar, nor atomic, nor empty."""
    if not value or field is None or field.atomic:
        return False
    return (field.kind == LIST and value.__class__ is list) or (field.kind in (STRUCT, MAP) and value.__class__ is dict)


def _child(shape: Field | Struct, key: str) -> Field | None:
    if isinstance(shape, Struct):
        return shape.fields.get(key)
    return shape.element if shape.kind == MAP else shape.struct.fields.get(key)


def _shape(field: Field) -> Field | Struct:
    return field.struct if field.kind == STRUCT else field


def _compare_maps(shape: Field | Struct, old: Mapping[str, Any], new: Mapping[str, Any], changed: Set, removed: Set) -> None:
    for key, value in new.items():
        before = old.get(key, _ABSENT)
        if before is not _ABSENT and before == value and before.__class__ is value.__class__:
            continue
        field = _child(shape, key)
        if before is _ABSENT:
            changed[f"f:{key}"] = _whole(field, value)
        else:
            _compare_values(field, before, value, f"f:{key}", changed, removed)
    for key, before in old.items():
        if key not in new and before is not None:
            removed[f"f:{key}"] = _whole(_child(shape, key), before)


def _compare_values(field: Field | None, old: Any, new: Any, element: str, changed: Set, removed: Set) -> None:
    if field is None or not (_container(field, old) or _container(field, new)):
        changed[element] = {}
        return
    inner_changed: Set = {}
    inner_removed: Set = {}
    if field.kind == LIST:
        _compare_lists(field, old or (), new or (), inner_changed, inner_removed)
    else:
        _compare_maps(_shape(field), old or {}, new or {}, inner_changed, inner_removed)
    if inner_changed:
        changed[element] = inner_changed
    if inner_removed:
        removed[element] = inner_removed


def _compare_lists(field: Field, old: Sequence[Any], new: Sequence[Any], changed: Set, removed: Set) -> None:
    before = {element_of(field, item): item for item in old}
    seen = set()
    for item in new:
        element = element_of(field, item)
        if element is None:
            continue
        seen.add(element)
        was = before.get(element, _ABSENT)
        if was is _ABSENT:
            changed[element] = _whole(field.element, item)
        elif was != item:
            _compare_values(field.element, was, item, element, changed, removed)
    for element, item in before.items():
        if element is not None and element not in seen:
            removed[element] = _whole(field.element, item)


def _whole(field: Field | None, value: Any) -> Set:
    """The members of a value that was not there before (or is gone): containers are members themselves then."""
    if field is None or not _container(field, value):
        return {}
    node: Set = {".": {}}
    if field.kind == LIST:
        for item in value:
            element = element_of(field, item)
            if element is not None:
                node[element] = _whole(field.element, item)
    else:
        shape = _shape(field)
        for key, item in value.items():
            node[f"f:{key}"] = _whole(_child(shape, key), item)
    return node


def _counts(field: Field | None, value: Any) -> bool:
    """An empty list that merges is no member and has none."""
    return not (value.__class__ is list and not value and field is not None and not field.atomic)


def _members(field: Field | None, value: Any) -> Set:
    """The members of an applied value: containers are members only as elements of lists and plain maps."""
    if field is None or not _container(field, value):
        return {}
    node: Set = {}
    if field.kind == LIST:
        for item in value:
            element = element_of(field, item)
            if element is not None:
                below = _members(field.element, item)
                node[element] = {".": {}, **below} if below else {}
        return node
    shape = _shape(field)
    for key, item in value.items():
        child = _child(shape, key)
        if not _counts(child, item):
            continue
        below = _members(child, item)
        node[f"f:{key}"] = {".": {}, **below} if below and field.kind == MAP else below
    return node


def merge(struct: Struct, live: Obj, config: Obj) -> Obj:
    """`live` with everything `config` says."""
    return _merge_maps(struct, live, config)


def _merge_maps(shape: Field | Struct, live: Mapping[str, Any], config: Mapping[str, Any]) -> Obj:
    merged = dict(live)
    for key, value in config.items():
        merged[key] = _merge_values(_child(shape, key), merged.get(key), value)
    return merged


def _merge_values(field: Field | None, live: Any, config: Any) -> Any:
    if field is None or field.atomic or live.__class__ is not config.__class__:
        return config
    if field.kind in (STRUCT, MAP) and config.__class__ is dict:
        return _merge_maps(_shape(field), live, config)
    if field.kind == LIST and config.__class__ is list:
        return _merge_lists(field, live, config)
    return config


def _merge_lists(field: Field, live: Sequence[Any], config: Sequence[Any]) -> list[Any]:
    """Shared elements in the order of `config`, the others of `live` woven in where they stood."""
    left = [(element_of(field, item), item) for item in live]
    right = [(element_of(field, item), item) for item in config]
    theirs = dict(left)
    ours = {element for element, _ in right}
    shared = [element for element, _ in right if element in theirs]
    merged: list[Any] = []
    at = next_shared = 0
    for element, item in right:
        while at < len(left):
            other = left[at][0]
            if other not in ours:
                merged.append(left[at][1])
            elif other == element or next_shared >= len(shared) or other == shared[next_shared]:
                break
            at += 1
        if element in theirs:
            merged.append(_merge_values(field.element, theirs[element], item))
            next_shared += 1
            if at < len(left) and left[at][0] == element:
                at += 1
        else:
            merged.append(item)
    merged.extend(item for element, item in left[at:] if element not in ours)
    return merged


def remove(struct: Struct, obj: Obj, gone: Set) -> Obj:
    """`obj` without the members in `gone`."""
    return _remove_from_map(struct, obj, gone) if gone else obj


def _remove_from_map(shape: Field | Struct, value: Mapping[str, Any], gone: Set) -> Obj:
    kept: Obj = {}
    for key, item in value.items():
        below = gone.get(f"f:{key}")
        if below is None:
            kept[key] = item
        elif not is_member(below):
            rest = _remove_from(_child(shape, key), item, below)
            if rest is not None:
                kept[key] = rest
    return kept


def _remove_from(field: Field | None, value: Any, gone: Set) -> Any:
    if field is None or not _container(field, value):
        return value
    if field.kind != LIST:
        return _remove_from_map(_shape(field), value, gone) or None
    kept = []
    for item in value:
        element = element_of(field, item)
        below = None if element is None else gone.get(element)
        if below is None:
            kept.append(item)
        elif element is not None and not has(gone, element):
            rest = _remove_from(field.element, item, below)
            if rest is not None:
                kept.append(rest)
    return kept or None


def with_parents(shape: Field | Struct | None, node: Set) -> Set:
    """The set with every struct field on the way to a member made a member itself."""
    found: Set = {}
    for element, below in node.items():
        if element == "." or not below:
            found[element] = below
            continue
        field, named = _step(shape, element)
        inner = with_parents(field, below)
        found[element] = {".": {}, **inner} if named and "." not in inner else inner
    return found


def _step(shape: Field | Struct | None, element: str) -> tuple[Field | None, bool]:
    """The field that a path element leads to, and whether it is a struct's named field."""
    if shape is None:
        return None, False
    if element.startswith("f:"):
        name = element[2:]
        struct = shape if isinstance(shape, Struct) else shape.struct if shape.kind == STRUCT else None
        if struct is not None:
            return struct.fields.get(name), name in struct.fields
        return (shape.element if isinstance(shape, Field) and shape.kind == MAP else None), False
    return (shape.element if isinstance(shape, Field) and shape.kind == LIST else None), False
