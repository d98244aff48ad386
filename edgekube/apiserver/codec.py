"""Bytes to objects and back: request bodies in JSON, YAML and protobuf, answers as objects, lists, tables or metadata only.

Stored bytes are sent as they are wherever the client asks for plain JSON; everything else is built from a fresh decode. Lists are built in
chunks, so that the loop is never held for long, and compressed in a thread when they are large and the client can unpack them.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import orjson

from edgekube.api import decoding, meta, protobuf, table
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver.negotiate import JSON, PROTOBUF, YAML, Output, Shape
from edgekube.apiserver.request import Response, StreamResponse
from edgekube.client.protocol import PatchType
from edgekube.errors import BadRequest

CHUNK = 50  # objects between two yields to the loop
STREAM_FROM = 256 * 1024
GZIP_FROM = 128 * 1024
PROTOBUF_CHUNK = 15
_SUMMARY = 30


def parse(body: bytes, media: str, kind: str, api_version: str = "") -> Any:
    """The decoded body. Raises BadRequest in the words of upstream's decoder."""
    if media == PROTOBUF:
        return protobuf.decode(body, api_version=api_version, kind=kind)
    if media == YAML:
        return _parse_yaml(body, kind)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = "unexpected end of JSON input" if not body.strip() else str(error)
        text = f"couldn't get version/kind; json parse error: {reason}"
        raise BadRequest(f"the object provided is unrecognized (must be of type {kind}): {text} ({_summary(body)})") from error


def _parse_yaml(body: bytes, kind: str) -> Any:
    import datetime

    import yaml

    try:
        loaded = yaml.load(body, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        text = f"couldn't get version/kind; json parse error: yaml: {error}"
        raise BadRequest(f"the object provided is unrecognized (must be of type {kind}): {text} ({_summary(body)})") from error

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key) if not isinstance(key, bool) else str(key).lower(): plain(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        if isinstance(value, (datetime.datetime, datetime.date)):
            return value.isoformat().replace("+00:00", "Z")
        return value

    return plain(loaded)


def _summary(body: bytes) -> str:
    if not body:
        return "<empty>"
    if body[:1] == b"{":
        text = body[:_SUMMARY].decode(errors="replace")
        return text + " ..." if len(body) > _SUMMARY else text
    return body[:_SUMMARY].hex() + (" ..." if len(body) > _SUMMARY else "")


def parse_patch(body: bytes, media: str) -> Any:
    """The decoded body of a patch. Raises BadRequest."""
    if media == YAML:
        try:
            return _parse_yaml(body, "patch")
        except BadRequest as error:
            raise BadRequest(f"error decoding YAML: {error.message}") from error
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"error decoding patch: {error}") from error


def patch_doubles(body: bytes, kind: PatchType, patch: Any) -> Sequence[str]:
    """The fields that a patch in the shape of an object gives twice."""
    return decoding.duplicates(body, patch) if kind in (PatchType.MERGE, PatchType.STRATEGIC) else ()


def decode(kind: Kind, body: bytes, media: str, mode: str) -> tuple[Obj, list[str]]:
    """The body as a clean object of `kind`, and warnings. Raises BadRequest."""
    obj = parse(body, media, kind.kind, kind.api_version)
    if not isinstance(obj, dict):
        text = "couldn't get version/kind; json parse error: json: cannot unmarshal into Go value of type struct"
        raise BadRequest(f"the object provided is unrecognized (must be of type {kind.kind}): {text} ({_summary(body)})")
    check_type(kind, obj)
    obj.setdefault("metadata", {})
    warnings = decoding.clean(kind, obj, body=body if media == JSON else b"", mode=mode)
    return obj, warnings


def check_type(kind: Kind, obj: Obj) -> None:
    """apiVersion and kind may be missing, but not lie. Puts them first. Raises BadRequest."""
    version, name = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
    if name != kind.kind:
        short = str(version).rpartition("/")[2]
        raise BadRequest(f'{name} in version "{short}" cannot be handled as a {kind.kind}: no kind "{name}" is registered for this address')
    if version != kind.api_version:
        text = f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        raise BadRequest(text)
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind


def to_yaml(value: Any) -> bytes:
    import yaml

    text: str = yaml.dump(value, Dumper=yaml.CSafeDumper, default_flow_style=False, sort_keys=True)
    return text.encode()


def render(value: Any, output: Output) -> bytes:
    """A dict in the wanted syntax."""
    if output.media == YAML:
        return to_yaml(value)
    if output.media == PROTOBUF:
        return protobuf.encode(value)
    if output.pretty:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n"
    return orjson.dumps(value)


def raw_response(raw: bytes, output: Output, status: int = 200) -> Response:
    """An encoded object that is no stored version of a kind (a Status, the answer of a subresource)."""
    if output.media == JSON and not output.pretty:
        return Response(status, raw)
    return Response(status, render(orjson.loads(raw), output), output.media)


def item_bytes(kind: Kind, item: Item, output: Output, now: float) -> bytes:
    """One object in the wanted form."""
    if output.plain:
        return item.raw
    if output.shape is Shape.OBJECT:
        return render(item.decode(), output)
    if output.shape is Shape.PARTIAL:
        return render(partial(item, output), output)
    return render(table.render(kind, [item.decode()], now=now, include=output.include, version=output.group_version), output)


