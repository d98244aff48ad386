"""What every object has: metadata, owners, conditions; and how an object becomes an Item."""

from collections.abc import Mapping
from sys import intern
from typing import Any

import orjson

from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Key, Obj

_EMPTY: Mapping[str, str] = {}


def encode(obj: Any) -> bytes:
    """The JSON bytes of `obj`, of exact size: orjson's own result keeps twice the memory alive."""
    return bytes(memoryview(orjson.dumps(obj)))


def item_of(kind: Kind, raw: bytes, revision: int, obj: Obj | None = None) -> Item:
    """The Item of the encoded object; pass the decoded `obj` where it is at hand, it is only read."""
    if obj is None:
        obj = orjson.loads(raw)
    metadata = obj.get("metadata") or {}
    namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
    fields = {"metadata.name": name, "metadata.namespace": intern(namespace)}
    for field, value in kind.selectable.items():
        fields[field] = intern(value(obj))
    owners = metadata.get("ownerReferences") or ()
    return Item(
        raw=raw,
        key=Key(intern(namespace), name),
        uid=metadata.get("uid", ""),
        revision=revision,
        labels={intern(key): intern(value) for key, value in (metadata.get("labels") or _EMPTY).items()},
        fields=fields,
        owners=tuple(owner["uid"] for owner in owners),
        controller=next((owner["uid"] for owner in owners if owner.get("controller")), ""),
        deleting="deletionTimestamp" in metadata,
    )


def key_of(obj: Obj) -> Key:
    metadata = obj.get("metadata") or {}
    return Key(metadata.get("namespace", ""), metadata.get("name", ""))


def labels(obj: Obj) -> Mapping[str, str]:
    """The labels, to be read only."""
    found: Mapping[str, str] = (obj.get("metadata") or {}).get("labels") or _EMPTY
    return found


def annotations(obj: Obj) -> Mapping[str, str]:
    """The annotations, to be read only."""
    found: Mapping[str, str] = (obj.get("metadata") or {}).get("annotations") or _EMPTY
    return found


def is_deleting(obj: Obj) -> bool:
    return "deletionTimestamp" in (obj.get("metadata") or {})


def controller_of(obj: Obj) -> dict[str, Any] | None:
    """The owner reference that says `controller: true`."""
    for owner in (obj.get("metadata") or {}).get("ownerReferences") or ():
        if owner.get("controller"):
            found: dict[str, Any] = owner
            return found
    return None


def owner_reference(owner: Obj, kind: Kind, *, controller: bool = True, block: bool = True) -> dict[str, Any]:
    """The reference that makes a dependent belong to `owner`."""
    metadata = owner["metadata"]
    reference: dict[str, Any] = {"apiVersion": kind.api_version, "kind": kind.kind, "name": metadata["name"], "uid": metadata["uid"]}
    if controller:
        reference["controller"] = True
    if block:
        reference["blockOwnerDeletion"] = True
    return reference


def find_condition(obj: Obj, type: str) -> dict[str, Any] | None:
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == type:
            found: dict[str, Any] = condition
            return found
    return None


def set_condition(obj: Obj, *, type: str, status: str, reason: str, message: str, now: str) -> bool:
    """Set a condition in place; lastTransitionTime moves with the status only. Returns whether anything changed."""
    wanted = {"type": type, "status": status, "reason": reason, "message": message}
    condition = find_condition(obj, type)
    if condition is None:
        obj.setdefault("status", {}).setdefault("conditions", []).append(wanted | {"lastTransitionTime": now})
        return True
    if all(condition.get(name) == value for name, value in wanted.items()):
        return False
    if condition.get("status") != status:
        condition["lastTransitionTime"] = now
    condition.update(wanted)
    return True
