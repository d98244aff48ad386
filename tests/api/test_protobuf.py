"""Protobuf over the wire: kubectl's own encoder and decoder as the peer, and raw requests for what kubectl does not do."""

import asyncio
import os

import aiohttp
import pytest

from edgekube.api import protobuf
from edgekube.api.catalog import CONFIG_MAP, DEPLOYMENT, EVENT, NAMESPACE, POD, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT
from tests.kit.api import config_map
from tests.kit.requires import kubectl, needs

MEDIA = "application/vnd.kubernetes.protobuf"
PARTIAL = f"{MEDIA};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


class Kubectl:
    def __init__(self, live):
        self.env = dict(os.environ, KUBECONFIG=str(live.kubeconfig), HOME=str(live.folder))

    async def start(self, *arguments):
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(kubectl(), *arguments, env=self.env, stdout=pipe, stderr=asyncio.subprocess.STDOUT)

    async def __call__(self, text, *more):
        process = await self.start(*text.split(), *more)
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()


async def call(live, method, path, body=None, *, accept=MEDIA, content=MEDIA, client=None):
    """(status, content type, bytes)."""
    headers = {"accept": accept, "content-type": content}
    data = body if isinstance(body, bytes | None) else protobuf.encode(body)
    async with aiohttp.ClientSession() as http, http.request(
        method, live.url + path, data=data, headers=headers, ssl=client or live.ssl
    ) as response:  # fmt: skip
        return response.status, response.headers["content-type"], await response.read()


@needs("kubectl")
async def test_kubectl_creates(live):
    run = Kubectl(live)
    await run("create namespace team")
    await run("create serviceaccount bot -n team")
    await run("create configmap conf --from-literal=a=b -n team")
    await run("create secret generic word --from-literal=p=q -n team")
    await run("create role reader --verb=get,list --resource=pods -n team")
    await run("create rolebinding readers --role=reader --serviceaccount=team:bot -n team")
    await run("create clusterrole nodes --verb=get --resource=nodes")
    await run("create clusterrolebinding nodes --clusterrole=nodes --user=eve")
    await run("create service clusterip web --tcp=80:8080 -n team")
    await run("create service nodeport out --tcp=80:http -n team")
    await run("create service externalname far --external-name=example.com -n team")
    await run("create deployment web --image=nginx --replicas=2 -n team")
    await run("create priorityclass high --value=5")
    assert (await run("create token bot -n team --duration=20m")).count(".") == 2
    assert (await live.client.get(CONFIG_MAP, "conf", "team"))["data"] == {"a": "b"}
    binding = await live.client.get(ROLE_BINDING, "readers", "team")
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "bot", "namespace": "team"}]
    ports = (await live.client.get(SERVICE, "web", "team"))["spec"]["ports"]
    assert ports == [{"name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080}]
    deployment = await live.client.get(DEPLOYMENT, "web", "team")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["template"]["spec"]["containers"][0]["name"] == "nginx"
    account = await live.client.get(SERVICE_ACCOUNT, "bot", "team")
    assert "secrets" not in account
    assert account["metadata"]["creationTimestamp"]


@needs("kubectl")
async def test_kubectl_asks(live):
    run = Kubectl(live)
    assert (await run("auth can-i delete pods")).strip() == "yes"
    assert "*.*" in await run("auth can-i --list")
    assert "kubernetes-admin" in await run("auth whoami")


@needs("kubectl")
async def test_kubectl_reads_what_we_write(live):
    run = Kubectl(live)
    await run("create service clusterip web --tcp=80:8080")
    await run("create deployment web --image=nginx --replicas=2")
    told = await run("describe service web")
    assert "80-8080  80/TCP" in told
    assert "8080/TCP" in told
    told = await run("describe deployment web")
    assert "nginx" in told
    assert "25% max unavailable, 25% max surge" in told
    assert "system:public-info-viewer" in await run("describe clusterrolebindings")
    assert "Active" in await run("describe namespaces")


@needs("kubectl")
async def test_kubectl_hears_refusals(live):
    run = Kubectl(live)
    await run("create configmap twice")
    process = await run.start("create", "configmap", "twice")
    output, _ = await process.communicate()
    assert output.decode() == 'error: failed to create configmap: configmaps "twice" already exists\n'


@needs("kubectl")
async def test_kubectl_watches(live):
    run = Kubectl(live)
    process = await run.start("events", "--watch", "-n", "default")
    try:
        for number in range(3):
            event = {
                "metadata": {"generateName": "e", "namespace": "default"},
                "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"},
                "reason": f"Reason{number}",
                "message": f"message {number}",
                "type": "Normal",
            }
            await live.client.create(EVENT, {"apiVersion": "v1", "kind": "Event"} | event)
        seen = ""
        async with asyncio.timeout(20):
            while not all(f"message {number}" in seen for number in range(3)):
                seen += (await process.stdout.readline()).decode()
    finally:
        process.terminate()
        await process.wait()


async def test_every_verb(live):
    status, kind, body = await call(live, "POST", CONFIG_MAPS, config_map("a", data={"k": "v"}))
    created = protobuf.decode(body)
    assert (status, kind, created["data"]) == (201, MEDIA, {"k": "v"})
    status, _, body = await call(live, "PUT", f"{CONFIG_MAPS}/a", created | {"data": {"k": "w"}})
    assert (status, protobuf.decode(body)["data"]) == (200, {"k": "w"})
    status, _, body = await call(live, "PATCH", f"{CONFIG_MAPS}/a", b'{"data":{"n":"1"}}', content="application/merge-patch+json")
    assert (status, protobuf.decode(body)["data"]) == (200, {"k": "w", "n": "1"})
    status, _, body = await call(live, "GET", f"{CONFIG_MAPS}/a")
    assert protobuf.decode(body) == (await live.client.get(CONFIG_MAP, "a", "default"))
    status, kind, body = await call(live, "GET", CONFIG_MAPS)
    found = protobuf.decode(body)
    assert (kind, found["kind"], found["apiVersion"]) == (MEDIA, "ConfigMapList", "v1")
    assert [item["metadata"]["name"] for item in found["items"]] == ["a"]
    assert found["metadata"]["resourceVersion"]
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]}
    status, _, body = await call(live, "DELETE", f"{CONFIG_MAPS}/a", options)
    assert (status, protobuf.decode(body)["status"]) == (200, "Success")
    stale = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}}
    status, kind, body = await call(live, "DELETE", f"{CONFIG_MAPS}/a", stale)
    assert (status, kind, protobuf.decode(body)["reason"]) == (409, MEDIA, "Conflict")
    status, _, body = await call(live, "DELETE", f"{CONFIG_MAPS}/a")
    assert status == 200


