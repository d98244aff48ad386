"""Compiles the field numbers of Kubernetes' protobuf messages into the small file that edgekube carries.

Reads a JSON file `{message: {JSON name: [field number, type, "inline"?]}}`, as a script made it from the generated.proto files of
k8s.io/api, apimachinery, apiextensions-apiserver and kube-aggregator. Writes edgekube/api/schema_data/protobuf.json.gz, which is
committed. The same input gives the same bytes.

    python packaging/compile_protobuf.py /path/to/protobuf-1.36.json

The compact form: `{"names": [...], "messages": [{JSON name: [number, code] or [number, code, 1 if inline]}]}`. Codes: s string, b bool,
i int32, l int64, d double, y bytes, q Quantity, t Time, T MicroTime, x IntOrString, r raw JSON (RawExtension, JSON, FieldsV1), n a named
list of strings (Verbs, ExtraValue), `[c` list of c, `{c` map of string to c, `#n` the message with number n, and for the three unions of
apiextensions, each followed by the number of JSONSchemaProps: A schema or schemas, B schema or bool, C schema or strings.
"""

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent.parent / "edgekube" / "api" / "schema_data" / "protobuf.json.gz"
# Versions that no server of this release serves, and messages that have a code of their own.
_GONE = re.compile(r"\.(testapigroup|imagepolicy|abac|extensions)\.v|\.(apps|policy|batch|events|discovery|node|autoscaling)\.v\dbeta\d\.")
_SCALARS = {"string": "s", "bool": "b", "int32": "i", "int64": "l", "double": "d", "bytes": "y"}
_SPECIAL = {
    "k8s.io.apimachinery.pkg.api.resource.Quantity": "q",
    "k8s.io.apimachinery.pkg.api.resource.QuantityValue": "q",
    "k8s.io.apimachinery.pkg.apis.meta.v1.Time": "t",
    "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime": "T",
    "k8s.io.apimachinery.pkg.apis.meta.v1.Timestamp": "t",
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": "x",
    "k8s.io.apimachinery.pkg.runtime.RawExtension": "r",
    "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1": "r",
    "k8s.io.apimachinery.pkg.apis.meta.v1.Verbs": "n",
}
_UNIONS = {"JSONSchemaPropsOrArray": "A", "JSONSchemaPropsOrBool": "B", "JSONSchemaPropsOrStringArray": "C"}
_UNUSED = ("k8s.io.apimachinery.pkg.runtime.", "k8s.io.apimachinery.pkg.apis.meta.v1.Duration")


def compile_messages(source: dict[str, dict[str, list[Any]]]) -> bytes:
    """The content of the file."""
    names = [name for name in sorted(source) if not (_GONE.search(name) or _special(name) or name.startswith(_UNUSED))]
    numbers = {name: number for number, name in enumerate(names)}
    messages = [{field: _field(spec, numbers) for field, spec in sorted(source[name].items())} for name in names]
    body = json.dumps({"names": names, "messages": messages}, separators=(",", ":"), sort_keys=True).encode()
    return gzip.compress(body, 9, mtime=0)


def _special(name: str) -> str:
    short = name.rpartition(".")[2]
    if ".pkg.apis.apiextensions." in name:
        return "r" if short == "JSON" else _UNIONS.get(short, "")
    return "n" if short == "ExtraValue" else _SPECIAL.get(name, "")


def _field(spec: list[Any], numbers: dict[str, int]) -> list[Any]:
    return [spec[0], _code(spec[1], numbers), *([1] if len(spec) > 2 else [])]


def _code(kind: Any, numbers: dict[str, int]) -> str:
    if isinstance(kind, list):
        if kind[0] == "list":
            return "[" + _code(kind[1], numbers)
        if kind[:2] != ["map", "string"]:
            raise SystemExit(f"a map that is not keyed by strings: {kind}")
        return "{" + _code(kind[2], numbers)
    if kind in _SCALARS:
        return _SCALARS[kind]
    special = _special(kind)
    if not special:
        return f"#{numbers[kind]}"
    return special + str(numbers[kind.rpartition("Or")[0]]) if special in "ABC" else special


def main() -> int:
    if len(sys.argv) != 2:
        print(f"usage: {sys.argv[0]} PROTOBUF.json", file=sys.stderr)
        return 2
    OUT.write_bytes(compile_messages(json.loads(Path(sys.argv[1]).read_text())))
    print(f"{OUT.name}: {OUT.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
