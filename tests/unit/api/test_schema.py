"""The compiled types: as the published definitions have them, and compiled anew they are the same."""

import importlib.util
import sys
from pathlib import Path

import orjson

from edgekube.api import fields
from edgekube.api.schema import SCHEMA, descriptions, fingerprint
from tests.kit.requires import needs

ROOT = Path(__file__).resolve().parents[3]
POD_SPEC = "io.k8s.api.core.v1.PodSpec"


def field(definition: str, name: str) -> fields.Field:
    struct = SCHEMA.struct(definition)
    assert struct is not None
    return struct.fields[name]


def test_merge_key_and_list_map_keys_differ_for_some_lists():
    ports = field("io.k8s.api.core.v1.Container", "ports")
    assert (ports.list_type, ports.keys, ports.merge_key) == ("map", ("containerPort", "protocol"), "containerPort")
    spread = field(POD_SPEC, "topologySpreadConstraints")
    assert (spread.keys, spread.merge_key) == (("topologyKey", "whenUnsatisfiable"), "topologyKey")


def test_a_list_map_key_has_its_default():
    assert field("io.k8s.api.core.v1.ContainerPort", "protocol").default == "TCP"
    assert field("io.k8s.api.core.v1.ServicePort", "protocol").default == "TCP"


def test_strategies_and_atoms():
    assert field(POD_SPEC, "volumes").strategy == {"merge", "retainKeys"}
    assert field("io.k8s.api.apps.v1.DeploymentSpec", "strategy").strategy == {"retainKeys"}
    assert field("io.k8s.api.apps.v1.DeploymentSpec", "selector").atomic
    assert field(POD_SPEC, "nodeSelector").atomic
    assert field("io.k8s.api.core.v1.Container", "command").atomic
    assert not field(POD_SPEC, "containers").atomic
    assert field("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers").list_type == "set"


def test_what_only_the_go_types_know():
    assert [name for name, _ in SCHEMA.struct("io.k8s.api.apps.v1.Deployment").always] == ["metadata", "spec", "status"]
    assert field(POD_SPEC, "hostNetwork").omit
    assert not field(POD_SPEC, "automountServiceAccountToken").omit
    assert field(POD_SPEC, "restartPolicy").go == "v1.RestartPolicy"


def test_types_may_contain_themselves():
    props = SCHEMA.struct("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    assert props is not None
    assert props.fields["not"].struct is props


def test_every_definition_can_be_built():
    for name in SCHEMA.names():
        struct = SCHEMA.struct(name)
        assert struct is not None
        assert set(struct.required) <= struct.fields.keys()


def test_an_unknown_definition_accepts_anything():
    assert SCHEMA.struct("com.example.v1.Thing") is None
    assert SCHEMA.check("com.example.v1.Thing", {"a": 1}) == ("", [])


def test_descriptions_are_there():
    assert "collection of containers" in descriptions()["io.k8s.api.core.v1.Pod"][0]


def test_the_fingerprint_is_stable():
    assert fingerprint() == fingerprint()


@needs("schema")
def test_compiling_anew_gives_the_same_files(tmp_path: Path):
    spec = importlib.util.spec_from_file_location("compile_schema", ROOT / "packaging" / "compile_schema.py")
    assert spec is not None
    assert spec.loader is not None
    compiler = importlib.util.module_from_spec(spec)
    sys.modules["compile_schema"] = compiler
    spec.loader.exec_module(compiler)
    found = importlib.util.find_spec("kubernetes_validate")
    assert found is not None
    assert found.origin is not None
    definitions = compiler.read_definitions(Path(found.origin).parent)
    assert orjson.loads(orjson.dumps(compiler.compile_types(definitions)))["names"] == list(SCHEMA.names())
    compiler.write(definitions, tmp_path)
    for name in ("types.json.gz", "descriptions.json.xz"):
        assert unpacked(tmp_path / name) == unpacked(ROOT / "edgekube" / "api" / "schema_data" / name)


def unpacked(path: Path) -> bytes:
    import gzip
    import lzma

    return (gzip if path.suffix == ".gz" else lzma).decompress(path.read_bytes())
