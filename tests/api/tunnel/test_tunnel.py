"""The connection between agent and server: an agent's requests, the server's requests, and the end, over real TLS in one process."""

import asyncio
import gc
import socket
from datetime import timedelta

import aiohttp
import pytest

from edgekube.agent import link
from edgekube.agent.dial import Address
from edgekube.api import catalog
from edgekube.api.types import Key
from edgekube.client.protocol import ChangeType
from edgekube.errors import ApiError, ServiceUnavailable
from edgekube.kubelet.server.http import Reply
from edgekube.lib.clock import SystemClock
from edgekube.lib.mux.streams import open_streams
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


async def test_a_certificate_renewed_while_a_connection_is_made_asks_for_another(live):
    """The one being made has still proved itself with the old one."""
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(10):
        reach, dialing, go = agent.link._reach, asyncio.Event(), asyncio.Event()
        first, dials = agent.link.session, []

        class Slow:
            async def __call__(self):
                dials.append(agent.link.session)
                found = await reach()
                dialing.set()
                await go.wait()
                return found

            close = reach.close

        agent.link._reach = Slow()
        agent.link.renewed()
        await dialing.wait()
        await agent.client.list(catalog.NODE)  # the old one is good until the new one is
        assert agent.link.session is first
        agent.link.renewed()
        go.set()
        await until(lambda: len(dials) == 2)
        await until(lambda: agent.link.session not in (first, dials[1]))
        assert dials[0] is first
        assert dials[1] is not first


async def test_a_connection_that_only_finishes_ends_too_when_its_address_is_gone(live, monkeypatch):
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(10):
        first, gone = agent.link.session, []
        listed = await agent.client.list(catalog.NODE)
        async with agent.client.watch(catalog.NODE, revision=listed.revision) as changes:
            gone.append(agent.link._open[first])
            agent.link.renewed()
            await until(lambda: agent.link.session is not first)
            monkeypatch.setattr(link, "is_gone", lambda sockname: sockname in gone)
            agent.link.kick()
            with pytest.raises(ApiError):  # not after the keep-alive only: the watcher lists again at once
                await anext(changes)
        assert await first.closed == "the address that it was made from is gone"
        assert agent.link.connected


async def test_streams_that_no_side_asked_for_are_refused(live):
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(10):
        for kind, label in (("kubelet", ""), ("pod", "default/web/80/http"), ("tcp", "10.0.0.1:22"), ("servers", "evil:1")):
            reader, _ = open_streams(agent.link.session, kind, label, limit=1000)
            with pytest.raises(ConnectionResetError, match=f"no streams of kind {kind} are answered here"):
                await reader.read()
        for kind, label, why in (
            ("http", "", "no streams of kind http"),
            ("tcp", "10.0.0.1:22", "no streams of kind tcp"),
            ("pod", "10.0.0.1:22", "a pod is named by"),
            ("pod", "default/web/0/http", "a pod is named by"),
            ("pod", "default/web/80/ftp", "a pod is named by"),
            ("pod", "default/web/80/http", "pod default/web does not run on this node"),
        ):
            reader, _ = live.tunnels.open("edge-1", kind, label)
            with pytest.raises(ConnectionResetError, match=why):
                await reader.read()


