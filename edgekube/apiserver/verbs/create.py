"""create: a new object, or the whole list of what is wrong with it."""

import copy
from typing import TYPE_CHECKING

from edgekube.api import meta
from edgekube.api.item import Item
from edgekube.api.types import Obj
from edgekube.apiserver import managed
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.verbs.metadata import fill_new, generate_name, place, raise_if_invalid
from edgekube.apiserver.verbs.objectmeta import object_meta
from edgekube.errors import AlreadyExists, ApiError

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

_NAME_ATTEMPTS = 8


class _Unclassified(ApiError):
    """Upstream refuses some requests with a bare 500 and no reason."""

    reason = ""


async def create(server: "Server", op: Operation, obj: Obj) -> Item:
    """Store `obj`, which has passed the schema and belongs to this call. Raises AlreadyExists, Invalid, what admission says."""
    metadata = place(op, obj)
    if metadata.get("resourceVersion"):
        raise _Unclassified("resourceVersion should not be set on objects to be created")
    op.name = metadata.get("name", "")
    if op.name or not metadata.get("generateName"):
        return await _create(server, op, obj)
    for _ in range(_NAME_ATTEMPTS - 1):
        try:
            return await _create(server, op, copy.deepcopy(obj))
        except AlreadyExists:
            continue
    return await _create(server, op, obj)


async def _create(server: "Server", op: Operation, obj: Obj) -> Item:
    try:
        return await _attempt(server, op, obj)
    finally:
        op.finish()


async def _attempt(server: "Server", op: Operation, obj: Obj) -> Item:
    kind, metadata = op.kind, obj["metadata"]
    kind.default(obj)
    await server.mutate(op, "CREATE", obj, None)
    fill_new(obj, server.clock)
    generated = not metadata.get("name") and bool(metadata.get("generateName"))
    if generated:
        metadata["name"] = generate_name(metadata["generateName"])
    if kind.has_generation:
        metadata["generation"] = 1
    kind.prepare(obj, None)
    managed.created(op, obj, server.clock)
    name = metadata.get("name", "")
    raise_if_invalid(kind, name, [*object_meta(kind, obj), *kind.validate(obj, None)])
    await server.admit(op, "CREATE", obj, None)
    if op.dry_run:
        if server.registry.find(kind, metadata.get("namespace", ""), name) is not None:
            raise AlreadyExists.of(kind.group, kind.plural, name)
        return meta.item_of(kind, meta.encode(obj), 0, obj)
    try:
        return await server.registry.create(kind, obj)
    except AlreadyExists as error:
        raise _explained(server, op, obj, generated, error) from error


def _explained(server: "Server", op: Operation, obj: Obj, generated: bool, error: AlreadyExists) -> AlreadyExists:
    kind, name = op.kind, obj["metadata"]["name"]
    if generated:
        text = f"{error.message}, the server was not able to generate a unique name for the object"
        return AlreadyExists(text, details=(error.details or {}) | {"retryAfterSeconds": 1})
    there = server.registry.find(kind, obj["metadata"].get("namespace", ""), name)
    if there is not None and there.deleting:
        return AlreadyExists(f"object is being deleted: {error.message}", details=error.details)
    return error
