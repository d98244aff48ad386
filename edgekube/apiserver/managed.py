"""metadata.managedFields: who changed what, for every write that names a manager.

What the process itself creates names none and is not tracked: that keeps half of every pod's bytes out of memory. An object that clients
track stays tracked, whoever writes it.
"""

import orjson

from edgekube.api import apply as fieldmanagement
from edgekube.api import decoding
from edgekube.api.types import Obj
from edgekube.apiserver.operation import IGNORE, Operation
from edgekube.lib.clock import Clock, rfc3339


def created(op: Operation, obj: Obj, clock: Clock) -> None:
    """Record a new object's fields, in place."""
    if op.applying:
        return
    if not op.field_manager:
        obj["metadata"].pop("managedFields", None)
        return
    tracked = fieldmanagement.track_update(op.kind, None, obj, manager=op.field_manager, now=rfc3339(clock.now()))
    obj["metadata"] = tracked["metadata"]


def updated(op: Operation, new: Obj, old: Obj, clock: Clock) -> None:
    """Record what an update changed, in place in `new`."""
    if op.applying or ("managedFields" not in old["metadata"] and "managedFields" not in new["metadata"]):
        return
    manager = op.field_manager or op.user.name.rpartition(":")[2]
    tracked = fieldmanagement.track_update(op.kind, old, new, manager=manager, now=rfc3339(clock.now()), subresource=op.subresource)
    new["metadata"] = tracked["metadata"]


def apply(op: Operation, live: Obj | None, wanted: Obj, clock: Clock) -> Obj:
    """What server-side apply makes of `live`, clean. Raises BadRequest, Conflict."""
    op.applying = True
    config = orjson.loads(orjson.dumps(wanted))  # what is applied becomes part of the object and is changed with it
    now = rfc3339(clock.now())
    result = fieldmanagement.apply_patch(
        op.kind, live, config, manager=op.field_manager, force=op.force, now=now, subresource=op.subresource
    )
    result = {**result, "metadata": dict(result["metadata"])}
    decoding.clean_patched(op.kind, result, mode=IGNORE)
    return result
