"""Strategic merge patch: lists merge by key as the API's types say, and directives say the rest.

    $patch: replace | delete      instead of merging, on a map or on an element of a list that merges
    $retainKeys: [..]             drop all other members of this map (one-of structures such as a volume or a strategy)
    $setElementOrder/<list>: [..] the order wanted of the elements that the patch knows
    $deleteFromPrimitiveList/<list>: [..]  take values out of a list of scalars that merges

Copy-on-write: the old object is never changed. Follows k8s.io/apimachinery/pkg/util/strategicpatch, with its refusals.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgekube.api.fields import LIST, MAP, STRUCT, Field, Struct
from edgekube.api.types import Obj
from edgekube.errors import BadRequest, Invalid, Unclassified

_PATCH, _RETAIN, _ORDER, _TAKE = "$patch", "$retainKeys", "$setElementOrder/", "$deleteFromPrimitiveList/"
_REFUSED = "the server rejected our request due to an error in our request"
_NOTHING = object()


def strategic_merge(struct: Struct, old: Obj, patch: Any) -> Obj:
    """Apply the decoded patch to `old`. Raises BadRequest, Invalid, or Unclassified where upstream answers 500 (no merge key)."""
    if not isinstance(patch, dict):
        raise BadRequest("invalid JSON document")
    return _merge_map(old, patch, struct)


def _merge_map(old: Mapping[str, Any], patch: Mapping[str, Any], shape: Struct | Field | None) -> Obj:
    """`shape` is the Struct, or the MAP field whose element every value is, or None where nothing is known."""
    if _PATCH in patch:
        return _whole(patch)
    merged = dict(old)
    if _RETAIN in patch:
        _retain(merged, patch)
    done = _ordered_lists(merged, patch, shape) if any(key[:1] == "$" for key in patch) else ()
    for key, value in patch.items():
        if key in done:
            continue
        if key[:1] == "$" and _is_directive(key):
            if key.startswith(_TAKE):
                _take(merged, key.removeprefix(_TAKE), value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_value(merged.get(key), value, _member(shape, key))
    return merged


def _whole(patch: Mapping[str, Any]) -> Obj:
    directive = patch[_PATCH]
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _PATCH}
    if directive == "delete":
        return {}
    raise Invalid(_REFUSED, details={})


def _member(shape: Struct | Field | None, key: str) -> Field | None:
    if isinstance(shape, Struct):
        return shape.fields.get(key)
    return shape.element if shape is not None and shape.kind == MAP else None


def _merge_value(before: Any, value: Any, field: Field | None) -> Any:
    if before is None or before.__class__ is not value.__class__:
        return _plain(value)
    if value.__class__ is dict:
        if field is not None and "replace" in field.strategy:
            return _plain(value)
        return _merge_map(before, value, field.struct if field is not None and field.kind == STRUCT else field)
    if value.__class__ is list:
        if field is not None and field.kind == LIST and "merge" in field.strategy:
            return _merge_list(before, value, field)
        return _plain(value)
    return value


def _plain(value: Any) -> Any:
    """A value that goes in as it is: without its nulls and directives."""
    if value.__class__ is dict:
        if value.get(_PATCH) == "delete":
            return {}
        return {key: _plain(inner) for key, inner in value.items() if inner is not None and not _is_directive(key)}
    if value.__class__ is list:
        kept = [item for item in value if not (item.__class__ is dict and _PATCH in item and item[_PATCH] != "merge" and len(item) <= 2)]
        return [_plain(item) for item in kept]
    return value


def _is_directive(key: str) -> bool:
    return key.startswith("$") and (key in (_PATCH, _RETAIN) or key.startswith((_ORDER, _TAKE)))


def _retain(merged: Obj, patch: Mapping[str, Any]) -> None:
    keep = patch[_RETAIN]
    if not isinstance(keep, list):
        raise BadRequest("invalid patch format of retainKeys")
    for key, value in patch.items():
        if value is not None and key not in keep and not _is_directive(key):
            raise BadRequest("invalid patch format of retainKeys")
    for key in [key for key in merged if key not in keep]:
        del merged[key]


def _take(merged: Obj, key: str, values: Any) -> None:
    before = merged.get(key)
    if isinstance(before, list) and isinstance(values, list):
        merged[key] = [item for item in before if item not in values]


def _ordered_lists(merged: Obj, patch: Mapping[str, Any], shape: Struct | Field | None) -> set[str]:
    """Merge and order every list that has a $setElementOrder; returns their names: they are done."""
    done: set[str] = set()
    for directive, order in patch.items():
        if not directive.startswith(_ORDER):
            continue
        key = directive.removeprefix(_ORDER)
        field = _member(shape, key)
        merge_key = field.merge_key if field is not None else ""
        before, change = merged.get(key), patch.get(key)
        if not isinstance(order, list) or not isinstance(change or [], list) or not isinstance(before or [], list):
            raise BadRequest("invalid patch format of setElementOrder list")
        take = patch.get(_TAKE + key)
        done.add(key)
        if before is None and change is None:
            continue
        _check_order(change or [], order, merge_key)
        together = list(before or [])
        if change is not None:
            together = _plain(change) if before is None else _merge_list(together, change, field)
        if isinstance(take, list):
            together = [item for item in together if item not in take]
        merged[key] = _arrange(together, order, before or [], merge_key)
    return done


def _check_order(change: Sequence[Any], order: Sequence[Any], merge_key: str) -> None:
    """What the patch changes must stand in its own element order, in that order."""
    wanted = [_identity(item, merge_key) for item in order]
    at = 0
    for item in change:
        if item.__class__ is dict and item.get(_PATCH) is not None:
            continue
        identity = _identity(item, merge_key)
        while at < len(wanted) and wanted[at] != identity:
            at += 1
        if at == len(wanted):
            shown = f"The order in patch list:\n{change}\n doesn't match {_ORDER.rstrip('/')} list:\n{order}\n"
            raise Unclassified(shown)
        at += 1


def _merge_list(old: Sequence[Any], patch: Sequence[Any], field: Field | None) -> list[Any]:
    if not any(item.__class__ is dict for item in (*patch, *old)):
        together = _unique((*old, *patch))
        return _arrange(together, patch, old, "")
    key = field.merge_key if field is not None else ""
    element = field.element.struct if field is not None and field.element.kind == STRUCT else None
    changes = [item for item in patch if not (item.__class__ is dict and _PATCH in item)]
    kept = list(old) if len(changes) == len(patch) else _directed(old, patch, key)
    in_order, last = True, -1
    positions = {_hashable(item.get(key)): index for index, item in enumerate(kept) if item.__class__ is dict}
    for item in changes:
        if item.__class__ is not dict:
            raise Invalid(_REFUSED, details={})
        if key not in item:
            raise Unclassified(f"map: {_go_map(item)} does not contain declared merge key: {key}")
        at = positions.get(_hashable(item[key]))
        if at is None:
            positions[_hashable(item[key])] = at = len(kept)
            kept.append(_plain(item))
            in_order = False
        else:
            kept[at] = _merge_map(kept[at], item, element)
            in_order = in_order and at > last
        last = at
    return kept if in_order else _arrange(kept, changes, old, key)


def _directed(old: Sequence[Any], patch: Sequence[Any], key: str) -> list[Any]:
    """The old list after the elements that are directives."""
    kept, replace = list(old), False
    for item in patch:
        if item.__class__ is not dict or _PATCH not in item:
            continue
        if item[_PATCH] == "replace":
            replace = True
        elif item[_PATCH] != "delete":
            raise Invalid(_REFUSED, details={})
        elif key not in item:
            raise Unclassified(f"map: {_go_map(item)} does not contain declared merge key: {key}")
        else:
            kept = [other for other in kept if other.get(key) != item[key]]
    return [] if replace else kept


def _arrange(merged: Iterable[Any], wanted: Sequence[Any], before: Sequence[Any], key: str) -> list[Any]:
    """Elements that the patch knows in the patch's order, the others in the old order, woven by the old positions."""
    rank = {_identity(item, key): index for index, item in reversed(list(enumerate(wanted)))}
    old = {_identity(item, key): index for index, item in reversed(list(enumerate(before)))}
    known: list[Any] = []
    others: list[Any] = []
    for item in merged:
        (known if _identity(item, key) in rank else others).append(item)
    known.sort(key=lambda item: rank[_identity(item, key)])
    others.sort(key=lambda item: old.get(_identity(item, key), len(old)))
    woven: list[Any] = []
    left = 0
    for item in known:
        place = old.get(_identity(item, key))
        while place is not None and left < len(others) and old.get(_identity(others[left], key), place) < place:
            woven.append(others[left])
            left += 1
        woven.append(item)
    return woven + others[left:]


def _identity(item: Any, key: str) -> Any:
    return _hashable(item.get(key) if key and item.__class__ is dict else item)


def _hashable(value: Any) -> Any:
    if value.__class__ is str:
        return value
    return (type(value).__name__, value if value.__hash__ is not None else repr(value))


def _unique(items: Iterable[Any]) -> list[Any]:
    found: dict[Any, Any] = {}
    for item in items:
        found.setdefault(_hashable(item), item)
    return list(found.values())


def _go_map(item: Mapping[str, Any]) -> str:
    """A map as Go prints it."""
    return "map[" + " ".join(f"{key}:{_go_map(value) if isinstance(value, dict) else value}" for key, value in sorted(item.items())) + "]"
