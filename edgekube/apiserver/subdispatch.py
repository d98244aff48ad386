"""Subresources over HTTP: the same reading and writing as for objects, the work in their own handlers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from edgekube.api import decoding
from edgekube.api.types import Obj
from edgekube.apiserver import codec, managed
from edgekube.apiserver.negotiate import JSON, YAML, Output, body_media, negotiate, object_media
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.request import AnyResponse, Request
from edgekube.apiserver.subresources.protocol import Subresource
from edgekube.apiserver.target import truth
from edgekube.apiserver.verbs.metadata import check_name
from edgekube.apiserver.verbs.patching import applied_object, changer, require_manager
from edgekube.client.protocol import PatchType
from edgekube.errors import BadRequest, MethodNotAllowed, NotFound

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

_PATCHES = {each.value: each for each in PatchType}
OWN_BODY = frozenset(("status", "finalize", "approval"))  # the body is the parent itself


async def dispatch_subresource(server: "Server", request: Request, op: Operation) -> AnyResponse:
    """Raises NotFound, MethodNotAllowed, what the subresource says."""
    handler = server.subresource(op.kind, op.subresource)
    if handler is None:
        raise NotFound.path()
    if handler.streams:
        return await handler.connect(server, op, request)
    output = negotiate(request.headers.get("accept", ""), protobuf=request.protobuf)
    output = Output(media=output.media, shape=output.shape, version=output.version, pretty=truth(request.param("pretty", "false")))
    status = 200
    match request.target.verb:
        case "get":
            answer = await handler.get(server, op)
        case "create":
            status = 201
            answer = await handler.create(server, op, await _read(request, op, handler))
        case "update":
            answer = await handler.update(server, op, await _replacement(request, op, handler))
        case "patch":
            answer = await handler.update(server, op, await _patch(server, request, op, handler))
        case _:
            raise MethodNotAllowed
    request.warnings += op.warnings
    return codec.answer_response(op.kind, answer, output, server.clock.now().timestamp(), status)


async def _read(request: Request, op: Operation, handler: Subresource) -> Obj:
    media = object_media(request.headers.get("content-type", ""), protobuf=request.protobuf)
    raw = await request.read_body()
    return _decoded(raw, media, op, handler)


def _decoded(raw: bytes, media: str, op: Operation, handler: Subresource) -> Obj:
    if handler.name in OWN_BODY:
        obj, warnings = codec.decode(op.kind, raw, media, op.field_validation)
        op.warnings[:] = warnings
        return obj
    obj = codec.parse(raw, media, handler.schema.rpartition(".")[2] or op.kind.kind)
    if not isinstance(obj, dict):
        raise BadRequest("the body of the request is not an object")
    if handler.schema:
        name = handler.schema.rpartition(".")[2]
        version = handler.schema.split(".")[-2]
        op.warnings[:] = decoding.clean_as(handler.schema, name, version, obj, body=raw if media == JSON else b"", mode=op.field_validation)
    return obj


async def _replacement(request: Request, op: Operation, handler: Subresource) -> Callable[[Obj], Obj]:
    media = object_media(request.headers.get("content-type", ""), protobuf=request.protobuf)
    raw = await request.read_body()
    first = [_decoded(raw, media, op, handler)]
    if handler.name in OWN_BODY:
        check_name(op, first[0])

    def change(_old: Obj) -> Obj:
        return first.pop() if first else _decoded(raw, media, op, handler)

    return change


async def _patch(server: "Server", request: Request, op: Operation, handler: Subresource) -> Callable[[Obj], Obj]:
    kind = _PATCHES[body_media(request.headers.get("content-type", ""), tuple(_PATCHES))]
    raw = await request.read_body()
    media = YAML if kind is PatchType.APPLY and not raw.lstrip().startswith(b"{") else JSON
    patch = codec.parse_patch(raw, media)
    op.doubles = codec.patch_doubles(raw, kind, patch)
    return patch_change(server, op, handler, kind, patch)


def patch_change(server: "Server", op: Operation, handler: Subresource, kind: PatchType, body: Any) -> Callable[[Obj], Obj]:
    """The patch of a subresource as a function of its current body."""
    if kind is not PatchType.APPLY:
        return changer(op, kind, body, "" if handler.name in OWN_BODY else handler.schema)
    if handler.name == "scale":
        require_manager(op)
        if not isinstance(body, dict):
            raise BadRequest("error decoding YAML: the body is not an object")
        op.applying = True
        raw = orjson.dumps(body)
        return lambda _old: orjson.loads(raw)
    if handler.name not in OWN_BODY:
        return changer(op, PatchType.MERGE, body, handler.schema)
    wanted = applied_object(op, body)

    def change(old: Obj) -> Obj:
        return managed.apply(op, old, wanted, server.clock)

    return change
