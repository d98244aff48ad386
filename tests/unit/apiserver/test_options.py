"""Options of requests that are refused, and what a patch says twice: in upstream's words."""

import pytest

from tests.kit.api import CONFIG_MAPS, Api, config_map

MERGE = {"content-type": "application/merge-patch+json"}
STRATEGIC = {"content-type": "application/strategic-merge-patch+json"}
APPLY = {"content-type": "application/apply-patch+yaml"}


async def refused(api, method, path, body=None, headers=None):
    status, answer = await api(method, path, body, headers)
    assert (status, answer["reason"]) == (422, "Invalid"), answer
    return answer["message"]


@pytest.mark.parametrize(
    ("query", "headers", "message"),
    [
        ("", APPLY, "fieldManager: Required value: is required for apply patch"),
        ("?force=false", MERGE, "force: Forbidden: may not be specified for non-apply patch"),
        ("?fieldManager=a%01", MERGE, 'fieldManager: Invalid value: "a\\x01": invalid character U+0001 (at position 1)'),
        ("?fieldManager=" + "x" * 129, MERGE, "fieldManager: Too long: may not be more than 128 bytes"),
        ("?dryRun=Some", MERGE, 'dryRun: Unsupported value: "Some": supported values: "All"'),
        ("?fieldValidation=No", MERGE, 'fieldValidation: Unsupported value: "No": supported values: "Ignore", "Strict", "Warn"'),
    ],
)
async def test_options_of_a_patch(query, headers, message):
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    found = await refused(api, "PATCH", f"{CONFIG_MAPS}/a{query}", config_map("a"), headers)
    assert found == f'PatchOptions.meta.k8s.io "" is invalid: {message}'


async def test_all_that_is_wrong_is_said_at_once():
    found = await refused(Api(), "POST", f"{CONFIG_MAPS}?dryRun=Some&fieldManager=%07", config_map("a"))
    assert "fieldManager: Invalid value" in found
    assert "dryRun: Unsupported value" in found


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"propagationPolicy": "Later"},
            'Unsupported value: "Later": supported values: "Foreground", "Background", "Orphan", "nil"',
        ),
        (
            {"propagationPolicy": "Orphan", "orphanDependents": True},
            'Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set',
        ),
    ],
)
async def test_options_of_a_delete(body, message):
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    found = await refused(api, "DELETE", f"{CONFIG_MAPS}/a", body)
    assert found == f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: {message}'
    await api.ok("GET", f"{CONFIG_MAPS}/a")


@pytest.mark.parametrize("body", [{"apiVersion": "v1", "kind": "Pod"}, []])
async def test_only_delete_options_delete(body):
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    status, answer = await api("DELETE", f"{CONFIG_MAPS}/a", body)
    assert (status, answer["reason"]) == (400, "BadRequest")
    await api.ok("DELETE", f"{CONFIG_MAPS}/a", {"apiVersion": "apps/v1", "kind": "DeleteOptions"})


async def test_tables_include_what_is_known():
    table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    status, answer = await Api()("GET", f"{CONFIG_MAPS}?includeObject=All", headers=table)
    assert status == 400
    assert answer["message"] == (
        "Unable to convert to Table as requested: "
        """includeObject: Invalid value: "All": must be 'Metadata', 'Object', 'None', or empty"""
    )


async def test_a_list_has_no_initial_events():
    found = await refused(Api(), "GET", f"{CONFIG_MAPS}?sendInitialEvents=true")
    assert found.endswith("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list")


@pytest.mark.parametrize("headers", [MERGE, STRATEGIC])
async def test_what_a_patch_gives_twice_is_noticed(headers):
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    twice = b'{"data":{"k":"1","k":"2"}}'
    found = await refused(api, "PATCH", f"{CONFIG_MAPS}/a?fieldValidation=Strict", twice, headers)
    assert found.endswith('strict decoding error: duplicate field "data.k"')
    answer = await api("PATCH", f"{CONFIG_MAPS}/a", twice, headers)
    assert answer[1]["data"] == {"k": "2"}
    assert answer.headers["Warning"] == '299 - "duplicate field \\"data.k\\""'
    assert "Warning" not in (await api("PATCH", f"{CONFIG_MAPS}/a?fieldValidation=Ignore", twice, headers)).headers


async def test_deprecated_resources_warn():
    answer = await Api()("GET", "/api/v1/namespaces/default/endpoints")
    assert answer.headers["Warning"] == '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'


async def test_apply_names_the_core_group_as_go_does():
    status, answer = await Api()("PATCH", f"{CONFIG_MAPS}/a?fieldManager=m", {**config_map("a"), "wrong": 1}, APPLY)
    assert status == 500
    assert answer["message"] == (
        "failed to create typed patch object (default/a; /v1, Kind=ConfigMap): .wrong: field not declared in schema"
    )


async def test_applying_a_scale_owns_the_replicas():
    api = Api()
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    labels = {"app": "d"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    whole = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}
    await api.ok("PATCH", f"{deployments}/d?fieldManager=owner", whole, APPLY)
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 3}}
    assert "fieldManager: Required value" in await refused(api, "PATCH", f"{deployments}/d/scale", scale, APPLY)
    status, answer = await api("PATCH", f"{deployments}/d/scale?fieldManager=scaler", scale, APPLY)
    assert (status, answer["message"]) == (409, 'Apply failed with 1 conflict: conflict with "owner": .spec.replicas')
    made = await api.ok("PATCH", f"{deployments}/d/scale?fieldManager=scaler&force=true", scale, APPLY)
    assert (made["kind"], made["spec"]) == ("Scale", {"replicas": 3})
    entries = (await api.ok("GET", f"{deployments}/d"))["metadata"]["managedFields"]
    found = {(entry["manager"], entry["operation"], entry.get("subresource", "")): entry["fieldsV1"] for entry in entries}
    assert found["scaler", "Apply", "scale"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in found["owner", "Apply", ""]["f:spec"]
