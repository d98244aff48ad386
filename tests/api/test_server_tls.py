"""The server as clients see it: TLS, who may in, sizes, encodings, connections."""

import asyncio
import gzip
import io
import json
import ssl

import aiohttp
import pytest

from edgekube.api.catalog import CONFIG_MAP
from edgekube.apiserver.bodies import MAX_BODY
from edgekube.apiserver.request import TunnelResponse
from edgekube.apiserver.subresources.protocol import Subresource
from tests.kit.api import config_map

JSON = {"content-type": "application/json"}
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def session(**options):
    return aiohttp.ClientSession(auto_decompress=False, **options)


async def raw(live, request, context=None):
    """Bytes in, bytes out, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port, ssl=context or live.ssl)
    writer.write(request)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_certificates_are_identities(live):
    async with session() as http:
        async with http.post(f"{live.url}/apis/authentication.k8s.io/v1/selfsubjectreviews", json={}, ssl=live.ssl) as response:
            info = (await response.json())["status"]["userInfo"]
        assert "system:masters" in info["groups"]
        for path, code in (("/livez", 200), ("/version", 200), ("/api", 401), (CONFIG_MAPS, 401), ("/metrics", 401)):
            async with http.get(live.url + path, ssl=live.anonymous) as response:
                assert response.status == code, path
        async with http.get(live.url + "/api", ssl=live.anonymous, headers={"authorization": "Bearer nonsense"}) as response:
            answer = await response.json()
            assert (response.status, answer["reason"], answer["message"]) == (401, "Unauthorized", "Unauthorized")


async def test_foreign_client_certificates_do_not_get_in(live, tmp_path):
    from edgekube.lib import pki
    from edgekube.lib.clock import SystemClock

    now = SystemClock().now()
    foreign = tmp_path / "foreign.pem"
    foreign.write_bytes(pki.issue(pki.create_authority("other", now), pki.Subject("admin", ("system:masters",), client=True), now))
    context = ssl.create_default_context(cafile=str(live.pki.ca))
    context.load_cert_chain(foreign)
    async with session() as http:
        with pytest.raises(aiohttp.ClientError):
            async with http.get(live.url + "/livez", ssl=context) as response:
                await response.read()


async def test_impersonation(live):
    async with session() as http:
        headers = {"Impersonate-User": "jane", "Impersonate-Group": "dev"}
        async with http.get(live.url + CONFIG_MAPS, ssl=live.ssl, headers=headers) as response:
            answer = await response.json()
        assert response.status == 403
        assert answer["message"] == (
            'configmaps is forbidden: User "jane" cannot list resource "configmaps" in API group "" in the namespace "default"'
        )
        async with http.post(
            f"{live.url}/apis/authentication.k8s.io/v1/selfsubjectreviews", json={}, ssl=live.ssl, headers=headers
        ) as response:
            assert (await response.json())["status"]["userInfo"]["groups"] == ["dev", "system:authenticated"]
        async with http.get(live.url + "/api", ssl=live.ssl, headers={"Impersonate-Group": "dev"}) as response:
            assert response.status in (400, 500)


async def test_body_limit_and_keep_alive(live):
    async with session(connector=aiohttp.TCPConnector(limit=1)) as http:
        async with http.post(live.url + CONFIG_MAPS, data=io.BytesIO(b"x" * (MAX_BODY + 1)), headers=JSON, ssl=live.ssl) as response:
            assert response.status == 413
        for number in range(3):
            async with http.post(live.url + CONFIG_MAPS, json=config_map(f"c{number}"), ssl=live.ssl) as response:
                assert response.status == 201
        async with http.head(f"{live.url}{CONFIG_MAPS}/c0", ssl=live.ssl) as response:
            assert response.status == 200
            assert await response.read() == b""


async def test_chunked_bodies_and_expect(live):
    body = json.dumps(config_map("a")).encode()
    head = f"POST {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    chunked = head + "Transfer-Encoding: chunked\r\n\r\n"
    answer = await raw(live, chunked.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert answer.startswith(b"HTTP/1.1 201 Created")
    body = json.dumps(config_map("b")).encode()
    answer = await raw(live, f"{head}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created")
    assert (await raw(live, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.")


async def test_large_answers_are_compressed_for_those_who_ask(live):
    for number in range(40):
        await live.client.create(CONFIG_MAP, config_map(f"c{number}", {"k": "x" * 8000}, namespace="default"))
    await live.client.create(CONFIG_MAP, config_map("big", {"k": "y" * 200_000}, namespace="default"))
    async with session() as http:
        for path in (CONFIG_MAPS, f"{CONFIG_MAPS}/big"):
            async with http.get(live.url + path, ssl=live.ssl, headers={"accept-encoding": "gzip"}) as response:
                assert response.headers["content-encoding"] == "gzip"
                packed = gzip.decompress(await response.read())
            async with http.get(live.url + path, ssl=live.ssl, headers={"accept-encoding": "identity"}) as response:
                assert "content-encoding" not in response.headers
                assert await response.read() == packed
            assert json.loads(packed)


async def test_watch_lasts_until_its_end_and_the_connection_goes_on(live):
    async with session(connector=aiohttp.TCPConnector(limit=1)) as http:
        async with http.get(f"{live.url}{CONFIG_MAPS}?watch=1&timeoutSeconds=1", ssl=live.ssl) as response:
            await live.client.create(CONFIG_MAP, config_map("a", namespace="default"))
            lines = [json.loads(line) async for line in response.content]
        assert [(line["type"], line["object"]["metadata"]["name"]) for line in lines] == [("ADDED", "a")]
        async with http.get(live.url + "/livez", ssl=live.ssl) as response:
            assert response.status == 200
    assert not live.server.hub._feeds


async def test_a_client_that_leaves_is_forgotten(live):
    async with session() as http:
        response = await http.get(f"{live.url}{CONFIG_MAPS}?watch=1", ssl=live.ssl)
        (feed,) = live.server.hub._feeds.values()
        stopped, stop = asyncio.Event(), feed.stop
        feed.stop = lambda: (stop(), stopped.set())
        response.close()
        async with asyncio.timeout(5):
            await stopped.wait()
    assert not live.server.hub._feeds


class Echo(Subresource):
    """Gives the connection's bytes back in upper case."""

    name = "attach"
    resources = ("pods",)
    streams = True

    async def connect(self, server, op, request):
        async def run(reader, writer):
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
            while data := await reader.read(1000):
                writer.write(data.upper())
                await writer.drain()

        return TunnelResponse(run)


