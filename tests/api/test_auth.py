"""Who may what, over TLS: certificates, tokens, roles, anonymous, reviews."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from edgekube.api import catalog
from edgekube.apiserver.bootstrap.reconcile import ensure_bootstrap
from tests.api.secured import BOOT, Api, secured


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with secured(tmp_path) as made:
        yield made


async def test_anonymous_sees_health_and_version_only(api: Api) -> None:
    assert await api.anonymous("/livez") == 200
    assert await api.anonymous("/version") == 200
    for path in ("/api", "/apis", "/api/v1/namespaces", "/metrics", "/openid/v1/jwks", "/"):
        assert await api.anonymous(path) == 401


async def test_the_authority_is_public_and_only_to_be_read(api: Api) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"https://localhost:{api.port}/cacerts", ssl=api.tls(None)) as answer:
            assert (answer.status, await answer.read()) == (200, api.pki.ca.read_bytes())
        async with session.post(f"https://localhost:{api.port}/cacerts", ssl=api.tls(None)) as answer:
            assert answer.status in (403, 405)
    assert b"PRIVATE" not in api.pki.ca.read_bytes()


async def test_bootstrap_is_complete_and_the_second_time_a_no_op(api: Api) -> None:
    _, services = await api.call("GET", "/api/v1/services")
    found = {(one["metadata"]["namespace"], one["metadata"]["name"]): one["spec"]["clusterIP"] for one in services["items"]}
    assert found == {("default", "kubernetes"): "10.43.0.1", ("kube-system", "kube-dns"): "10.43.0.10"}
    _, endpoints = await api.call("GET", "/api/v1/namespaces/default/endpoints/kubernetes")
    assert endpoints["subsets"][0]["addresses"] == [{"ip": "192.0.2.1"}]
    before = api.store.revision
    assert await ensure_bootstrap(client=api.client, objects=api.objects, config=BOOT) == 0
    assert api.store.revision == before


async def test_bootstrap_repairs_roles_and_follows_the_address(api: Api) -> None:
    from dataclasses import replace

    role = await api.client.get(catalog.CLUSTER_ROLE, "view")
    node = await api.client.get(catalog.CLUSTER_ROLE, "system:node")
    node["rules"] = node["rules"][1:]
    await api.client.update(catalog.CLUSTER_ROLE, node)
    await api.client.delete(catalog.CLUSTER_ROLE_BINDING, "system:discovery")
    moved = replace(BOOT, advertise_addresses=("192.0.2.9",))
    assert await ensure_bootstrap(client=api.client, objects=api.objects, config=moved) == 4
    slices = await api.client.get(catalog.ENDPOINT_SLICE, "kubernetes", "default")
    assert slices["endpoints"][0]["addresses"] == ["192.0.2.9"]
    assert role == await api.client.get(catalog.CLUSTER_ROLE, "view")


async def test_a_certificate_without_roles_may_look_around_and_no_more(api: Api) -> None:
    ann = api.certificate("ann", "devs")
    assert (await api.call("GET", "/apis", credential=ann))[0] == 200
    status, refused = await api.call("GET", "/api/v1/namespaces/default/pods", credential=ann)
    assert status == 403
    assert refused["message"] == 'pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "default"'
    status, refused = await api.call("GET", "/metrics", credential=ann)
    assert (status, refused["message"]) == (403, 'forbidden: User "ann" cannot get path "/metrics"')
    binding = {
        "metadata": {"name": "devs"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "Group", "name": "devs"}],
    }
    status, answer = await api.call("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding)
    assert status == 201, answer
    assert (await api.call("GET", "/api/v1/namespaces/default/pods", credential=ann))[0] == 200
    assert (await api.call("GET", "/api/v1/namespaces/default/secrets", credential=ann))[0] == 403
    assert (await api.call("GET", "/api/v1/pods", credential=ann))[0] == 403


async def test_nobody_gives_away_more_than_he_has(api: Api) -> None:
    binding = {
        "metadata": {"name": "ann-admin"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    await api.call("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding)
    ann = api.certificate("ann")
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
    mine = {"metadata": {"name": "mine"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}
    assert (await api.call("POST", path, mine, credential=ann))[0] == 201
    more = {"metadata": {"name": "more"}, "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]}
    status, refused = await api.call("POST", path, more, credential=ann)
    assert status == 403
    assert "is attempting to grant RBAC permissions not currently held" in refused["message"]


async def test_service_account_token_from_request_to_revocation(api: Api) -> None:
    await api.account("robot")
    token = await api.token("robot")
    status, me = await api.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token=token)
    assert status == 201
    assert me["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"
    assert (await api.call("GET", "/api/v1/namespaces/default/pods", token=token))[0] == 403
    assert (await api.call("GET", "/openid/v1/jwks", token=token))[0] == 200
    status, description = await api.call("GET", "/.well-known/openid-configuration", token=token)
    assert description["jwks_uri"].endswith("/openid/v1/jwks")
    await api.client.delete(catalog.SERVICE_ACCOUNT, "robot", "default")
    assert (await api.call("GET", "/api", token=token))[0] == 401
    assert (await api.call("GET", "/api", token="x.y.z"))[0] == 401


@pytest.mark.parametrize(
    ("spec", "status", "text"),
    [
        ({"expirationSeconds": 599}, 422, "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none"}}, 404, 'pods "none" not found'),
        (
            {"boundObjectRef": {"kind": "Job", "apiVersion": "batch/v1", "name": "x"}},
            400,
            "cannot bind token to object of type batch/v1, Kind=Job",
        ),
    ],
)
async def test_token_requests_that_are_refused(api: Api, spec: dict, status: int, text: str) -> None:
    found, refused = await api.call("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": spec})
    assert found == status
    assert text in refused["message"]


async def test_kubelets_token_for_a_pod_warns_after_an_hour_and_lives_longer(api: Api) -> None:
    pod = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    made = await api.client.create(catalog.POD, pod)
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": made["metadata"]["uid"]}
    token = await api.token("default", expirationSeconds=3607, boundObjectRef=reference)
    claims = api.signer.verify(token)
    assert claims.expires - claims.issued == 365 * 24 * 3600
    assert claims.warn_after - claims.issued == 3607
    assert (await api.call("GET", "/api", token=token))[0] == 200
    await api.client.delete(catalog.POD, "web", "default", grace_seconds=0)
    assert (await api.call("GET", "/api", token=token))[0] == 401


async def test_can_i(api: Api) -> None:
    question = {"spec": {"resourceAttributes": {"verb": "delete", "resource": "nodes"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    status, answer = await api.call("POST", path, question)
    assert (status, answer["status"]["allowed"]) == (201, True)
    status, answer = await api.call("POST", path, question, credential=api.certificate("ann"))
    assert (status, answer["status"]["allowed"]) == (201, False)
    status, rules = await api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
    assert {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]} in rules["status"]["resourceRules"]


async def test_reviews_are_discovered(api: Api) -> None:
    _, resources = await api.call("GET", "/apis/authorization.k8s.io/v1")
    assert {one["name"] for one in resources["resources"]} == {
        "localsubjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews",
    }  # fmt: skip


async def test_a_serving_certificate_is_no_identity(api: Api) -> None:
    import aiohttp

    with pytest.raises((aiohttp.ClientError, OSError)):
        await api.call("GET", "/api/v1/nodes", credential=api.pki.kubelet)


async def test_concurrent_bindings_give_a_pod_one_node(api: Api) -> None:
    import asyncio

    pod = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await api.client.create(catalog.POD, pod)
    path = "/api/v1/namespaces/default/pods/web/binding"
    answers = await asyncio.gather(*(api.call("POST", path, {"target": {"kind": "Node", "name": f"n{index}"}}) for index in range(8)))
    assert sorted(status for status, _ in answers) == [201, *[409] * 7]
