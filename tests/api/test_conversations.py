"""log, exec and proxy: from a client over TLS through the server to a kubelet and back."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgekube.api import catalog
from tests.api.secured import Api, Kubelet, kubelet, secured


def own_address() -> str:
    """An address of this machine that is not loopback: nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        try:
            found.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(found.getsockname()[0])


LOG = "/api/v1/namespaces/default/pods/web/log"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with secured(tmp_path) as made:
        yield made


@pytest.fixture
async def node(api: Api) -> AsyncIterator[Kubelet]:
    async with kubelet(api) as made:
        yield made


async def pod(api: Api, *, bound: bool = True, containers: int = 1) -> None:
    spec = {"containers": [{"name": f"c{index}", "image": "i"} for index in range(containers)]}
    await api.client.create(catalog.POD, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
    if bound:
        status, answer = await api.call(
            "POST", "/api/v1/namespaces/default/pods/web/binding", {"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "pi"}}
        )
        assert (status, answer["status"]) == (201, "Success")


async def test_binding_once(api: Api, node: Kubelet) -> None:
    await pod(api)
    target = {"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "other"}}
    status, refused = await api.call("POST", "/api/v1/namespaces/default/bindings", target)
    assert status == 409
    assert refused["message"].endswith('pod web is already assigned to node "pi"')
    status, refused = await api.call("POST", "/api/v1/namespaces/default/pods/web/binding", {"target": {"kind": "Node"}})
    assert status == 422


async def test_log_is_passed_on(api: Api, node: Kubelet) -> None:
    await pod(api)
    node.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nline 1\r\n1\r\n\n\r\n0\r\n\r\n"
    assert await api.call("GET", f"{LOG}?tailLines=5&follow=true&container=c0") == (200, "line 1\n")
    head = node.asked[0].decode()
    assert head.startswith("GET /containerLogs/default/web/c0?follow=true&tailLines=5 HTTP/1.1\r\n")
    assert "uthorization" not in head


async def test_logs_refusals(api: Api, node: Kubelet) -> None:
    await pod(api, bound=False, containers=2)
    status, refused = await api.call("GET", LOG)
    assert (status, refused["message"]) == (400, "a container name must be specified for pod web, choose one of: [c0 c1]")
    assert await api.call("GET", f"{LOG}?container=c1") == (200, "")
    status, refused = await api.call("GET", f"{LOG}?container=c1&tailLines=-1")
    assert (status, refused["reason"]) == (422, "Invalid")
    status, refused = await api.call("GET", "/api/v1/namespaces/default/pods/none/log")
    assert (status, refused["message"]) == (404, 'pods "none" not found')


async def test_kubelets_refusal_reaches_the_client(api: Api, node: Kubelet) -> None:
    await pod(api)
    text = b'container "c0" in pod "web" is waiting to start: ContainerCreating'
    node.answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
    status, refused = await api.call("GET", LOG)
    assert (status, refused["reason"], refused["message"]) == (400, "BadRequest", text.decode())


async def open_exec(api: Api, query: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("localhost", api.port, ssl=api.tls(api.pki.admin))
    lines = [
        f"GET /api/v1/namespaces/default/pods/web/exec?{query} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: v5.channel.k8s.io",
        "Authorization: Bearer none-of-your-business",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await writer.drain()
    return reader, writer


async def test_exec_is_a_tunnel(api: Api, node: Kubelet) -> None:
    await pod(api)
    node.answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data.upper())
            await writer.drain()
            if b"quit" in data:
                return

    node.talk = echo
    reader, writer = await open_exec(api, "command=sh&command=-c&command=echo%20%26&stdin=true&stdout=1&tty=0")
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"
        writer.write(b"x" * 300_000)
        assert await reader.readexactly(300_000) == b"X" * 300_000
        writer.write(b"quit")
        assert await reader.read() == b"QUIT"
    writer.close()
    asked = node.asked[0].decode()
    assert asked.startswith("GET /exec/default/web/c0?input=1&output=1&command=sh&command=-c&command=echo%20%26 HTTP/1.1\r\n")
    assert "none-of-your-business" not in asked
    assert "sec-websocket-protocol: v5.channel.k8s.io" in asked.lower()


async def test_exec_refusals(api: Api, node: Kubelet) -> None:
    await pod(api, bound=False)
    status, refused = await api.call("GET", "/api/v1/namespaces/default/pods/web/exec?command=ls")
    assert (status, refused["message"]) == (400, "Upgrade request required")
    reader, writer = await open_exec(api, "command=ls")
    async with asyncio.timeout(10):
        answer = await reader.read(4096)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"pod web does not have a host assigned" in answer
    writer.close()


async def test_refused_upgrade_ends_the_connection(api: Api, node: Kubelet) -> None:
    await pod(api)
    node.answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope"
    reader, writer = await open_exec(api, "command=ls")
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert answer.endswith(b"nope")
    writer.close()


async def test_node_proxy(api: Api, node: Kubelet) -> None:
    node.answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
    assert await api.call("GET", "/api/v1/nodes/pi/proxy/stats/summary?only_cpu=true") == (200, "ok")
    assert node.asked[0].startswith(b"GET /stats/summary?only_cpu=true HTTP/1.1\r\n")
    status, _ = await api.call("GET", "/api/v1/nodes/pi/proxy/x", credential=api.certificate("ann"))
    assert status == 403
    assert (await api.call("GET", "/api/v1/nodes/none/proxy/x"))[0] == 404


async def test_service_proxy(api: Api) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        body = request.split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(web, own_address(), 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        meta = {"name": "web", "namespace": "default"}
        await api.client.create(catalog.SERVICE, {"metadata": meta, "spec": {"ports": [{"port": 80}]}})
        path = "/api/v1/namespaces/default/services/web/proxy"
        status, refused = await api.call("GET", f"{path}/a")
        assert (status, refused["message"]) == (503, 'no endpoints available for service "web"')
        labels = {"kubernetes.io/service-name": "web"}
        slice_ = {"addressType": "IPv4", "endpoints": [{"addresses": [host]}], "ports": [{"name": "", "port": port}]}
        await api.client.create(catalog.ENDPOINT_SLICE, {"metadata": meta | {"labels": labels}, **slice_})
        assert await api.call("GET", f"{path}/a/b?c=d") == (200, "/a/b?c=d")
        assert (await api.call("GET", path))[0] == 301


async def test_eviction_deletes(api: Api) -> None:
    await pod(api, bound=False)
    path = "/api/v1/namespaces/default/pods/web/eviction"
    wrong = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "other"}}
    assert (await api.call("POST", path, wrong))[0] == 400
    stale = {"metadata": {"name": "web"}, "deleteOptions": {"preconditions": {"uid": "other"}}}
    assert (await api.call("POST", path, stale))[0] == 409
    dry = {"metadata": {"name": "web"}, "deleteOptions": {"dryRun": ["All"]}}
    assert (await api.call("POST", path, dry))[0] == 201
    assert (await api.call("GET", "/api/v1/namespaces/default/pods/web"))[0] == 200
    status, answer = await api.call("POST", path, {"metadata": {"name": "web"}})
    assert (status, answer["status"]) == (201, "Success")
    assert (await api.call("GET", "/api/v1/namespaces/default/pods/web"))[0] == 404