def item_response(kind: Kind, item: Item, output: Output, now: float, status: int = 200) -> Response:
    return Response(status, item_bytes(kind, item, output, now), output.media)


def answer_response(kind: Kind, answer: Obj, output: Output, now: float, status: int) -> Response:
    """What a subresource answered: the parent's kind may be shown in any form, all else as it is."""
    if output.shape is not Shape.OBJECT and answer.get("kind") == kind.kind and answer.get("apiVersion") == kind.api_version:
        item = meta.item_of(kind, meta.encode(answer), 0, answer)
        return item_response(kind, item, output, now, status)
    plain = Output(media=output.media, pretty=output.pretty)
    return Response(status, render(answer, plain), output.media)


def partial(item: Item, output: Output) -> Obj:
    """PartialObjectMetadata of an item."""
    return {"kind": "PartialObjectMetadata", "apiVersion": output.group_version, "metadata": item.decode()["metadata"]}


class ListBody:
    """The pieces of a list answer."""

    def __init__(self, kind: Kind, items: Sequence[Item], metadata: dict[str, Any], output: Output, now: float) -> None:
        self._kind, self._items, self._metadata, self._output, self._now = kind, items, metadata, output, now

    def pieces(self) -> Iterator[bytes]:
        """The answer in pieces of at most CHUNK objects."""
        if self._output.media == YAML:
            yield from self._yaml_pieces()
            return
        if self._output.media == PROTOBUF:
            yield from self._protobuf_pieces()
            return
        head, tail = self._frame()
        yield head
        between = b",\n    " if self._output.pretty else b","
        for start in range(0, len(self._items), CHUNK):
            chunk = self._encoded(self._items[start : start + CHUNK])
            if self._output.pretty:
                chunk = [orjson.dumps(orjson.loads(raw), option=orjson.OPT_INDENT_2).replace(b"\n", b"\n    ") for raw in chunk]
            yield (between if start else b"") + between.join(chunk)
        yield tail

    def _yaml_pieces(self) -> Iterator[bytes]:
        frame = orjson.loads(b"".join(self._frame(pretty=False)))
        name = "rows" if "rows" in frame else "items"
        del frame[name]
        yield to_yaml(frame)
        yield b"%b:%b\n" % (name.encode(), b"" if self._items else b" []")
        for item in self._items:
            yield to_yaml([orjson.loads(raw) for raw in self._encoded([item])])

    def _protobuf_pieces(self) -> Iterator[bytes]:
        """All at once, as the envelope begins with the length; the empty pieces before are pauses."""
        partial_only = self._output.shape is Shape.PARTIAL
        version, kind = self._kind.api_version, self._kind.kind
        if partial_only:
            version, kind = self._output.group_version, "PartialObjectMetadata"
        encoded: list[bytes] = []
        for item in self._items:
            encoded.append(protobuf.message(version, kind, item.decode()))
            if len(encoded) % PROTOBUF_CHUNK == 0:
                yield b""
        yield protobuf.encode_list(version, f"{kind}List", self._metadata, encoded)

    def _frame(self, *, pretty: bool | None = None) -> tuple[bytes, bytes]:
        kind, output = self._kind, self._output
        frame: Obj
        if output.shape is Shape.TABLE:
            frame = table.render(kind, [], now=self._now, metadata=self._metadata, version=output.group_version)
            frame["rows"] = frame.pop("rows")
        elif output.shape is Shape.PARTIAL:
            frame = {"kind": "PartialObjectMetadataList", "apiVersion": output.group_version, "metadata": self._metadata, "items": []}
        else:
            frame = {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": self._metadata, "items": []}
        if output.pretty if pretty is None else pretty:
            whole = orjson.dumps(frame, option=orjson.OPT_INDENT_2)
            return whole[:-3] + (b"\n    " if self._items else b""), (b"\n  " if self._items else b"") + b"]\n}\n"
        return orjson.dumps(frame)[:-2], b"]}"

    def _encoded(self, items: Sequence[Item]) -> list[bytes]:
        output = self._output
        if output.shape is Shape.OBJECT:
            return [item.raw for item in items]
        if output.shape is Shape.PARTIAL:
            return [orjson.dumps(partial(item, output)) for item in items]
        objs = [item.decode() for item in items]
        part = table.render(self._kind, objs, now=self._now, include=output.include, headers=False, version=output.group_version)
        return [orjson.dumps(row) for row in part["rows"]]

    @property
    def size(self) -> int:
        """About how large it will be."""
        return sum(len(item.raw) for item in self._items)


async def list_response(body: ListBody, output: Output, *, gzip: bool) -> Response | StreamResponse:
    """A whole answer where it is small, else one in chunks."""
    size = body.size
    if size < STREAM_FROM and not (gzip and size >= GZIP_FROM) and output.media != YAML:
        return Response(200, b"".join(body.pieces()), output.media)
    if gzip and size >= GZIP_FROM:
        return StreamResponse(200, _gzipped(body.pieces()), output.media, {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
    return StreamResponse(200, _breathing(body.pieces()), output.media)


async def _breathing(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def _gzipped(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(4, zlib.DEFLATED, 31)
    for piece in pieces:
        packed = await asyncio.to_thread(packer.compress, piece)
        if packed:
            yield packed
    yield packer.flush()
