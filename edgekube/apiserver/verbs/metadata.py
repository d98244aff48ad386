"""What the server itself writes into metadata, and the order of checks that every write shares.

Source of the rules: k8s.io/apiserver/pkg/registry/rest (create.go, update.go, meta.go) and registry/generic/registry/store.go.
"""

import random
import uuid
from collections.abc import Iterable
from typing import Any

from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation
from edgekube.errors import BadRequest, Conflict, Invalid, Problem
from edgekube.lib.clock import Clock, rfc3339

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
RANDOM_LENGTH = 5
MAX_GENERATED = 63
_SYSTEM = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def generate_name(prefix: str) -> str:
    """`prefix` shortened so that the five random characters fit a DNS label."""
    return prefix[: MAX_GENERATED - RANDOM_LENGTH] + "".join(random.choices(ALPHABET, k=RANDOM_LENGTH))


def place(op: Operation, obj: Obj) -> dict[str, Any]:
    """Make the object's namespace agree with the request's; returns its metadata. Raises BadRequest."""
    metadata: dict[str, Any] = obj.setdefault("metadata", {})
    if not op.kind.namespaced:
        metadata.pop("namespace", None)
        return metadata
    found = metadata.get("namespace", "")
    if not found:
        metadata["namespace"] = op.namespace
    elif found != op.namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    return metadata


def fill_new(obj: Obj, clock: Clock) -> None:
    """Identity and birth of a new object."""
    metadata = obj["metadata"]
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        metadata.pop(name, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = rfc3339(clock.now())


def carry_over(kind: Kind, new: Obj, old: Obj) -> None:
    """What an update keeps unless it says otherwise, and what it can not set at all."""
    metadata, before = new["metadata"], old["metadata"]
    metadata.pop("selfLink", None)
    for name in _SYSTEM:
        if name in before and not metadata.get(name):
            metadata[name] = before[name]
    if "generation" in before:
        metadata["generation"] = before["generation"]
    else:
        metadata.pop("generation", None)


def bump_generation(kind: Kind, new: Obj, old: Obj) -> None:
    """metadata.generation counts changes of what is desired."""
    if kind.has_generation and _desired(new) != _desired(old):
        new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


def _desired(obj: Obj) -> Obj:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}


def check_revision(op: Operation, new: Obj, old: Obj) -> None:
    """Optimistic concurrency as clients use it. Raises Conflict, or Invalid where a kind insists on a resourceVersion."""
    metadata, before = new["metadata"], old["metadata"]
    uid = metadata.get("uid")
    if uid and uid != before.get("uid"):
        raise precondition_failed(op, f"UID in precondition: {uid}, UID in object meta: {before.get('uid', '')}")
    revision = metadata.get("resourceVersion") or ""
    if revision in ("", "0"):
        if not op.kind.unconditional_update:
            problem = Problem("metadata.resourceVersion", "FieldValueInvalid", "Invalid value: 0: must be specified for an update")
            raise Invalid.of(op.kind.group, op.kind.plural, op.name, [problem])
    elif not revision.isdigit():
        why = f'strconv.ParseUint: parsing "{revision}": invalid syntax'
        problem = Problem("metadata.resourceVersion", "FieldValueInvalid", f'Invalid value: "{revision}": {why}')
        raise Invalid.of(op.kind.group, op.kind.kind, op.name, [problem])
    elif revision != before["resourceVersion"]:
        raise Conflict.modified(op.kind.group, op.kind.plural, op.name)
    metadata["resourceVersion"] = before["resourceVersion"]


def precondition_failed(op: Operation, why: str) -> Conflict:
    path = "/".join(filter(None, ("", "registry", op.kind.plural, op.namespace, op.name)))
    text = f"StorageError: invalid object, Code: 4, Key: /{path}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {why}"
    return Conflict.of(op.kind.group, op.kind.plural, op.name, text)


def check_name(op: Operation, obj: Obj) -> None:
    """The body of an update must name what the address names. Raises BadRequest."""
    metadata = obj.get("metadata") or {}
    name, namespace = metadata.get("name", ""), metadata.get("namespace", "")
    if not name:
        raise BadRequest(f"the name of the object ({op.name} based on URL) was undeterminable: name must be provided")
    if name != op.name:
        raise BadRequest(f"the name of the object ({name}) does not match the name on the URL ({op.name})")
    if op.namespace and namespace and namespace != op.namespace:
        raise BadRequest(f"the namespace of the object ({namespace}) does not match the namespace on the request ({op.namespace})")


def raise_if_invalid(kind: Kind, name: str, problems: Iterable[Problem]) -> None:
    """All problems at once, as Invalid."""
    found = list(problems)
    if found:
        raise Invalid.of(kind.group, kind.kind, name, found)