async def test_a_tunnel_leads_to_no_other_tunnel(live):
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(10):
        reader, writer = open_streams(agent.link.session, "http", "", limit=10000)
        writer.write(b"GET /v1-edgekube/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: edgekube-tunnel\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        assert agent.link.connected


async def test_what_a_node_says_it_is_does_not_matter(live):
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(10):
        reader, writer = open_streams(agent.link.session, "http", "", limit=10000)
        head = "Impersonate-User: system:admin\r\nImpersonate-Group: system:masters\r\nAuthorization: Bearer x\r\nX-Remote-User: admin\r\n"
        writer.write(f"GET /api/v1/secrets HTTP/1.1\r\nHost: x\r\n{head}Connection: close\r\n\r\n".encode())
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 403")
        assert b'User \\"system:node:edge-1\\" cannot impersonate' in answer


async def test_a_watch_goes_on_beside_a_long_transfer(live):
    async def swallow(reader, writer):
        while await reader.read(65536):
            pass
        writer.write(b"done")
        writer.close()

    async with agent_link(live, "edge-1", serve=swallow) as agent, asyncio.timeout(60):
        await live.client.create(catalog.NODE, NODE)
        listed = await agent.client.list(catalog.NODE)
        reader, writer = live.tunnels.open("edge-1", "kubelet")
        sent = 0

        async def pour():
            nonlocal sent
            while sent < 100 << 20:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
            writer.write_eof()
            assert await reader.read() == b"done"

        async with asyncio.TaskGroup() as group, agent.client.watch(catalog.NODE, revision=listed.revision) as changes:
            pouring = group.create_task(pour())
            beside = 0
            while not pouring.done():
                async with asyncio.timeout(2):
                    await live.client.patch(catalog.NODE, "edge-1", "", {"metadata": {"labels": {"n": str(beside)}}})
                    await anext(changes)
                beside += 1
            assert beside >= 3


async def test_a_slow_reader_of_a_watch_holds_up_nobody(live):
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(20):
        await live.client.create(catalog.NODE, NODE)
        listed = await agent.client.list(catalog.NODE)
        reader, writer = open_streams(agent.link.session, "http", "", limit=1000)
        writer.write(f"GET /api/v1/nodes?watch=1&resourceVersion={listed.revision} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        for number in range(60):
            await live.client.patch(catalog.NODE, "edge-1", "", {"metadata": {"annotations": {"a": str(number) + "x" * 20000}}})
        assert (await agent.client.get(catalog.NODE, "edge-1"))["metadata"]["annotations"]["a"].startswith("59")
        held = next(stream for stream in agent.link.session.streams.values() if stream is writer.transport)
        assert sum(map(len, held._held or ())) <= 256 * 1024


async def test_the_newest_connection_of_a_node_is_used_and_the_older_one_finishes(live):
    async def first(request):
        return Reply(200, b"first")

    async def second(request):
        return Reply(200, b"second")

    async with agent_link(live, "edge-1", handle=first) as old, asyncio.timeout(20):
        await live.client.create(catalog.NODE, NODE)
        assert await live.client.raw("GET", "/api/v1/nodes/edge-1/proxy/x") == b"first"
        session = old.link.session
        listed = await old.client.list(catalog.NODE)
        async with old.client.watch(catalog.NODE, revision=listed.revision) as changes:
            old.task.cancel()  # it dials no more
            before = old.link._open
            async with agent_link(live, "edge-1", handle=second, own=old.credential, process=old.link.process):
                assert await live.client.raw("GET", "/api/v1/nodes/edge-1/proxy/x") == b"second"
            assert before is not None
            with pytest.raises(ServiceUnavailable):
                await anext(changes)
        assert session.closed.done()


async def test_two_machines_with_one_identity_do_not_chase_each_other(live):
    """The first stays, the second is told why; it gets in when the first has ended."""
    async with (
        agent_link(live, "edge-1") as one,
        agent_link(live, "edge-1", own=one.credential, wait=False) as other,
        asyncio.timeout(10),
    ):
        await until(lambda: "is connected from 127.0.0.1 with the same key" in other.link.trouble)
        assert (one.link.generation, other.link.generation) == (1, 0)
        one.task.cancel()
        await until(lambda: not live.tunnels.connected("edge-1"))
        other.link.kick()
        await other.connected()


async def test_a_process_that_was_killed_is_no_rival_of_the_next(live):
    async with agent_link(live, "edge-1") as one, asyncio.timeout(10):
        one.link.session._transport.abort()
        one.task.cancel()
        async with agent_link(live, "edge-1", own=one.credential) as other:
            assert other.link.generation == 1


async def test_a_machine_that_is_gone_without_a_word_is_no_rival_for_long(live, monkeypatch):
    async with agent_link(live, "edge-1") as one, asyncio.timeout(10):
        monkeypatch.setattr(one.link.session, "data_received", lambda _data: None)  # it hears nothing, so it answers nothing
        one.link.session._transport.pause_reading()
        async with agent_link(live, "edge-1", own=one.credential) as other:
            assert other.link.generation == 1


async def test_the_server_stops_at_once_and_agents_know_why(live):
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(10):
        session = agent.link.session
        listed = await agent.client.list(catalog.NODE)
        async with agent.client.watch(catalog.NODE, revision=listed.revision):
            live.tunnels.close_all()
            assert await session.closed == "the server stops"


async def test_an_expired_certificate_ends_its_connection(live):
    class Later(SystemClock):
        ahead = timedelta(0)

        def now(self):
            return super().now() + self.ahead

        def span(self):
            return self.now(), self.now()

    clock = Later()
    live.tunnels._clock = clock
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(10):
        session = agent.link.session
        tunnel = live.tunnels._nodes["edge-1"][0]
        assert 3590 < tunnel.expiry.when() - asyncio.get_running_loop().time() <= 3601
        clock.ahead = timedelta(days=400)
        tunnel.expiry._run() if hasattr(tunnel.expiry, "_run") else live.tunnels._expire(tunnel, 0)
        assert await session.closed == "the certificate of the node has expired"


async def test_nothing_piles_up_while_the_server_is_away(live):
    async with agent_link(live, "edge-1") as agent, asyncio.timeout(60):
        session = agent.link.session
        agent.servers._configured, agent.servers._last = (Address("127.0.0.1", 1),), None
        live.tunnels.close("edge-1")
        await session.closed

        async def tries(count):
            for _ in range(count):
                with pytest.raises(ServiceUnavailable):
                    await agent.client.raw("POST", "/api/v1/nodes", body=b"x" * 10000)
                await asyncio.sleep(0)
            gc.collect()
            return len(gc.get_objects())

        await tries(100)
        before = await tries(100)
        assert await tries(1000) - before < 300


async def test_addresses_of_servers_are_told_and_remembered(live, tmp_path):
    live.tunnels._addresses = lambda: ["127.0.0.1:1", f"127.0.0.1:{live.port}"]
    path = tmp_path / "servers.json"
    async with agent_link(live, "edge-1", path=path) as agent, asyncio.timeout(10):
        assert agent.servers._told == (Address("127.0.0.1", 1), Address("127.0.0.1", live.port))
        live.tunnels._addresses = lambda: ["[fd00::7]:6443", f"127.0.0.1:{live.port}"]
        live.tunnels.publish()
        await until(lambda: Address("fd00::7", 6443) in agent.servers.candidates())
        assert "fd00::7" in path.read_text()
    async with agent_link(live, "edge-1", path=path, servers=["127.0.0.1:1"], own=agent.credential) as again:
        assert again.link.connected


async def test_hints_of_strangers_do_not_keep_an_agent_from_its_server(live):
    """A flood of new addresses that accept and say nothing, while the agent dials."""
    silent = socket.create_server(("0.0.0.0", 0), backlog=1000)
    port = silent.getsockname()[1]
    with silent:
        async with agent_link(live, "edge-1", wait=False) as agent, asyncio.timeout(8):
            number = 0
            while not agent.link.connected:
                number += 1
                agent.link.heard([Address(f"127.0.{number // 250 % 250}.{number % 250 + 2}", port)])
                await asyncio.sleep(0.005 if number > 8 else 0)
            assert len(agent.servers.candidates()) < 12


async def test_telling_addresses_never_fails(live):
    """More than fit, and an agent that takes no more streams."""
    live.tunnels._addresses = lambda: [f"[fd00:1111:2222:3333:4444:5555:6666:{n:x}]:6443" for n in range(500)]

    async def hold(reader, _writer):
        await reader.read()

    async with agent_link(live, "edge-1", serve=hold) as agent, asyncio.timeout(10):
        live.tunnels.publish()
        await until(lambda: len(agent.servers._told) == 12)
        kept = [live.tunnels.open("edge-1", "kubelet") for _ in range(256)]
        with pytest.raises(ServiceUnavailable, match='node "edge-1": 256 streams are open already'):
            live.tunnels.open("edge-1", "kubelet")
        live.tunnels.publish()
        assert agent.link.connected
        for _, writer in kept:
            writer.transport.abort()
