"""Three kinds of patch: JSON patch (RFC 6902), JSON merge patch (RFC 7396) and Kubernetes' strategic merge patch.

All are copy-on-write: the old object is never changed, what a patch does not touch is shared with it. The result must go through
`decoding.clean_patched` before it is stored, as the result of a patch may hold anything. Refusals are kube-apiserver's.
(Strategic merge: strategic.py. Server-side apply: apply.py.)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgekube.api.types import Obj
from edgekube.errors import BadRequest, Invalid, TooLarge

MAX_OPERATIONS = 10_000
_MAX_COPIES = 1_000_000  # values copied in by `copy` operations, against patches that blow an object up


def json_patch(old: Obj, operations: Any) -> Obj:
    """Apply the decoded JSON patch. Raises BadRequest (not a patch), TooLarge, Invalid (a test fails, a path leads nowhere)."""
    steps = _decode(operations)
    if len(steps) > MAX_OPERATIONS:
        raise TooLarge(f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(steps)}")
    document = _Document(old)
    try:
        for step in steps:
            document.apply(step)
    except _Nowhere:
        # Upstream tells no more than that: which operation failed stays in its log.
        raise Invalid("the server rejected our request due to an error in our request", details={}) from None
    root: Obj = document.root
    return root


def merge_patch(old: Obj, patch: Any) -> Obj:
    """Apply the decoded merge patch. Raises BadRequest."""
    if not isinstance(patch, dict):
        raise BadRequest("Invalid JSON Patch")
    return _merge(old, patch)


def _merge(old: Mapping[str, Any], patch: Mapping[str, Any]) -> Obj:
    merged = dict(old)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif value.__class__ is dict:
            before = merged.get(key)
            merged[key] = _merge(before if before.__class__ is dict else {}, value)
        else:
            merged[key] = value
    return merged


class _Nowhere(Exception):
    """An operation cannot be done on this document."""


_NEEDS = {"add": ("value",), "replace": ("value",), "test": ("value",), "remove": (), "move": ("from",), "copy": ("from",)}


def _decode(operations: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(operations, list):
        kind = {dict: "object", str: "string", bool: "bool", int: "number", float: "number"}.get(type(operations), "null")
        raise BadRequest(f"json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch")
    for step in operations:
        if not isinstance(step, dict):
            raise BadRequest("json: cannot unmarshal array into Go value of type jsonpatch.Operation")
    return operations


class _Document:
    """The document between two operations. Containers it has copied already are changed in place."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self._own: dict[int, Any] = {}  # id -> container made here; holding it keeps the id its own
        self._budget = _MAX_COPIES

    def apply(self, step: Mapping[str, Any]) -> None:
        operation, path = step.get("op"), step.get("path")
        needs = _NEEDS.get(operation) if isinstance(operation, str) else None
        if needs is None or not isinstance(path, str) or any(name not in step for name in needs):
            raise _Nowhere
        if operation == "add":
            self.add(_pointer(path), step["value"])
        elif operation == "remove":
            self.remove(_pointer(path))
        elif operation == "replace":
            self.replace(_pointer(path), step["value"])
        elif operation == "test":
            if not _same(self.get(_pointer(path), missing=None), step["value"]):
                raise _Nowhere
        else:
            source = _pointer(step["from"])
            value = self.get(source)
            if operation == "move":
                self.remove(source)
            else:
                self.charge(value)
            self.add(_pointer(path), value)

    def get(self, path: Sequence[str], **default: Any) -> Any:
        """The value at `path`; `missing` is what a missing last member of an object is."""
        if not path:
            return self.root
        parent = self.walk(path)
        if isinstance(parent, dict):
            if path[-1] in parent:
                return parent[path[-1]]
            if "missing" in default:
                return default["missing"]
            raise _Nowhere
        return parent[_index(path[-1], len(parent) - 1)]

    def walk(self, path: Sequence[str]) -> Any:
        """The container that holds the last step of `path`."""
        node = self.root
        for step in path[:-1]:
            if isinstance(node, dict) and step in node:
                node = node[step]
            elif isinstance(node, list):
                node = node[_index(step, len(node) - 1)]
            else:
                raise _Nowhere
        if not isinstance(node, (dict, list)):
            raise _Nowhere
        return node

    def own(self, path: Sequence[str]) -> Any:
        """The same, with every container on the way made our own, so that the last may be changed."""
        self.walk(path)
        self.root = node = self._copied(self.root)
        for step in path[:-1]:
            at: Any = step if isinstance(node, dict) else _index(step, len(node) - 1)
            node[at] = node = self._copied(node[at])
        return node

    def _copied(self, node: Any) -> Any:
        if id(node) in self._own:
            return node
        copy: Any = dict(node) if isinstance(node, dict) else list(node)
        self._own[id(copy)] = copy
        return copy

    def add(self, path: Sequence[str], value: Any) -> None:
        self._disown(value)
        if not path:
            self.root = value
            return
        parent = self.own(path)
        if isinstance(parent, dict):
            parent[path[-1]] = value
        elif path[-1] == "-":
            parent.append(value)
        else:
            parent.insert(_index(path[-1], len(parent), grow=True), value)

    def replace(self, path: Sequence[str], value: Any) -> None:
        self.get(path)
        self._disown(value)
        if not path:
            self.root = value
            return
        parent = self.own(path)
        parent[path[-1] if isinstance(parent, dict) else _index(path[-1], len(parent) - 1)] = value

    def remove(self, path: Sequence[str]) -> None:
        if not path:
            raise _Nowhere
        self.get(path)
        parent = self.own(path)
        del parent[path[-1] if isinstance(parent, dict) else _index(path[-1], len(parent) - 1)]

    def charge(self, value: Any) -> None:
        """Count what a copy brings in."""
        pending = [value]
        while pending:
            node = pending.pop()
            self._budget -= 1
            if self._budget < 0:
                raise _Nowhere
            if isinstance(node, (dict, list)):
                pending.extend(node.values() if isinstance(node, dict) else node)

    def _disown(self, value: Any) -> None:
        """A value that enters (again) may be reachable from two places now: what it holds is nobody's to change in place."""
        if self._own and isinstance(value, (dict, list)):
            self._own.clear()


def _pointer(path: Any) -> list[str]:
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise _Nowhere
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _index(step: str, last: int, *, grow: bool = False) -> int:
    """An array index; negative ones count from the end, as upstream's library allows."""
    try:
        index = int(step)
    except ValueError:
        raise _Nowhere from None
    if index < 0:
        index += last + 1
    if not 0 <= index <= last or (not grow and last < 0):
        raise _Nowhere
    return index


def _same(left: Any, right: Any) -> bool:
    """Equal as JSON: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)
