"""OpenAPI documents: complete, consistent, and with what kubectl looks for."""

import orjson
import pytest

from edgekube.api import catalog, openapi

KINDS = catalog.KINDS
V2 = orjson.loads(openapi.v2(KINDS))


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_v2_is_closed():
    assert V2["swagger"] == "2.0"
    assert {reference.removeprefix("#/definitions/") for reference in references(V2)} - {
        "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
    } <= set(V2["definitions"])


@pytest.mark.parametrize("path", sorted(openapi.v3_root(KINDS)["paths"]))
def test_v3_is_closed(path):
    document = orjson.loads(openapi.v3(KINDS, path))
    schemas = document["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(document)} <= set(schemas)
    assert all("patch" not in item or "x-kubernetes-group-version-kind" in item["patch"] for item in document["paths"].values())


def test_kubectl_finds_what_it_looks_for():
    deployment = V2["definitions"]["io.k8s.api.apps.v1.Deployment"]
    assert deployment["x-kubernetes-group-version-kind"] == [{"group": "apps", "version": "v1", "kind": "Deployment"}]
    assert "Deployment enables" in deployment["description"]
    ports = V2["definitions"]["io.k8s.api.core.v1.Container"]["properties"]["ports"]
    assert ports["x-kubernetes-patch-merge-key"] == "containerPort"
    assert ports["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]
    patch = V2["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {"dryRun", "fieldManager", "fieldValidation", "force"} <= {parameter["name"] for parameter in patch["parameters"]}
    assert patch["x-kubernetes-action"] == "patch"


def test_paths():
    assert {"get", "post", "delete"} <= V2["paths"]["/api/v1/namespaces/{namespace}/pods"].keys()
    assert "get" in V2["paths"]["/api/v1/pods"]
    assert "/api/v1/nodes/{name}/status" in V2["paths"]
    assert V2["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["get"]["x-kubernetes-action"] == "connect"
    assert "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale" in V2["paths"]
    ids = [operation["operationId"] for item in V2["paths"].values() for method, operation in item.items() if method != "parameters"]
    assert len(set(ids)) == len(ids)


def test_v3_form():
    document = orjson.loads(openapi.v3(KINDS, "api/v1"))
    quantity = document["components"]["schemas"]["io.k8s.apimachinery.pkg.api.resource.Quantity"]
    assert quantity["oneOf"] == [{"type": "string"}, {"type": "number"}]
    spec = document["components"]["schemas"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"]
    assert spec["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]
    assert openapi.v3(KINDS, "apis/nope/v1") is None
    assert openapi.v3_hash(KINDS, "apis/nope/v1") == ""


def test_hashes_change_with_what_is_served():
    assert openapi.v3_hash(KINDS, "api/v1") == openapi.v3_hash(KINDS, "api/v1")
    assert openapi.v3_hash(KINDS, "api/v1") != openapi.v3_hash(KINDS[1:], "api/v1")
    assert openapi.v2_hash(KINDS) != openapi.v2_hash(KINDS[1:])
    assert len(openapi.v2_hash(KINDS)) == 128