async def test_connections_are_handed_over(live):
    live.server._subresources = (Echo(), *live.server._subresources)
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port, ssl=live.ssl)
    for protocol in ("websocket", "SPDY/3.1"):
        head = f"POST /api/v1/namespaces/default/pods/p/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port, ssl=live.ssl)
        writer.write(f"{head}Content-Length: 0\r\n\r\n".encode())
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            for _ in range(3):
                writer.write(b"abc" * 1000)
                assert await reader.readexactly(3000) == b"ABC" * 1000
            writer.close()
    async with session() as http, http.get(live.url + "/livez", ssl=live.ssl) as response:
        assert response.status == 200


async def test_health(live):
    async with aiohttp.ClientSession() as http:

        async def text(path):
            async with http.get(live.url + path, ssl=live.ssl) as response:
                return response.status, await response.text()

        assert await text("/readyz") == (200, "ok")
        status, answer = await text("/livez?verbose")
        assert answer.splitlines() == ["[+]ping ok", "livez check passed"]
        live.server.health.starting = True
        status, answer = await text("/readyz")
        assert status == 500
        assert "[-]components failed" in answer
        assert (await text("/livez"))[0] == 200
        assert await text("/readyz/ping") == (200, "ok")
        assert (await text("/readyz/nothing"))[0] == 404
        status, answer = await text("/metrics")
        assert "apiserver_request_total" in answer
        status, answer = await text("/")
        assert "/apis/apps/v1" in json.loads(answer)["paths"]


async def test_a_renewed_certificate_is_used_for_new_connections(live):
    from edgekube.lib import pki
    from edgekube.lib.clock import SystemClock

    reader, writer = await asyncio.open_connection("127.0.0.1", live.port, ssl=live.ssl)
    before = writer.get_extra_info("ssl_object").getpeercert(True)
    subject = pki.Subject("kube-apiserver", addresses=("127.0.0.1",), server=True)
    live.pki.apiserver.write_bytes(pki.issue(live.pki.authority.read_bytes(), subject, SystemClock().now()))
    live.component.reload()
    _, second = await asyncio.open_connection("127.0.0.1", live.port, ssl=live.ssl)
    assert second.get_extra_info("ssl_object").getpeercert(True) != before
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    second.close()
