"""Server-side printing: objects as a meta.k8s.io/v1 Table, and as PartialObjectMetadata.

The columns come from Kind.columns; a kind without columns gets upstream's default: name and creation time.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgekube.api.kind import Column, Kind
from edgekube.api.types import Obj
from edgekube.errors import BadRequest

NONE, METADATA, OBJECT = "None", "Metadata", "Object"
META_V1 = "meta.k8s.io/v1"


def render(
    kind: Kind,
    objs: Iterable[Obj],
    *,
    now: float,
    include: str = METADATA,
    headers: bool = True,
    metadata: Mapping[str, Any] | None = None,
    version: str = META_V1,
) -> Obj:
    """The Table of `objs`, in their order. `metadata` is the list's; for a single object leave it out.

    `include` says what each row carries of its object: see parse_include. In a watch only the first Table has `headers`.
    """
    columns = _columns(kind)
    rows = [_row(columns, obj, now, include, version) for obj in objs]
    return {
        "kind": "Table",
        "apiVersion": version,
        "metadata": dict(metadata or {}),
        "columnDefinitions": [_definition(column) for column in columns] if headers else None,
        "rows": rows,
    }


def parse_include(text: str) -> str:
    """The `includeObject` parameter. Raises BadRequest."""
    if text not in ("", NONE, METADATA, OBJECT):
        raise BadRequest(f'unrecognized includeObject value: "{text}"')
    return text or METADATA


def partial(obj: Obj, version: str = META_V1) -> Obj:
    """The object's metadata only."""
    return {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": obj.get("metadata") or {}}


def partial_list(objs: Iterable[Obj], metadata: Mapping[str, Any], version: str = META_V1) -> Obj:
    """The metadata of a list's objects."""
    items = [partial(obj, version) for obj in objs]
    return {"kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": dict(metadata), "items": items}


def _row(columns: Sequence[Column], obj: Obj, now: float, include: str, version: str) -> Obj:
    row: Obj = {"cells": [column.cell(obj, now) for column in columns]}
    if include == OBJECT:
        row["object"] = obj
    elif include == METADATA:
        row["object"] = partial(obj, version)
    return row


def _definition(column: Column) -> Obj:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _columns(kind: Kind) -> Sequence[Column]:
    return kind.columns or _DEFAULT


def _name(obj: Obj, _now: float) -> Any:
    return (obj.get("metadata") or {}).get("name", "")


def _created(obj: Obj, _now: float) -> Any:
    return (obj.get("metadata") or {}).get("creationTimestamp")


_DEFAULT = (
    Column("Name", _name, format="name", description="The name of the object."),
    Column("Created At", _created, type="date", description="When the object was created."),
)
