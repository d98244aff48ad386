"""scale: replicas as autoscaling/v1 Scale, the same for every kind that has them."""

from typing import TYPE_CHECKING, Any

from edgekube.api import decoding
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver import managed
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.subresources.protocol import Change, Subresource
from edgekube.errors import BadRequest, Invalid, Problem

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server


class ScaleSubresource(Subresource):
    """Of every kind that declares a Scale."""

    name = "scale"
    schema = "io.k8s.api.autoscaling.v1.Scale"

    async def get(self, server: "Server", op: Operation) -> Obj:
        return scale_of(op.kind, server.registry.get(op.kind, op.namespace, op.name).decode())

    async def update(self, server: "Server", op: Operation, change: Change) -> Obj:
        from edgekube.apiserver.verbs.update import update

        applies = op.applying

        def apply(current: Obj) -> Obj:
            wanted = change(scale_of(op.kind, current))
            _check(op, wanted)
            return _applied(server, op, current, wanted) if applies else _scaled(op.kind, current, wanted)

        item = await update(server, op, apply)
        return scale_of(op.kind, item.decode())


def scale_of(kind: Kind, obj: Obj) -> Obj:
    """The Scale that an object shows."""
    metadata = obj["metadata"]
    shown = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp") if name in metadata}
    scale = kind.scale
    if scale is None:
        raise AssertionError(f"{kind.plural} have no scale")
    status: dict[str, Any] = {"replicas": _at(obj, scale.status_replicas) or 0}
    selector = scale.selector(obj)
    if selector:
        status["selector"] = selector
    replicas = _at(obj, scale.replicas)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": shown,
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def _check(op: Operation, wanted: Obj) -> None:
    """Raises BadRequest, Invalid."""
    version, name = wanted.get("apiVersion", "autoscaling/v1"), wanted.get("kind", "Scale")
    if name != "Scale" or not str(version).startswith(("autoscaling/", "extensions/", "apps/")):
        raise BadRequest(f"the object provided is unrecognized (must be of type Scale): got {version}/{name}")
    op.warnings += decoding.clean_as(ScaleSubresource.schema, "Scale", "v1", wanted, mode=op.field_validation)
    metadata = wanted.get("metadata") or {}
    if metadata.get("name", op.name) != op.name:
        raise BadRequest(f"the name of the object ({metadata['name']}) does not match the name on the URL ({op.name})")
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        problem = Problem("spec.replicas", "FieldValueInvalid", f"Invalid value: {replicas}: must be greater than or equal to 0")
        raise Invalid.of("autoscaling", "Scale", op.name, [problem])


def _applied(server: "Server", op: Operation, current: Obj, wanted: Obj) -> Obj:
    """Applying a Scale is applying the number of replicas to its object: other managers' fields conflict, as they do there."""
    metadata: Obj = {"name": op.name, "namespace": op.namespace}
    config = {"apiVersion": op.kind.api_version, "kind": op.kind.kind, "metadata": metadata}
    if "replicas" in (wanted.get("spec") or {}):
        return managed.apply(op, current, _scaled(op.kind, config, wanted), server.clock)
    return managed.apply(op, current, config, server.clock)


def _scaled(kind: Kind, obj: Obj, wanted: Obj) -> Obj:
    """`obj` with the replicas and the preconditions that `wanted` has, in place."""
    metadata = wanted.get("metadata") or {}
    for field in ("resourceVersion", "uid"):
        if metadata.get(field):
            obj["metadata"][field] = metadata[field]
    if kind.scale is None:
        raise AssertionError(f"{kind.plural} have no scale")
    *path, last = kind.scale.replicas
    inner = obj
    for step in path:
        inner = inner.setdefault(step, {})
    inner[last] = (wanted.get("spec") or {}).get("replicas", 0)
    return obj


def _at(obj: Obj, path: tuple[str, ...]) -> Any:
    found: Any = obj
    for step in path:
        found = (found or {}).get(step)
    return found