async def test_refusals_are_protobuf_too(live):
    status, kind, body = await call(live, "GET", f"{CONFIG_MAPS}/none")
    refusal = protobuf.decode(body)
    assert (status, kind) == (404, MEDIA)
    assert refusal["message"] == 'configmaps "none" not found'
    assert refusal["details"] == {"name": "none", "kind": "configmaps"}
    status, _, body = await call(live, "POST", CONFIG_MAPS, b"k8s\0\x0a\x05")
    assert (status, protobuf.decode(body)["reason"]) == (400, "BadRequest")
    status, kind, body = await call(live, "GET", CONFIG_MAPS, client=live.anonymous)
    assert (status, kind, protobuf.decode(body)["reason"]) == (401, MEDIA, "Unauthorized")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (f"{MEDIA},application/json", MEDIA),
        (f"application/json,{MEDIA}", "application/json"),
        (f"application/json;q=0.5,{MEDIA}", MEDIA),
        (f"{MEDIA};as=Table;g=meta.k8s.io;v=v1,application/json", "application/json"),
        ("application/cbor,*/*", "application/json"),
    ],
)
async def test_what_the_client_likes_best(live, accept, kind):
    status, found, _ = await call(live, "GET", CONFIG_MAPS, accept=accept)
    assert (status, found) == (200, kind)


async def test_metadata_only(live):
    await live.client.create(CONFIG_MAP, config_map("a", data={"k": "v"}), "default")
    _, kind, body = await call(live, "GET", f"{CONFIG_MAPS}/a", accept=PARTIAL)
    one = protobuf.decode(body)
    assert (kind, one["kind"], one["apiVersion"]) == (MEDIA, "PartialObjectMetadata", "meta.k8s.io/v1")
    assert (one["metadata"]["name"], "data" in one) == ("a", False)
    _, _, body = await call(live, "GET", CONFIG_MAPS, accept=PARTIAL)
    some = protobuf.decode(body)
    assert (some["kind"], some["items"][0]["metadata"]["uid"]) == ("PartialObjectMetadataList", one["metadata"]["uid"])


async def test_large_lists(live):
    for number in range(40):
        await live.client.create(CONFIG_MAP, config_map(f"c{number:02}", data={"k": "v" * 10_000}), "default")
    _, _, body = await call(live, "GET", CONFIG_MAPS)
    found = protobuf.decode(body)
    assert [item["metadata"]["name"] for item in found["items"]] == [f"c{number:02}" for number in range(40)]


