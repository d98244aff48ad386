"""patch: what the four kinds of patch make of the current object; the write itself is update's.

json-patch, merge-patch, strategic-merge-patch   need the object; again on the newest version when somebody was faster
apply-patch                                      server-side apply: creates what is not there
"""

from typing import TYPE_CHECKING, Any

import orjson

from edgekube.api import decoding, patch, problems
from edgekube.api.item import Item
from edgekube.api.schema import SCHEMA
from edgekube.api.strategic import strategic_merge
from edgekube.api.types import Obj
from edgekube.apiserver import managed
from edgekube.apiserver.codec import check_type
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.subresources.protocol import Change
from edgekube.apiserver.verbs.create import create
from edgekube.apiserver.verbs.metadata import check_name
from edgekube.apiserver.verbs.update import update
from edgekube.client.protocol import PatchType
from edgekube.errors import AlreadyExists, BadRequest, Invalid, NotFound, UnsupportedMediaType

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server


def changer(op: Operation, patch_type: PatchType, body: Any, schema: str = "") -> Change:
    """The patch as a function of the current object. Its result is clean and still names the same object."""
    definition = schema or op.kind.schema
    fresh = orjson.dumps(body)  # what a patch brings in becomes part of the object and is changed with it

    def change(old: Obj) -> Obj:
        new = _patched(op, definition, old, patch_type, orjson.loads(fresh))
        if not isinstance(new, dict):
            raise BadRequest("the patch does not leave an object")
        _keep_identity(op, new, old)
        if not schema:
            op.warnings[:] = decoding.clean_patched(op.kind, new, doubles=op.doubles, mode=op.field_validation)
        return new

    return change


def _patched(op: Operation, definition: str, old: Obj, patch_type: PatchType, body: Any) -> Obj:
    match patch_type:
        case PatchType.JSON:
            return patch.json_patch(old, body)
        case PatchType.MERGE:
            return patch.merge_patch(old, body)
        case PatchType.STRATEGIC:
            struct = SCHEMA.struct(definition)
            if struct is None:
                text = f"the body of the request was in an unknown format - accepted media types include: {PatchType.JSON.value}"
                raise UnsupportedMediaType(f"{text}, {PatchType.MERGE.value}, {PatchType.APPLY.value}")
            return strategic_merge(struct, old, body)
        case PatchType.APPLY:
            raise AssertionError("apply has its own way")


def _keep_identity(op: Operation, new: Obj, old: Obj) -> None:
    """A patch may not turn the object into another one."""
    metadata = new.get("metadata")
    if not isinstance(metadata, dict):
        raise BadRequest("the patch removes the object's metadata")
    if new.get("kind") != old.get("kind") or new.get("apiVersion") != old.get("apiVersion"):
        check_type(op.kind, new)
    check_name(op, new)


async def patch_object(server: "Server", op: Operation, patch_type: PatchType, body: Any) -> tuple[Item, bool]:
    """Patch the object itself or its status. Returns whether it was created."""
    if patch_type is not PatchType.APPLY:
        return await update(server, op, changer(op, patch_type, body)), False
    return await _apply(server, op, body)


async def _apply(server: "Server", op: Operation, body: Any) -> tuple[Item, bool]:
    wanted = applied_object(op, body)

    def change(old: Obj) -> Obj:
        return managed.apply(op, old, wanted, server.clock)

    for _ in range(3):  # created and deleted by others in between: each turn sees another state
        try:
            return await update(server, op, change), False
        except NotFound:
            if wanted["metadata"].get("uid"):
                raise
        try:
            server.authorize(op.user, "create", op)
            fresh = managed.apply(op, None, wanted, server.clock)
            return await create(server, op, fresh), True
        except AlreadyExists:
            continue
    raise NotFound.of(op.kind.group, op.kind.plural, op.name)


def applied_object(op: Operation, body: Any) -> Obj:
    """The body of an apply, checked. Raises BadRequest, Invalid."""
    if not isinstance(body, dict):
        raise BadRequest("error decoding YAML: the body is not an object")
    require_manager(op)
    for name in ("apiVersion", "kind"):
        if not body.get(name):
            raise BadRequest(f"invalid object: {name} must be set")
    check_type(op.kind, body)
    metadata = body.setdefault("metadata", {})
    metadata.setdefault("name", op.name)
    if op.kind.namespaced:
        metadata.setdefault("namespace", op.namespace)
    check_name(op, body)
    if metadata.get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    return body


def require_manager(op: Operation) -> None:
    """Who applies says who it is. Raises Invalid."""
    if not op.field_manager:
        raise Invalid.of("meta.k8s.io", "PatchOptions", "", [problems.required("fieldManager", "is required for apply patch")])
