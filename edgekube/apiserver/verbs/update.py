"""update: replace an object or its status by what a function makes of the current one. PUT, PATCH and apply all end here.

newest version -> change -> checks -> defaults -> admission -> prepare -> validate -> admission -> compare-and-swap
                     ^------------------------- somebody was faster --------------------------------------|
"""

from typing import TYPE_CHECKING

from edgekube.api import meta
from edgekube.api.item import Item
from edgekube.api.types import Obj
from edgekube.apiserver import managed
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.subresources.protocol import Change
from edgekube.apiserver.verbs.create import create
from edgekube.apiserver.verbs.finalizers import emptied
from edgekube.apiserver.verbs.metadata import bump_generation, carry_over, check_revision, place, precondition_failed, raise_if_invalid
from edgekube.apiserver.verbs.objectmeta import object_meta_update
from edgekube.errors import Conflict, NotFound

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

_ATTEMPTS = 25  # only a writer that is slower than everybody else's admission needs more than one


async def update(server: "Server", op: Operation, change: Change) -> Item:
    """`change` gets a fresh dict of the newest version and returns the wanted one; both belong to this call. Raises NotFound, Conflict,
    Invalid, what admission says."""
    try:
        return await _update(server, op, change)
    finally:
        op.finish()


async def update_or_create(server: "Server", op: Operation, change: Change) -> tuple[Item, bool]:
    """PUT: for some kinds it creates what is not there. Returns whether it did."""
    try:
        return await update(server, op, change), False
    except NotFound:
        if not op.kind.allow_create_on_update:
            raise
    server.authorize(op.user, "create", op)
    obj = change({})
    metadata = obj["metadata"]
    if metadata.get("uid"):
        raise precondition_failed(op, f"UID in precondition: {metadata['uid']}, UID in object meta: ")
    metadata.pop("resourceVersion", None)
    return await create(server, op, obj), True


async def _update(server: "Server", op: Operation, change: Change) -> Item:
    for attempt in range(_ATTEMPTS):
        current = server.registry.latest(op.kind, op.namespace, op.name)
        new = change(current.decode())
        old = current.decode()
        durable = await _prepared(server, op, new, old)
        if op.dry_run:
            return meta.item_of(op.kind, meta.encode(new), current.revision, new)
        if new == old:
            return current
        try:
            if emptied(op.kind, new, old):
                return await server.registry.delete(op.kind, new, current.revision)
            return await server.registry.update(op.kind, new, current.revision, durable=durable)
        except Conflict:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


async def _prepared(server: "Server", op: Operation, new: Obj, old: Obj) -> bool:
    """Bring `new` to what would be stored. Returns whether the write must reach the disk."""
    kind, status = op.kind, op.subresource == "status"
    apart = kind.apart.get(op.subresource)
    finalize = op.subresource == "finalize"
    place(op, new)
    check_revision(op, new, old)
    carry_over(kind, new, old)
    if finalize:
        _only_finalizers(new, old)
    elif status:
        _only_status(new, old)
    elif kind.has_status and apart is None:
        _keep_status(new, old)
    kind.default(new)
    await server.mutate(op, "UPDATE", new, old)
    if status:
        kind.prepare_status(new, old)
    elif apart is not None:
        apart.prepare(new, old)
    elif not finalize:
        kind.prepare(new, old)
        bump_generation(kind, new, old)
    managed.updated(op, new, old, server.clock)
    check = kind.validate_status if status else apart.validate if apart is not None else kind.validate
    raise_if_invalid(kind, op.name, [*object_meta_update(kind, new, old), *check(new, old)])
    await server.admit(op, "UPDATE", new, old)
    return not (status and kind.ephemeral_status(new, old))


def _only_status(new: Obj, old: Obj) -> None:
    """The status subresource writes status; metadata is the kind's own matter, all else stays."""
    for name in [name for name in new if name not in ("metadata", "status")]:
        if name not in old:
            del new[name]
    for name, value in old.items():
        if name not in ("metadata", "status"):
            new[name] = value


def _only_finalizers(new: Obj, old: Obj) -> None:
    """namespaces/finalize writes spec.finalizers and nothing else."""
    finalizers = (new.get("spec") or {}).get("finalizers")
    metadata = new["metadata"]
    new.clear()
    new.update(old)
    new["metadata"] = {**old["metadata"], "resourceVersion": metadata["resourceVersion"]}
    new["spec"] = {name: value for name, value in (old.get("spec") or {}).items() if name != "finalizers"}
    if finalizers:
        new["spec"]["finalizers"] = finalizers


def _keep_status(new: Obj, old: Obj) -> None:
    """Only the status subresource writes status."""
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)
