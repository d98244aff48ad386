"""What somebody holds who holds a node's credentials: that node, what its own pods need, and nothing else. Over TLS."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgekube.api import catalog
from tests.api.secured import Api, secured

SECRETS = "/api/v1/namespaces/default/secrets"


class Thief:
    """Acts with the certificate of the node `pi`."""

    def __init__(self, api: Api) -> None:
        self._api, self._credential = api, api.pki.kubelet_client

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        return await self._api.call(method, path, body, credential=self._credential, **options)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """Two nodes; the pod `mine` on `pi` mounts the secret `mine`, `theirs` on the other one mounts `theirs`."""
    async with secured(tmp_path) as made:
        await made.node(10250)
        await made.client.create(catalog.NODE, {"metadata": {"name": "other"}})
        for name, node in (("mine", "pi"), ("theirs", "other")):
            await made.client.create(catalog.SECRET, {"metadata": {"name": name, "namespace": "default"}})
            volumes = [{"name": "s", "secret": {"secretName": name}}]
            spec = {"nodeName": node, "containers": [{"name": "c", "image": "x"}], "volumes": volumes}
            await made.client.create(catalog.POD, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
        yield made


@pytest.fixture
def thief(api: Api) -> Thief:
    return Thief(api)


async def test_secrets_of_its_own_pods_by_name_only(thief: Thief) -> None:
    assert (await thief("GET", f"{SECRETS}/mine"))[0] == 200
    assert (await thief("GET", f"{SECRETS}?fieldSelector=metadata.name%3Dmine"))[0] == 200
    status, answer = await thief("GET", f"{SECRETS}/theirs")
    assert status == 403
    assert answer["message"] == (
        'secrets "theirs" is forbidden: User "system:node:pi" cannot get resource "secrets" in API group "" in the namespace "default": '
        "no relationship found between node 'pi' and this object"
    )
    assert (await thief("GET", SECRETS))[0] == 403
    assert (await thief("GET", "/api/v1/secrets"))[0] == 403
    assert (await thief("GET", f"{SECRETS}?fieldSelector=metadata.name%3Dtheirs&watch=true"))[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/watch/namespaces/default/secrets/theirs",
        "/api/v1/watch/namespaces/default/secrets",
        f"{SECRETS}?fieldSelector=metadata.name%3Dtheirs&fieldSelector=metadata.name%3Dmine",
        f"{SECRETS}?fieldSelector=metadata.name!%3Dmine",
        f"{SECRETS}?fieldSelector=&fieldSelector=metadata.name%3Dmine",
        "/api/v1/secrets?fieldSelector=metadata.name%3Dmine",
        f"{SECRETS}/mine%2F..%2Ftheirs",
        f"{SECRETS}/mine/../theirs",
        f"{SECRETS}//theirs",
        "/api/v1/namespaces//secrets/theirs",
        "/api/v1/watch/namespaces/default/pods/theirs",
        "/api/v1/pods?fieldSelector=spec.nodeName!%3Dother",
    ],
)
async def test_no_spelling_of_a_path_leads_to_more(thief: Thief, path: str) -> None:
    status, answer = await thief("GET", path)
    assert status in (403, 404), answer


@pytest.mark.parametrize("path", [f"{SECRETS}?fieldSelector=metadata.name%3Dmine,metadata.name%3Dtheirs", f"{SECRETS}?fieldSelector=metadata.name%3Dmine&fieldSelector="])
async def test_what_is_authorized_is_what_is_listed(thief: Thief, path: str) -> None:
    status, answer = await thief("GET", path)
    assert status == 200
    assert {item["metadata"]["name"] for item in answer["items"]} <= {"mine"}


async def test_the_secret_goes_with_the_pod(api: Api, thief: Thief) -> None:
    await api.client.delete(catalog.POD, "mine", "default", grace_seconds=0)
    assert (await thief("GET", f"{SECRETS}/mine"))[0] == 403


async def test_pods_and_nodes_of_others_stay_as_they_are(thief: Thief) -> None:
    pods = "/api/v1/namespaces/default/pods"
    assert (await thief("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dpi"))[0] == 200
    assert (await thief("GET", "/api/v1/pods"))[0] == 403
    assert (await thief("GET", f"{pods}/theirs"))[0] == 403
    assert (await thief("DELETE", f"{pods}/theirs"))[0] == 403
    status = {"status": {"phase": "Failed"}}
    assert (await thief("PATCH", f"{pods}/theirs/status", status, kind="application/merge-patch+json"))[0] == 403
    assert (await thief("PATCH", f"{pods}/mine/status", status, kind="application/merge-patch+json"))[0] == 200
    labels = {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "true"}}}
    assert (await thief("PATCH", "/api/v1/nodes/pi", labels, kind="application/merge-patch+json"))[0] == 403
    assert (await thief("PATCH", "/api/v1/nodes/other", {"metadata": {"labels": {"a": "b"}}}, kind="application/merge-patch+json"))[0] == 403
    taints = {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    assert (await thief("PATCH", "/api/v1/nodes/pi", taints, kind="application/merge-patch+json"))[0] == 403
    assert (await thief("PATCH", "/api/v1/nodes/pi", {"metadata": {"labels": {"a": "b"}}}, kind="application/merge-patch+json"))[0] == 200


async def test_no_new_pods_roles_tokens_or_identities(api: Api, thief: Thief) -> None:
    pod = {"metadata": {"name": "own"}, "spec": {"nodeName": "pi", "containers": [{"name": "c", "image": "x"}]}}
    assert (await thief("POST", "/api/v1/namespaces/default/pods", pod))[0] == 403
    binding = {"metadata": {"name": "x"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}
    assert (await thief("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding))[0] == 403
    token = "/api/v1/namespaces/default/serviceaccounts/default/token"
    assert (await thief("POST", token, {"spec": {}}))[0] == 403
    mine = await api.client.get(catalog.POD, "mine", "default")
    theirs = await api.client.get(catalog.POD, "theirs", "default")
    for pod, expected in ((mine, 201), (theirs, 403)):
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        assert (await thief("POST", token, {"spec": {"boundObjectRef": bound}}))[0] == expected
    assert (await thief("GET", "/api/v1/namespaces/kube-system/secrets"))[0] == 403
    assert (await thief("GET", "/api/v1/namespaces/default/pods", headers={"Impersonate-User": "system:admin"}))[0] == 403


async def test_a_question_about_a_node_is_answered_as_the_request_would_be(api: Api) -> None:
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    for name, allowed in (("mine", True), ("theirs", False)):
        resource = {"verb": "get", "resource": "secrets", "name": name, "namespace": "default"}
        spec = {"user": "system:node:pi", "groups": ["system:nodes"], "resourceAttributes": resource}
        _, answer = await api.call("POST", path, {"spec": spec})
        assert answer["status"]["allowed"] is allowed
    for selector in ({"rawSelector": "spec.nodeName=pi"}, {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["pi"]}]}):
        resource = {"verb": "list", "resource": "pods", "fieldSelector": selector}
        _, answer = await api.call("POST", path, {"spec": {"user": "system:node:pi", "groups": ["system:nodes"], "resourceAttributes": resource}})
        assert answer["status"]["allowed"] is True
