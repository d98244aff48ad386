"""Compiles Kubernetes' OpenAPI definitions into the two small files that edgekube carries: the types and, apart, their descriptions.

Reads: an installed `kubernetes-validate` package, its wheel, or a `_definitions.json` of it. Writes `types.json.gz` and
`descriptions.json.xz` into edgekube/api/schema_data. Both are committed, so that building edgekube needs no 100 MB download; a unit
test compiles them anew wherever kubernetes-validate is installed and compares. The output depends on the input only: the same input
gives the same bytes.

    python packaging/compile_schema.py /path/to/kubernetes_validate

The compact form: `{"names": [...], "types": [...]}`. A type is `{"f": {field: code or [code, options]}, "r": [required fields],
"g": [[group, version, kind]], "a": 1 if atomic, "u": unions}`. Codes: s string, b boolean, i int32, l int64, d double, y bytes,
o any object, j any JSON, q Quantity, t Time, T MicroTime, x IntOrString, `[c` list of c, `{c` map to c, `#n` the type with number n.
Options: l list type (a, s, m), k list-map keys, m patch merge key, p patch strategy, a map type (1 atomic, 0 granular), v default value.
"""

import gzip
import json
import lzma
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VERSION = "v1.36.0"
OUT = Path(__file__).resolve().parent.parent / "edgekube" / "api" / "schema_data"
_MEMBER = f"kubernetes_validate/kubernetes-json-schema/{VERSION}-local/_definitions.json"
_LIST_TYPES = {"atomic": "a", "set": "s", "map": "m"}
_SCALARS = {
    ("string", ""): "s",
    ("boolean", ""): "b",
    ("integer", "int32"): "i",
    ("integer", "int64"): "l",
    ("number", "double"): "d",
    ("string", "byte"): "y",
    ("string", "date-time"): "t",
}
_SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "q",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "t",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "T",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "x",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "o",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "o",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "o",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": "j",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray": "j",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool": "j",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": "j",
}
# The published definitions have no defaults, but a list-map key that a client leaves out has one: without it two appliers of one
# port would own two ports. These are the only list-map keys with a default.
_KEY_DEFAULTS = {("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP", ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP"}


def read_definitions(source: Path) -> dict[str, Any]:
    """The definitions in `source`: a wheel, an installed package's directory, or the JSON file itself."""
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as wheel:
            text = wheel.read(_MEMBER)
    elif source.is_dir():
        root = source.parent if source.name == "kubernetes_validate" else source
        text = (root / _MEMBER).read_bytes()
    else:
        text = source.read_bytes()
    definitions: dict[str, Any] = json.loads(text)["$defs"]
    return definitions


def compile_types(definitions: dict[str, Any]) -> dict[str, Any]:
    """The compact form, without descriptions."""
    names = sorted(name for name in definitions if name not in _SPECIAL)
    numbers = {name: number for number, name in enumerate(names)}
    return {"names": names, "types": [_type(name, definitions[name], numbers) for name in names]}


def compile_descriptions(definitions: dict[str, Any]) -> dict[str, Any]:
    """`{definition: [own description, {field: description}]}`."""
    return {
        name: [
            found.get("description", ""),
            {field: spec["description"] for field, spec in sorted(found.get("properties", {}).items()) if spec.get("description")},
        ]
        for name, found in sorted(definitions.items())
    }


def write(definitions: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "types.json.gz").write_bytes(gzip.compress(_dump(compile_types(definitions)), 9, mtime=0))
    (out / "descriptions.json.xz").write_bytes(lzma.compress(_dump(compile_descriptions(definitions)), preset=9 | lzma.PRESET_EXTREME))


def _type(name: str, definition: dict[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    compact: dict[str, Any] = {}
    fields = {field: _field(name, field, spec, numbers) for field, spec in sorted(definition.get("properties", {}).items())}
    if fields:
        compact["f"] = fields
    if definition.get("required"):
        compact["r"] = definition["required"]
    if kinds := definition.get("x-kubernetes-group-version-kind"):
        compact["g"] = [[kind["group"], kind["version"], kind["kind"]] for kind in kinds]
    if definition.get("x-kubernetes-map-type") == "atomic":
        compact["a"] = 1
    if unions := definition.get("x-kubernetes-unions"):
        compact["u"] = unions
    return compact


def _field(owner: str, field: str, spec: dict[str, Any], numbers: dict[str, int]) -> Any:
    code, options = _code(spec, numbers), dict(_options(spec))
    if (owner, field) in _KEY_DEFAULTS:
        options["v"] = _KEY_DEFAULTS[owner, field]
    return [code, options] if options else code


def _options(spec: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if kind := spec.get("x-kubernetes-list-type"):
        yield "l", _LIST_TYPES[kind]
    if keys := spec.get("x-kubernetes-list-map-keys"):
        yield "k", keys
    if key := spec.get("x-kubernetes-patch-merge-key"):
        yield "m", key
    if strategy := spec.get("x-kubernetes-patch-strategy"):
        yield "p", strategy
    if kind := spec.get("x-kubernetes-map-type"):
        yield "a", int(kind == "atomic")


def _code(spec: dict[str, Any], numbers: dict[str, int]) -> str:
    if reference := spec.get("$ref"):
        name = reference.rsplit("/", 1)[1]
        return _SPECIAL.get(name) or f"#{numbers[name]}"
    kind = spec["type"] if isinstance(spec["type"], str) else spec["type"][0]
    if kind == "array":
        return "[" + _code(spec["items"], numbers)
    if kind == "object":
        inner = spec.get("additionalProperties")
        return "{" + _code(inner, numbers) if isinstance(inner, dict) else "o"
    return _SCALARS[kind, spec.get("format", "")]


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode()


def main() -> int:
    if len(sys.argv) > 1:
        source = Path(sys.argv[1])
    else:
        import kubernetes_validate

        source = Path(kubernetes_validate.__file__).parent
    write(read_definitions(source), OUT)
    for path in sorted(OUT.glob("*.json.*")):
        print(f"{path.name}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
