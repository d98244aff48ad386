"""`application/vnd.kubernetes.protobuf`: objects of the built-in kinds as Go's clients send and read them. Pure.

    encode(obj) -> bytes        a body: the 4 bytes `k8s\\0`, then runtime.Unknown {1 {1 apiVersion, 2 kind}, 2 the object's message, 3, 4}
    decode(data, ...) -> obj    the dict that the same object would be in JSON
    watch_frame(...)            one event of a watch: its length in 4 bytes, big-endian, then meta/v1.WatchEvent

Custom resources have no messages (`supports` says so). The types come from prototable, the walk is in protoencode and protodecode.
"""

from collections.abc import Iterable
from typing import Any

from edgekube.api import prototable
from edgekube.api.protodecode import ENVELOPE, MAX_DEPTH, Decoding
from edgekube.api.protoencode import writer
from edgekube.api.protowire import BYTES, Malformed, chunk, read_length, read_tag, skip, tag
from edgekube.api.types import Obj
from edgekube.errors import BadRequest

_ONE, _TWO, _THREE, _FOUR = (tag(number, BYTES) for number in (1, 2, 3, 4))
_SUMMARY = 30


def supports(api_version: str, kind: str) -> bool:
    """Whether the kind has a message."""
    return prototable.find(api_version, kind) is not None


def encode(obj: Obj) -> bytes:
    """A whole body. The kind must be supported. Discovery documents of the core group do not name their version: it is v1."""
    api_version = obj.get("apiVersion") or "v1"
    return envelope(api_version, obj["kind"], message(api_version, obj["kind"], obj))


def message(api_version: str, kind: str, obj: Obj) -> bytes:
    """The bare message, as it stands in lists. The kind must be supported."""
    number = prototable.find(api_version, kind)
    if number is None:
        raise LookupError(f"{api_version} {kind} has no message")
    return writer(number).encode(obj)


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    """A message as a body of its own."""
    about = chunk(_ONE, api_version.encode()) + chunk(_TWO, kind.encode())
    return b"".join((ENVELOPE, chunk(_ONE, about), chunk(_TWO, raw), _THREE, b"\0", _FOUR, b"\0"))


def encode_list(api_version: str, kind: str, metadata: Obj, items: Iterable[bytes]) -> bytes:
    """A list of messages that are encoded already."""
    number = prototable.find(api_version, kind)
    if number is None:
        raise LookupError(f"{api_version} {kind} has no message")
    prefix = tag(prototable.table().fields(number)["items"].number, BYTES)
    head = writer(number).encode({"metadata": metadata})
    return envelope(api_version, kind, head + b"".join([chunk(prefix, item) for item in items]))


def watch_frame(change: str, body: bytes) -> bytes:
    """One event; `body` is what `encode` made of the object."""
    event = chunk(_ONE, change.encode()) + chunk(_TWO, chunk(_ONE, body))
    return len(event).to_bytes(4, "big") + event


def decode(data: bytes, *, api_version: str = "", kind: str = "") -> Obj:
    """The object in a body, apiVersion and kind first. `api_version` and `kind` are what the reader expects: they stand in where the
    body says nothing, and tell in errors what was wanted. Raises BadRequest."""
    about: tuple[str, str] = ("", "")
    try:
        if not data:
            raise Malformed("empty data")
        if not data.startswith(ENVELOPE):
            raise Malformed("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
        if len(data) == len(ENVELOPE):
            raise Malformed("empty body")
        found_version, found_kind, raw = _unwrap(data)
        about = (found_version or api_version, found_kind or kind)
        return _read(*about, raw, 0)
    except Malformed as error:
        if about[1]:
            version = about[0].rpartition("/")[2]
            raise BadRequest(f'{about[1]} in version "{version}" cannot be handled as a {kind or about[1]}: {error}') from error
        shown = data[:_SUMMARY].hex() + (" ..." if len(data) > _SUMMARY else "") if data else "<empty>"
        raise BadRequest(f"the object provided is unrecognized (must be of type {kind}): {error} ({shown})") from error


def _unwrap(data: bytes) -> tuple[str, str, bytes]:
    """(apiVersion, kind, message) of an enveloped body. Raises Malformed."""
    version = kind = ""
    raw = b""
    for number, value in _fields(data, len(ENVELOPE), "Unknown"):
        if number == 1:
            for inner, text in _fields(value, 0, "TypeMeta"):
                if inner == 1:
                    version = text.decode(errors="replace")
                elif inner == 2:
                    kind = text.decode(errors="replace")
        elif number == 2:
            raw = value
    return version, kind, raw


def _fields(data: bytes, at: int, name: str) -> Iterable[tuple[int, bytes]]:
    end = len(data)
    while at < end:
        number, wire, at = read_tag(data, at, end, name)
        if wire == BYTES:
            start, at = read_length(data, at, end)
            yield number, data[start:at]
        else:
            at = skip(data, at, end, wire)


def _read(api_version: str, kind: str, raw: bytes, depth: int) -> Obj:
    if not kind:
        raise Malformed("Object 'Kind' is missing")
    if not api_version:
        raise Malformed("Object 'apiVersion' is missing")
    number = prototable.find(api_version, kind)
    if number is None:
        raise Malformed(f'no kind "{kind}" is registered for version "{api_version}" in scheme "pkg/api/legacyscheme/scheme.go:30"')
    obj: Obj = {"apiVersion": api_version, "kind": kind}
    return Decoding(_open).message(number, raw, 0, len(raw), depth, obj)


def _open(data: bytes, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Malformed("exceeded max depth")
    version, kind, raw = _unwrap(data)
    return _read(version, kind, raw, depth)
