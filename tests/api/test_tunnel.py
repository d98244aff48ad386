"""The connection between agent and server: an agent's requests, the server's requests, and the end, over real TLS in one process."""

import asyncio

import aiohttp
import pytest

from edgekube.api import catalog
from edgekube.api.types import Key
from edgekube.client.protocol import ChangeType
from edgekube.errors import ApiError, ServiceUnavailable
from edgekube.kubelet.server.http import Reply
from tests.kit.agentlink import agent_link, credential
from tests.kit.until import until

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge-1"}}


def pod(name="web", node="edge-1"):
    spec = {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}], "automountServiceAccountToken": False}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec | {"nodeName": node}}


async def account(live):
    await live.client.create(catalog.SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": "default"}})


async def test_lists_and_watches_as_the_node_and_nothing_else(live):
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(10):
        await agent.client.create(catalog.NODE, NODE)
        listed = await agent.client.list(catalog.NODE)
        assert [item.key for item in listed.items] == [Key("", "edge-1")]
        async with agent.client.watch(catalog.NODE, revision=listed.revision) as changes:
            await live.client.patch(catalog.NODE, "edge-1", "", {"metadata": {"labels": {"a": "b"}}})
            batch = await anext(changes)
            assert (batch[0].type, batch[0].item.labels["a"]) == (ChangeType.MODIFIED, "b")
        review = await agent.client.raw("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=b"{}")
        assert b'"system:node:edge-1"' in review


async def test_log_goes_through_the_tunnel(live):
    async def handle(request):
        assert (request.certificate.name, request.certificate.groups) == ("kube-apiserver", ("system:masters",))
        return Reply(200, f"log of {request.path} {request.param('tailLines')}".encode())

    async with agent_link(live, "edge-1", handle=handle) as agent, asyncio.timeout(10):
        await account(live)
        await live.client.create(catalog.NODE, NODE)
        await live.client.create(catalog.POD, pod())
        answer = await live.client.raw("GET", "/api/v1/namespaces/default/pods/web/log", query={"tailLines": "3"})
        assert answer == b"log of /containerLogs/default/web/c 3"
        assert agent.asked[0][2] == "/containerLogs/default/web/c"
        assert await live.client.raw("GET", "/api/v1/nodes/edge-1/proxy/healthz") == b"log of /healthz "


async def test_pods_are_reached_by_name_through_their_node(live):
    async def greet(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, agent_link(live, "edge-1", pods={("default", "web"): "127.0.0.1"}), asyncio.timeout(10):
        await account(live)
        await live.client.create(catalog.NODE, NODE)
        for name in ("web", "other"):
            await live.client.create(catalog.POD, pod(name))
            await live.client.patch(catalog.POD, name, "default", {"status": {"podIP": "10.42.9.9"}}, subresource="status")
        assert await live.client.raw("GET", f"/api/v1/namespaces/default/pods/web:{port}/proxy/") == b"hello"
        with pytest.raises(ApiError, match="pod default/other does not run on this node"):
            await live.client.raw("GET", f"/api/v1/namespaces/default/pods/other:{port}/proxy/")
        server.close()
        with pytest.raises(ApiError, match=f"dial tcp 127.0.0.1:{port}: connect: connection refused"):
            await live.client.raw("GET", f"/api/v1/namespaces/default/pods/web:{port}/proxy/")


async def test_a_node_without_a_connection_is_told_so(live):
    await live.client.create(catalog.NODE, NODE)
    with pytest.raises(ServiceUnavailable, match='error dialing backend: no agent connection for node "edge-1"'):
        await live.client.raw("GET", "/api/v1/nodes/edge-1/proxy/healthz")


@pytest.mark.parametrize(
    ("user", "groups"),
    [("system:node:edge-1", ()), ("edge-1", ("system:nodes",)), ("system:admin", ("system:masters",))],
)
async def test_only_a_nodes_certificate_opens_a_tunnel(live, user, groups):
    own = credential(live.folder, live.pki.authority, "x", user=user, groups=groups)
    async with agent_link(live, "edge-1", own=own, wait=False) as agent, asyncio.timeout(10):
        await until(lambda: "no attempt" not in agent.link.trouble)
        assert any(why in agent.link.trouble for why in ("forbidden", "only a node may connect here", "is not known here"))
        assert not live.tunnels.connected("edge-1")


async def test_a_certificate_is_needed_whatever_else_is_shown(live):
    url = f"{live.url}/v1-edgekube/connect"
    headers = {"Connection": "Upgrade", "Upgrade": "edgekube-tunnel"}
    async with aiohttp.ClientSession() as session:
        async with session.get(url, ssl=live.anonymous, headers=headers) as answer:
            assert answer.status == 401
        as_node = {"Impersonate-User": "system:node:edge-1", "Impersonate-Group": "system:nodes"}
        async with session.get(url, ssl=live.ssl, headers=headers | as_node) as answer:
            assert answer.status == 403


async def test_a_node_that_is_closed_is_cut_off_with_its_running_streams(live):
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(10):
        session = agent.link.session
        listed = await agent.client.list(catalog.NODE)
        async with agent.client.watch(catalog.NODE, revision=listed.revision) as changes:
            live.tunnels.close("edge-1", "the node was revoked")
            with pytest.raises(ServiceUnavailable):
                await anext(changes)
        assert await session.closed == "the node was revoked"


async def test_requests_fail_at_once_while_there_is_no_server(live):
    async with agent_link(live, "edge-1", servers=["127.0.0.1:1"], wait=False) as agent, asyncio.timeout(5):
        await until(lambda: "refused" in agent.link.trouble)
        with pytest.raises(ServiceUnavailable, match="no connection to a server: 127.0.0.1:1: connection refused"):
            await agent.client.list(catalog.NODE)


async def test_a_dead_address_beside_a_good_one_costs_no_time(live):
    async with agent_link(live, "edge-1", servers=["192.0.2.1:6443", f"localhost:{live.port}"], wait=False) as agent:
        await agent.connected(3)


async def test_a_renewed_certificate_takes_over_without_losing_what_runs(live):
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(10):
        first = agent.link.session
        listed = await agent.client.list(catalog.NODE)
        async with agent.client.watch(catalog.NODE, revision=listed.revision) as changes:
            agent.link.renewed()
            await until(lambda: agent.link.session is not first)
            await agent.client.create(catalog.NODE, NODE)  # on the new one
            batch = await anext(changes)  # still on the old one
            assert batch[0].item.key == Key("", "edge-1")
            assert not first.closed.done()
        assert await first.closed == "the last stream has ended"
        assert live.tunnels.connected("edge-1")
