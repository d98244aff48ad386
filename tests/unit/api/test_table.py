"""Tables and partial objects."""

import pytest

from edgekube.api import catalog, table
from edgekube.api.kind import Column, Kind
from edgekube.errors import BadRequest

KIND = Kind(
    group="",
    version="v1",
    kind="Thing",
    plural="things",
    columns=(
        Column("Name", lambda obj, _now: obj["metadata"]["name"], format="name", description="its name"),
        Column("Size", lambda obj, _now: obj["size"], type="integer", priority=1),
        Column("Age", lambda _obj, now: f"{now:.0f}s"),
    ),
)
A = {"kind": "Thing", "apiVersion": "v1", "metadata": {"name": "a"}, "size": 5}


def test_columns_and_rows():
    made = table.render(KIND, [A], now=7.0, metadata={"resourceVersion": "9"})
    assert made["kind"] == "Table"
    assert made["apiVersion"] == "meta.k8s.io/v1"
    assert made["metadata"] == {"resourceVersion": "9"}
    assert made["columnDefinitions"][1] == {"name": "Size", "type": "integer", "format": "", "description": "", "priority": 1}
    assert made["rows"] == [
        {"cells": ["a", 5, "7s"], "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}}}
    ]


def test_what_a_row_carries():
    assert "object" not in table.render(KIND, [A], now=0, include="None")["rows"][0]
    assert table.render(KIND, [A], now=0, include="Object")["rows"][0]["object"] == A
    assert table.render(KIND, [A], now=0, headers=False)["columnDefinitions"] is None


def test_a_kind_without_columns_shows_name_and_time():
    plain = Kind(group="", version="v1", kind="Thing", plural="things")
    made = table.render(plain, [{"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}}], now=0)
    assert [column["name"] for column in made["columnDefinitions"]] == ["Name", "Created At"]
    assert made["rows"][0]["cells"] == ["a", "2026-01-01T00:00:00Z"]


def test_partial_lists():
    made = table.partial_list([A], {"resourceVersion": "9"})
    assert made["kind"] == "PartialObjectMetadataList"
    assert made["items"][0]["metadata"] == {"name": "a"}


def test_include():
    assert table.parse_include("") == "Metadata"
    with pytest.raises(BadRequest, match='unrecognized includeObject value: "All"'):
        table.parse_include("All")


def test_every_declared_column_has_a_name_and_a_known_type():
    for kind in catalog.KINDS:
        for column in kind.columns:
            assert column.name
            assert column.type in ("string", "integer", "number", "boolean", "date")
