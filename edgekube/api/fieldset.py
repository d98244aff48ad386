"""Sets of fields in the form managedFields store them (fieldsV1), and their algebra.

A node is a dict of path elements to nodes: `f:name` a field, `k:{"name":"x"}` and `v:"x"` an element of a list. A node is itself a
member of the set if it is empty or holds ".". Functions never change their arguments; results share what is equal. The root is no
member: an empty set is {}. Follows sigs.k8s.io/structured-merge-diff/fieldpath.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from edgekube.api.fields import Field

Set = dict[str, Any]


def is_member(node: Set) -> bool:
    return not node or "." in node


def union(left: Set, right: Set) -> Set:
    if not left:
        return right
    if not right:
        return left
    merged = dict(left)
    for element, node in right.items():
        before = merged.get(element)
        merged[element] = node if before is None else _union(before, node)
    return merged


def _union(left: Set, right: Set) -> Set:
    if left == right:
        return left
    merged = union(left, right)
    if (not left or not right) and "." not in merged and merged:
        return {".": {}, **merged}
    return merged


def difference(left: Set, right: Set) -> Set:
    """What is in `left` and not in `right`."""
    if not right or not left:
        return left
    return _children(left, right)


def _children(left: Set, right: Set) -> Set:
    kept: Set | None = None
    for element, node in right.items():
        if element == ".":
            continue
        before = left.get(element)
        if before is None:
            continue
        rest = _difference(before, node)
        if rest is before:
            continue
        if kept is None:
            kept = dict(left)
        if rest is None:
            del kept[element]
        else:
            kept[element] = rest
    return left if kept is None else kept


def _difference(left: Set, right: Set) -> Set | None:
    """The rest of a node, None if nothing is left of it."""
    if is_member(left) and not is_member(right):
        children = _children(left, right)
        return children if children is left or not left else _with_member(children)
    if not left:
        return None
    children = _children(left, right)
    if "." in children and is_member(right):
        children = {element: node for element, node in children.items() if element != "."}
    return children or None


def _with_member(children: Set) -> Set:
    rest = {element: node for element, node in children.items() if element != "."}
    return {".": {}, **rest} if rest else {}


def intersection(left: Set, right: Set) -> Set:
    """What is in both."""
    found: Set = {}
    if len(right) < len(left):
        left, right = right, left
    for element, node in left.items():
        other = right.get(element)
        if element == "." or other is None:
            continue
        both = _intersection(node, other)
        if both is not None:
            found[element] = both
    return found


def _intersection(left: Set, right: Set) -> Set | None:
    children = intersection(left, right)
    if is_member(left) and is_member(right):
        return {".": {}, **children} if children else {}
    return children or None


def has(node: Set, element: str) -> bool:
    """Whether the path one step down is a member."""
    below = node.get(element)
    return below is not None and is_member(below)


def members(node: Set, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every member path, sorted."""
    for element in sorted(node):
        if element == ".":
            continue
        path = (*prefix, element)
        below = node[element]
        if is_member(below):
            yield path
        yield from members(below, path)


def path_text(path: tuple[str, ...]) -> str:
    """`.spec.containers[name="web"].image`, as conflicts show it."""
    return "".join(map(_element_text, path))


def _element_text(element: str) -> str:
    kind, rest = element[:2], element[2:]
    if kind == "f:":
        return f".{rest}"
    if kind == "i:":
        return f"[{rest}]"
    value = orjson.loads(rest)
    if kind == "k:" and isinstance(value, dict):
        return "[" + ",".join(f"{key}={orjson.dumps(inner).decode()}" for key, inner in sorted(value.items())) + "]"
    return f"[={orjson.dumps(value).decode()}]"


def element_of(field: Field, item: Any) -> str | None:
    """The path element of an item of a list that merges; None if it has no key at all."""
    if field.list_type == "set":
        return "v:" + orjson.dumps(item).decode()
    if item.__class__ is not dict:
        return None
    known = field.element.struct.fields
    found = {}
    for key in field.keys:
        value = item.get(key)
        if value is None and key in known:
            value = known[key].default
        if value is not None:
            found[key] = value
    return "k:" + orjson.dumps(found, option=orjson.OPT_SORT_KEYS).decode() if found else None
