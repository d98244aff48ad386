"""From an authorized HTTP request to a verb and back: reads options and bodies, picks the handler, writes the answer's form."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from edgekube.api import catalog, decoding, problems, protobuf
from edgekube.api.kind import Kind
from edgekube.api.selectors import parse_fields, parse_labels
from edgekube.apiserver import codec
from edgekube.apiserver.negotiate import JSON, YAML, Output, Shape, body_media, negotiate, object_media
from edgekube.apiserver.operation import IGNORE, Operation
from edgekube.apiserver.registry import too_new
from edgekube.apiserver.request import AnyResponse, Request, Response
from edgekube.apiserver.subdispatch import dispatch_subresource
from edgekube.apiserver.target import truth
from edgekube.apiserver.verbs import listing, watching
from edgekube.apiserver.verbs.create import create
from edgekube.apiserver.verbs.delete import DeleteOptions, delete
from edgekube.apiserver.verbs.deletecollection import delete_collection
from edgekube.apiserver.verbs.metadata import check_name
from edgekube.apiserver.verbs.patching import patch_object
from edgekube.apiserver.verbs.update import update_or_create
from edgekube.apiserver.writeoptions import read_write_options
from edgekube.client.protocol import PatchType
from edgekube.errors import BadRequest, Invalid, MethodNotAllowed, NotFound, Problem

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

_PEOPLE = ("curl", "Wget", "Mozilla/5.0")  # who uses these reads with the eye
_PATCHES = {each.value: each for each in PatchType}
_INCLUDES = ("", "Metadata", "Object", "None")
_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"


async def dispatch(server: "Server", request: Request) -> AnyResponse:
    """Answer a request that has passed the filters. Raises ApiError."""
    target = request.target
    if not target.resource:
        return await server.routes.handle(request)
    kind = server.find_kind(target.group, target.version, target.resource)
    if kind is None:
        raise NotFound.path()
    if kind.deprecated:
        request.warnings.append(kind.deprecated)
    request.protobuf = protobuf.supports(kind.api_version, kind.kind)
    _check_scope(kind, request)
    op = operation(kind, request)
    if target.subresource:
        return await dispatch_subresource(server, request, op)
    if target.verb not in kind.verbs and not (target.verb == "watch" and "watch" in kind.verbs):
        raise MethodNotAllowed
    virtual = server.virtual.get(kind)
    if virtual is not None:
        obj, op.warnings[:] = await read_object(request, op, kind)
        answer = await virtual.create(server, op, obj)
        request.warnings += op.warnings
        return Response(201, codec.render(answer, output_of(request, transform=False)), output_of(request, transform=False).media)
    response = await _VERBS[target.verb](server, request, op)
    request.warnings += op.warnings
    return response


def _check_scope(kind: Kind, request: Request) -> None:
    """Raises NotFound for addresses that upstream has no route for, MethodNotAllowed for writes across namespaces."""
    target = request.target
    if not target.subresource and target.verb in (("create",) if target.name else ("update", "patch")):
        raise MethodNotAllowed
    if kind == catalog.NAMESPACE:
        return
    if not kind.namespaced:
        if target.namespace:
            raise NotFound.path()
    elif not target.namespace:
        if target.verb in ("create", "deletecollection"):
            raise MethodNotAllowed
        if target.verb not in ("list", "watch"):
            raise NotFound.path()


def operation(kind: Kind, request: Request) -> Operation:
    """The options that all verbs share. Raises BadRequest, Invalid."""
    target = request.target
    op = Operation(kind=kind, user=request.user, namespace=target.namespace, name=target.name, subresource=target.subresource)
    op.rest = target.rest
    if kind == catalog.NAMESPACE:  # its path looks like that of something in it
        op.namespace = ""
    if request.method in ("GET", "HEAD"):
        return op
    read_write_options(op, request)
    return op


def output_of(request: Request, *, transform: bool = True) -> Output:
    """The form of the answer. Raises NotAcceptable."""
    output = negotiate(request.headers.get("accept", ""), transform=transform, protobuf=request.protobuf)
    by_a_person = request.headers.get("user-agent", "").startswith(_PEOPLE)
    pretty = truth(request.param("pretty")) if "pretty" in request.query else by_a_person
    include = request.param("includeObject")
    if include not in _INCLUDES and output.shape is Shape.TABLE:
        fault = problems.invalid("includeObject", include, "must be 'Metadata', 'Object', 'None', or empty").message
        raise BadRequest(f"Unable to convert to Table as requested: includeObject: {fault}")
    if not pretty and not include:
        return output
    return Output(output.media, output.shape, output.version, include or output.include, pretty)


async def read_object(request: Request, op: Operation, kind: Kind) -> tuple[dict[str, object], list[str]]:
    media = object_media(request.headers.get("content-type", ""), protobuf=request.protobuf)
    return codec.decode(kind, await request.read_body(), media, op.field_validation)


def _gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


async def _get(server: "Server", request: Request, op: Operation) -> AnyResponse:
    output = output_of(request)
    revision = listing.parse_revision(request.param("resourceVersion"))
    if revision and revision > server.store.revision:
        raise too_new(revision, server.store.revision)
    item = server.registry.get(op.kind, op.namespace, op.name)
    if output.plain:
        return Response(200, item.raw)
    return codec.item_response(op.kind, item, output, server.clock.now().timestamp())


def list_options(request: Request, op: Operation) -> listing.ListOptions:
    param = request.param
    return listing.parse_options(
        op,
        labels=param("labelSelector"),
        fields=param("fieldSelector"),
        limit=param("limit"),
        token=param("continue"),
        revision=param("resourceVersion"),
        match=param("resourceVersionMatch"),
        initial="sendInitialEvents" in request.query,
    )


async def _list(server: "Server", request: Request, op: Operation) -> AnyResponse:
    output = output_of(request)
    found = await listing.list_items(server, op, list_options(request, op))
    body = codec.ListBody(op.kind, found.items, found.metadata(), output, server.clock.now().timestamp())
    return await codec.list_response(body, output, gzip=_gzip(request))


async def _watch(server: "Server", request: Request, op: Operation) -> AnyResponse:
    output = negotiate(request.headers.get("accept", ""), protobuf=request.protobuf)
    if request.param("includeObject"):
        output = output_of(request)
    fields = request.param("fieldSelector")
    if op.name and "metadata.name" not in fields:  # the deprecated /watch/.../name
        fields = f"metadata.name={op.name}" + (f",{fields}" if fields else "")
    initial = truth(request.param("sendInitialEvents")) if "sendInitialEvents" in request.query else None
    try:
        timeout = int(request.param("timeoutSeconds") or 0)
    except ValueError:
        raise BadRequest(f'strconv.ParseInt: parsing "{request.param("timeoutSeconds")}": invalid syntax') from None
    match, revision = request.param("resourceVersionMatch"), request.param("resourceVersion")
    options = watching.WatchOptions(
        listing=listing.ListOptions(
            labels=parse_labels(request.param("labelSelector")),
            fields=parse_fields(fields, op.kind.selectable),
            revision=listing.parse_revision(revision),
            match=match,
        ),
        bookmarks=truth(request.param("allowWatchBookmarks")) if "allowWatchBookmarks" in request.query else False,
        initial=initial,
        timeout=max(timeout, 0),
    )
    return watching.watch(server, op, options, output)


async def _create(server: "Server", request: Request, op: Operation) -> AnyResponse:
    output = output_of(request)
    obj, op.warnings[:] = await read_object(request, op, op.kind)
    item = await create(server, op, obj)
    return codec.item_response(op.kind, item, output, server.clock.now().timestamp(), 201)


async def _update(server: "Server", request: Request, op: Operation) -> AnyResponse:
    output = output_of(request)
    media = object_media(request.headers.get("content-type", ""), protobuf=request.protobuf)
    body = await request.read_body()
    first = [codec.decode(op.kind, body, media, op.field_validation)]
    op.warnings += first[0][1]
    check_name(op, first[0][0])

    def change(_old: dict[str, object]) -> dict[str, object]:
        return first.pop()[0] if first else codec.decode(op.kind, body, media, IGNORE)[0]

    item, created = await update_or_create(server, op, change)
    return codec.item_response(op.kind, item, output, server.clock.now().timestamp(), 201 if created else 200)


def patch_type(request: Request) -> PatchType:
    """Raises UnsupportedMediaType."""
    return _PATCHES[body_media(request.headers.get("content-type", ""), tuple(_PATCHES))]


async def read_patch(request: Request, op: Operation, kind: PatchType) -> object:
    body = await request.read_body()
    media = YAML if kind is PatchType.APPLY and not body.lstrip().startswith(b"{") else JSON
    patch = codec.parse_patch(body, media)
    op.doubles = codec.patch_doubles(body, kind, patch)
    return patch


async def _patch(server: "Server", request: Request, op: Operation) -> AnyResponse:
    output = output_of(request)
    kind = patch_type(request)
    item, created = await patch_object(server, op, kind, await read_patch(request, op, kind))
    return codec.item_response(op.kind, item, output, server.clock.now().timestamp(), 201 if created else 200)


async def _delete(server: "Server", request: Request, op: Operation) -> AnyResponse:
    output = output_of(request)
    options = await delete_options(request, op)
    deleted = await delete(server, op, options)
    body, is_object = deleted.body(op.kind)
    if is_object:
        return codec.item_response(op.kind, deleted.item, output, server.clock.now().timestamp())
    return codec.raw_response(body, Output(media=output.media, pretty=output.pretty))


async def delete_options(request: Request, op: Operation) -> DeleteOptions:
    """From the body, or from the query where there is no body. Raises BadRequest, Invalid."""
    raw = await request.read_body()
    found: dict[str, object] = {}
    if raw.strip():
        found = codec.parse(raw, body_media(request.headers.get("content-type", "")), "DeleteOptions", "v1")
        _check_delete_options(found)
        decoding.clean_as(_DELETE_OPTIONS, "DeleteOptions", "v1", found, mode=IGNORE)
        dry_run = found.get("dryRun")
        if dry_run:
            if dry_run != ["All"]:
                text = f'Unsupported value: {codec.render(dry_run, Output()).decode()}: supported values: "All"'
                raise Invalid.of("meta.k8s.io", "DeleteOptions", "", [Problem("dryRun", "FieldValueNotSupported", text)])
            op.dry_run = True
    else:
        if "gracePeriodSeconds" in request.query:
            try:
                found["gracePeriodSeconds"] = int(request.param("gracePeriodSeconds"))
            except ValueError as error:
                raise BadRequest(str(error)) from None
        if "propagationPolicy" in request.query:
            found["propagationPolicy"] = request.param("propagationPolicy")
        if "orphanDependents" in request.query:
            found["orphanDependents"] = truth(request.param("orphanDependents"))
    return DeleteOptions.of(found)


def _check_delete_options(body: object) -> None:
    """Whoever sends something else did not mean to delete. Raises BadRequest."""
    if not isinstance(body, dict):
        raise BadRequest("the body of the request is not an object")
    kind = body.get("kind") or "DeleteOptions"
    if kind != "DeleteOptions":
        raise BadRequest(f'no kind "{kind}" is registered for version "{body.get("apiVersion") or "v1"}" of delete options')


async def _delete_collection(server: "Server", request: Request, op: Operation) -> AnyResponse:
    output = output_of(request)
    options = await delete_options(request, op)
    found = await delete_collection(server, op, list_options(request, op), options)
    body = codec.ListBody(op.kind, found.items, found.metadata(), output, server.clock.now().timestamp())
    return await codec.list_response(body, output, gzip=_gzip(request))


_Verb = Callable[["Server", Request, Operation], Awaitable[AnyResponse]]
_VERBS: Mapping[str, _Verb] = {
    "get": _get,
    "list": _list,
    "watch": _watch,
    "create": _create,
    "update": _update,
    "patch": _patch,
    "delete": _delete,
    "deletecollection": _delete_collection,
}
