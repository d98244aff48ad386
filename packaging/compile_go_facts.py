"""Compiles what only Kubernetes' Go types know, and its published OpenAPI definitions do not: which fields are plain values.

A plain (not pointer) field that holds its zero value leaves no trace when an object is written (`omitempty`), and a plain struct is
always there. Both decide what managedFields say and what clients read back. Reads checkouts of k8s.io/api and k8s.io/apimachinery of
the release that edgekube speaks; writes edgekube/api/schema_data/go.json.gz:

    {definition: {JSON name: "e" (omitted when zero) | "v" (struct that is always there) | "", then " GoType" if it is a named type}}

    python packaging/compile_go_facts.py /path/to/k8s.io/api /path/to/k8s.io/apimachinery
"""

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "edgekube" / "api" / "schema_data" / "go.json.gz"
_STRUCT = re.compile(r"^type (\w+) struct \{$(.*?)^\}", re.M | re.S)
_FIELD = re.compile(r'^\s+(?:(\w+)\s+)?([\w.*\[\]{}]+)\s+`(?:[^`]*\s)?json:"([^"]*)"', re.M)
_NAMED = re.compile(r"^type (\w+) (string|bool|int32|int64|int)$", re.M)
_PACKAGE = re.compile(r"^package (\w+)$", re.M)
_SCALARS = {"string", "bool", "int32", "int64", "int", "float64", "uint8"}
_VALUES = {"intstr.IntOrString", "resource.Quantity", "metav1.Time", "metav1.MicroTime", "Time", "MicroTime", "metav1.Duration", "Duration"}


def main() -> int:
    types: dict[str, list[tuple[str, str, str]]] = {}
    named: dict[str, str] = {}
    for root in map(Path, sys.argv[1:]):
        for path in sorted(root.rglob("types*.go")):
            prefix = _prefix(path.parent)
            if prefix:
                text = path.read_text()
                types |= {f"{prefix}.{name}": list(_fields(body)) for name, body in _STRUCT.findall(text)}
                named |= {f"{prefix}.{name}": base for name, base in _NAMED.findall(text)}
    facts = {name: found for name in sorted(types) if (found := dict(sorted(_facts(name, types, named))))}
    body = json.dumps(facts, separators=(",", ":"), sort_keys=True).encode()
    OUT.write_bytes(gzip.compress(body, 9, mtime=0))
    print(f"{len(facts)} types, {OUT.stat().st_size} bytes")
    return 0


def _prefix(directory: Path) -> str:
    parts = directory.parts
    for root in ("api", "apimachinery"):
        if root in parts:
            return ".".join(("io.k8s", *parts[parts.index(root) :]))
    return ""


def _fields(body: str) -> Iterator[tuple[str, str, str]]:
    for _name, kind, tag in _FIELD.findall(re.sub(r"//.*", "", body)):
        yield kind, *(tag.split(",", 1) if "," in tag else (tag, ""))


def _facts(name: str, types: dict[str, list[tuple[str, str, str]]], named: dict[str, str]) -> Iterator[tuple[str, str]]:
    package = name.rsplit(".", 1)[0]
    for kind, json_name, options in types[name]:
        full = _full(package, kind)
        if not json_name:
            if "inline" in options and full in types:
                yield from _facts(full, types, named)
            continue
        omit = "omitempty" in options or "omitzero" in options
        if kind in _SCALARS:
            if omit:
                yield json_name, "e"
        elif full in named:
            yield json_name, f"{'e' if omit else ''} {_go(full)}"
        elif kind in _VALUES:
            continue
        elif full in types and "omitzero" not in options:
            yield json_name, "v"


def _full(package: str, kind: str) -> str:
    alias, dot, bare = kind.partition(".")
    if not dot:
        return f"{package}.{kind}"
    known = {"metav1": "io.k8s.apimachinery.pkg.apis.meta.v1", "v1": "io.k8s.api.core.v1", "corev1": "io.k8s.api.core.v1"}
    return f"{known[alias]}.{bare}" if alias in known else f"{package}.{kind}"


def _go(full: str) -> str:
    return ".".join(full.split(".")[-2:])


if __name__ == "__main__":
    sys.exit(main())