async def events(response, count):
    """So many frames of a watch."""
    found = []
    for _ in range(count):
        size = int.from_bytes(await response.content.readexactly(4), "big")
        event = protobuf.decode(protobuf.envelope("v1", "WatchEvent", await response.content.readexactly(size)))
        found.append((event["type"], event["object"]))
    return found


@pytest.mark.parametrize("accept", [MEDIA, f"{MEDIA};stream=watch", PARTIAL])
async def test_watches(live, accept):
    await live.client.create(CONFIG_MAP, config_map("a", data={"k": "v"}), "default")
    options = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with aiohttp.ClientSession() as http, http.get(
        f"{live.url}{CONFIG_MAPS}?{options}", headers={"accept": accept}, ssl=live.ssl
    ) as response, asyncio.timeout(10):  # fmt: skip
        assert response.headers["content-type"] == f"{MEDIA};stream=watch"
        initial, bookmark = await events(response, 2)
        name = "PartialObjectMetadata" if accept == PARTIAL else "ConfigMap"
        assert (initial[0], initial[1]["kind"], initial[1]["metadata"]["name"]) == ("ADDED", name, "a")
        assert bookmark[0] == "BOOKMARK"
        assert bookmark[1]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await live.client.delete(CONFIG_MAP, "a", "default")
        (gone,) = await events(response, 1)
        assert (gone[0], gone[1]["metadata"]["name"]) == ("DELETED", "a")


async def test_a_watch_from_the_future_ends_with_a_status(live):
    async with aiohttp.ClientSession() as http, http.get(
        f"{live.url}{CONFIG_MAPS}?watch=true&resourceVersion=99999999", headers={"accept": MEDIA}, ssl=live.ssl
    ) as response, asyncio.timeout(10):  # fmt: skip
        ((change, status),) = await events(response, 1)
        assert (change, status["kind"], status["status"]) == ("ERROR", "Status", "Failure")


async def test_discovery_and_what_has_no_messages(live):
    _, kind, body = await call(live, "GET", "/apis")
    assert (kind, protobuf.decode(body)["kind"]) == (MEDIA, "APIGroupList")
    _, kind, body = await call(live, "GET", "/api/v1")
    resources = protobuf.decode(body)
    assert (resources["groupVersion"], resources["kind"]) == ("v1", "APIResourceList")
    assert "watch" in next(each for each in resources["resources"] if each["name"] == "pods")["verbs"]
    assert (await call(live, "GET", "/version"))[:2] == (200, "application/json")
    assert (await call(live, "GET", "/openapi/v2", accept=f"{MEDIA},application/json"))[:2] == (200, "application/json")


async def test_subresources(live):
    await live.client.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}
    path = "/apis/apps/v1/namespaces/team/deployments"
    status, _, body = await call(live, "POST", path, deployment)
    assert status == 201, body
    _, _, body = await call(live, "GET", f"{path}/d/scale")
    scale = protobuf.decode(body)
    assert (scale["kind"], scale["spec"]) == ("Scale", {"replicas": 1})
    status, _, body = await call(live, "PUT", f"{path}/d/scale", scale | {"spec": {"replicas": 4}})
    assert (status, protobuf.decode(body)["spec"]["replicas"]) == (200, 4)
    _, _, body = await call(live, "GET", f"{path}/d/status")
    status, _, body = await call(live, "PUT", f"{path}/d/status", protobuf.decode(body) | {"status": {"replicas": 2}})
    assert (status, protobuf.decode(body)["status"]["replicas"]) == (200, 2)


async def test_bindings_evictions_and_reviews(live):
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    assert (await call(live, "POST", "/api/v1/namespaces/default/serviceaccounts", account))[0] == 201
    web = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    status, _, body = await call(live, "POST", "/api/v1/namespaces/default/pods", web)
    assert status == 201, body
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}, "target": {"kind": "Node", "name": "node-1"}}
    status, _, body = await call(live, "POST", "/api/v1/namespaces/default/pods/web/binding", binding)
    assert (status, protobuf.decode(body)["status"]) == (201, "Success")
    assert (await live.client.get(POD, "web", "default"))["spec"]["nodeName"] == "node-1"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}, "deleteOptions": {"gracePeriodSeconds": 5}}
    status, _, body = await call(live, "POST", "/api/v1/namespaces/default/pods/web/eviction", eviction)
    assert (status, protobuf.decode(body)["status"]) == (201, "Success")
    assert (await live.client.get(POD, "web", "default"))["metadata"]["deletionGracePeriodSeconds"] == 5
    attributes = {"verb": "get", "resource": "pods"}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": "eve", "resourceAttributes": attributes},
    }
    status, _, body = await call(live, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    answer = protobuf.decode(body)
    assert (status, answer["status"]["allowed"], answer["spec"]["user"]) == (201, False, "eve")
