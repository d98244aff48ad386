"""Turns a client's body into a clean object, or refuses it as kube-apiserver does: types, unknown fields, duplicate fields.

`fieldValidation` decides what happens to unknown and duplicate fields: Ignore drops them in silence, Warn (the default) drops them and
returns a warning each, Strict refuses the request. Values of a wrong type are always refused.
"""

import json
from collections.abc import Sequence
from typing import Any

import orjson

from edgekube.api.kind import Kind
from edgekube.api.schema import SCHEMA
from edgekube.api.types import Obj
from edgekube.api.walk import strict_path
from edgekube.errors import BadRequest, Invalid, Problem

IGNORE, WARN, STRICT = "Ignore", "Warn", "Strict"


def clean(kind: Kind, obj: Obj, *, body: bytes = b"", mode: str = WARN) -> list[str]:
    """Check and clean `obj` in place. Returns warnings (without the `299 - ` header syntax).

    `body` is the JSON that `obj` was decoded from, for finding duplicate fields; leave it out where there is none (patch results).
    Raises BadRequest.
    """
    return clean_as(kind.schema, kind.kind, kind.version, obj, body=body, mode=mode)


def clean_as(definition: str, kind: str, version: str, obj: Obj, *, body: bytes = b"", mode: str = WARN) -> list[str]:
    """The same for an object that is no resource of its own: Scale, Eviction, DeleteOptions, reviews."""
    doubles = duplicates(body, obj) if body and mode != IGNORE else []
    found = SCHEMA.check(definition, obj)
    if found.error:
        raise BadRequest(f'{kind} in version "{version}" cannot be handled as a {kind}: {found.error}')
    if mode == IGNORE:
        return []
    faults = [f'unknown field "{path}"' for path in found.unknown] + [f'duplicate field "{path}"' for path in doubles]
    if faults and mode == STRICT:
        raise BadRequest(f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: {", ".join(faults)}')
    return faults


def clean_patched(kind: Kind, obj: Obj, *, doubles: Sequence[str] = (), mode: str = WARN) -> list[str]:
    """The same for the result of a patch, which is refused as Invalid. `doubles`: duplicate fields of the patch itself."""
    given = orjson.dumps(obj)  # the refusal shows the object as the patch made it; the check cleans it
    found = SCHEMA.check(kind.schema, obj)
    faults = [] if mode == IGNORE else [f'duplicate field "{path}"' for path in doubles]
    faults += [] if mode == IGNORE else [f'unknown field "{path}"' for path in found.unknown]
    error = found.error
    if faults and mode == STRICT and not error:
        error = f"strict decoding error: {', '.join(faults)}"
    if error:
        shown = json.dumps(given.decode(), ensure_ascii=False)
        raise Invalid.of("", "", "", [Problem("patch", "FieldValueInvalid", f"Invalid value: {shown}: {error}")])
    return faults


def duplicates(body: bytes, obj: Any) -> list[str]:
    """Paths of the keys that occur twice in one JSON object of `body`. `obj` must be the untouched result of decoding it.

    Cheap in the usual case: encoding `obj` again gives as many `":` as the body has, unless a key was there twice.
    """
    if body.count(b'":') == orjson.dumps(obj).count(b'":') and b'" :' not in body:
        return []
    found: list[str] = []
    _collect(json.loads(body, object_pairs_hook=_Pairs), None, found)
    return found


class _Pairs:
    """A JSON object with all its keys in order, doubles included."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _collect(value: Any, path: tuple[Any, Any] | None, found: list[str]) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        told: set[str] = set()
        for key, inner in value.pairs:
            if key in seen and key not in told:
                told.add(key)
                found.append(strict_path((path, key)))
            seen.add(key)
            _collect(inner, (path, key), found)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _collect(inner, (path, index), found)
