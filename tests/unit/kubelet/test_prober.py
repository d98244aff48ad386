"""Probes against real sockets: HTTP with redirects and TLS-less oddities, TCP, gRPC health by hand-made HTTP/2 frames, exec."""

import asyncio
import contextlib

import pytest

from edgekube.kubelet import grpchealth, prober
from edgekube.kubelet.lifecycle import resolve_port
from edgekube.kubelet.prober import Target
from tests.kit.fake_runtime import FakeRuntime
from tests.unit.kubelet.kit import spec


@contextlib.asynccontextmanager
async def listening(answer):
    """A server that calls `answer(reader, writer)`; yields its port."""

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def http(text, seen=None):
    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head.decode())
        writer.write(text.encode())
        await writer.drain()

    return answer


async def run(kind, port, **fields):
    target = Target(spec(ports=[{"name": "web", "containerPort": port}]), "id", "127.0.0.1")
    return await prober.probe({kind: {"port": port, **fields}, "timeoutSeconds": 1}, target, runtime=FakeRuntime())


@pytest.mark.parametrize(("text", "verdict", "said"), [
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", prober.SUCCESS, "ok"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", prober.SUCCESS, "ok"),
    ("HTTP/1.0 399 Odd\r\n\r\n", prober.SUCCESS, ""),
    ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", prober.FAILURE, "HTTP probe failed with statuscode: 500"),
    ("HTTP/1.1 302 F\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n", prober.WARNING, "Probe terminated redirects, Response body: "),
    ("", prober.FAILURE, "EOF"),
    ("junk\r\n\r\n", prober.FAILURE, "malformed HTTP response"),
])  # fmt: skip
async def test_http(text, verdict, said):
    async with listening(http(text)) as port:
        result = await run("httpGet", port, path="/x")
    assert result.verdict == verdict
    assert said in result.text


async def test_http_headers_and_ports_by_name():
    seen = []
    async with listening(http("HTTP/1.1 204 No\r\n\r\n", seen)) as port:
        target = Target(spec(ports=[{"name": "web", "containerPort": port}]), "id", "127.0.0.1")
        probe = {
            "httpGet": {"port": "web", "path": "h?q=1", "httpHeaders": [{"name": "X-A", "value": "1"}, {"name": "Host", "value": "a.b"}]}
        }
        assert (await prober.probe(probe, target, runtime=FakeRuntime())).verdict == prober.SUCCESS
    head = seen[0]
    assert head.startswith("GET /h?q=1 HTTP/1.1\r\n")
    assert "X-A: 1\r\n" in head
    assert head.count("Host:") == 1
    assert "Host: a.b\r\n" in head
    assert "User-Agent: kube-probe/1.36\r\n" in head


async def test_http_follows_redirects_on_the_same_host():
    texts = ["HTTP/1.1 302 F\r\nLocation: /second\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    seen = []

    async def answer(reader, writer):
        seen.append((await reader.readuntil(b"\r\n\r\n")).decode().split()[1])
        writer.write(texts[len(seen) - 1].encode())
        await writer.drain()

    async with listening(answer) as port:
        assert (await run("httpGet", port, path="/first")).verdict == prober.SUCCESS
    assert seen == ["/first", "/second"]


async def test_nobody_listens():
    async with listening(http("")) as port:
        pass
    result = await run("httpGet", port, path="/")
    assert result.text == f'Get "http://127.0.0.1:{port}/": dial tcp 127.0.0.1:{port}: connect: connection refused'
    result = await run("tcpSocket", port)
    assert (result.verdict, result.text) == (prober.FAILURE, f"dial tcp 127.0.0.1:{port}: connect: connection refused")


async def test_tcp():
    async with listening(http("")) as port:
        assert (await run("tcpSocket", port)).verdict == prober.SUCCESS


async def test_silence_is_a_timeout():
    async def silent(reader, writer):
        await reader.read()

    async with listening(silent) as port:
        result = await run("httpGet", port, path="/")
        assert result.text.endswith("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")


def grpc(status, *, code="0"):
    """A server that speaks just enough HTTP/2 to answer one Check."""

    async def answer(reader, writer):
        from hpack import Encoder

        await reader.readexactly(24)
        frame, seen = grpchealth._frame, b""
        while True:
            head = await reader.readexactly(9)
            seen = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == 0:
                break
        assert seen[5:] in (b"", b"\x0a\x02db")
        encoder = Encoder()
        body = b"" if code != "0" else b"\x00" + (2).to_bytes(4, "big") + bytes((8, status))
        writer.write(frame(4, 0, 0, b"") + frame(1, 4, 1, encoder.encode([(":status", "200"), ("content-type", "application/grpc")])))
        writer.write(frame(6, 0, 0, b"12345678") + frame(0, 0, 1, body) + frame(1, 5, 1, encoder.encode([("grpc-status", code)])))
        await writer.drain()

    return answer


@pytest.mark.parametrize(("server", "verdict", "said"), [
    (grpc(1), prober.SUCCESS, "service healthy"),
    (grpc(2), prober.FAILURE, 'service unhealthy (responded with "NOT_SERVING")'),
    (grpc(0, code="12"), prober.FAILURE, "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"),
    (http("HTTP/1.1 400 Bad\r\n\r\n"), prober.FAILURE, "error: "),
])  # fmt: skip
async def test_grpc(server, verdict, said):
    async with listening(server) as port:
        result = await run("grpc", port, service="db")
    assert result.verdict == verdict
    assert said in result.text


async def test_exec():
    runtime = FakeRuntime()
    target = Target(spec(), "nothing", "")
    result = await prober.probe({"exec": {"command": ["true"]}}, target, runtime=runtime)
    assert result.verdict == prober.ERROR  # no such container: counts neither way


@pytest.mark.parametrize(("port", "found"), [(80, 80), ("80", 80), ("web", 8080)])
def test_ports(port, found):
    assert resolve_port(spec(ports=[{"name": "web", "containerPort": 8080}]), port) == found


@pytest.mark.parametrize("port", ["nope", 0, 70000])
def test_bad_ports(port):
    with pytest.raises(ValueError, match="port"):
        resolve_port(spec(), port)
