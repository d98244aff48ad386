"""The node's API over real TLS with the fake runtime: who gets in, pages, logs, exec and attach in every dialect, port-forward."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest

from edgekube.kubelet.runtime.protocol import RuntimeFailure
from edgekube.kubelet.server import component
from edgekube.kubelet.server.component import KubeletServer
from edgekube.kubelet.server.gate import CertificateGate
from edgekube.lib import spdy, websocket
from edgekube.lib.clock import SystemClock
from edgekube.lib.tasks import TaskScope
from tests.kit.fake_runtime import BUSYBOX, FakeRuntime
from tests.kit.kubelet_client import Caller, Certificates, FewPods, SpdyClient, known_pod, pieces
from tests.kit.runtimes import container, make_pod

EXEC = "/exec/default/web/main?"
STATUS = {"metadata": {}, "status": "Success"}


class World:
    """A server with one running pod."""

    def __init__(self, folder: Path) -> None:
        self.runtime, self.pods = FakeRuntime(), FewPods()
        self.certificates = Certificates.make(folder)
        self.folder = folder
        self.server = KubeletServer(
            node_name="n1",
            address="127.0.0.1",
            port=0,
            tls=self.certificates.server(),
            gate=CertificateGate(users=["apiserver"]),
            pods=self.pods,
            runtime=self.runtime,
            clock=SystemClock(),
            host_logs=folder,
        )
        self.container_id = ""
        self.log = folder / "none"

    async def start(self) -> None:
        box = await make_pod(self.runtime, "web", host_network=True)
        spec = container(box, BUSYBOX.id, ["sleep", "inf"], log_dir=self.folder)
        self.container_id = await self.runtime.create(spec, box)
        await self.runtime.start(self.container_id)
        self.log = spec.log_path
        self.pods.known.append(known_pod(box, self.container_id))

    def caller(self, name: str = "apiserver", *groups: str) -> Caller:
        return Caller(self.server.port, self.certificates.client(name, *groups))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.start()
    async with TaskScope("test") as scope, asyncio.timeout(20):
        ready = asyncio.Event()
        scope.spawn(made.server.run(ready), name="server")
        await ready.wait()
        yield made


@pytest.mark.parametrize(
    ("name", "groups", "status"), [("", (), 401), ("somebody", (), 403), ("apiserver", (), 200), ("root", ("system:masters",), 200)]
)
async def test_who_gets_in(world: World, name: str, groups: tuple[str, ...], status: int) -> None:
    answer = await world.caller(name, *groups).ask("/healthz")
    assert answer.status == status
    if status == 403:
        assert answer.body == b"Forbidden (user=somebody, verb=get, resource=nodes, subresource(s)=[healthz proxy])\n"


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/healthz", 200, b"ok"),
        ("/pods", 200, b'"PodList"'),
        ("/runningpods/", 200, b'"web"'),
        ("/metrics", 200, b""),
        ("/metrics/resource", 200, b'container_memory_working_set_bytes{container="main",namespace="default",pod="web"} 1048576'),
        ("/metrics/cadvisor", 200, b'image="busybox:test"'),
        ("/stats/summary", 200, b'"usageCoreNanoSeconds":1000000'),
        ("/configz", 200, b"kubeletconfig"),
        ("/nothing", 404, b"404"),
        ("/logs/../../etc/passwd", 404, b"404"),
        ("/logs/", 200, b"ca.pem"),
        ("/logs/ca.pem", 200, b"BEGIN CERTIFICATE"),
        ("/exec/default/web/main?command=true&output=1", 400, b"Upgrade request required"),
        ("/exec/default/web/main?command=true", 400, b"you must specify at least 1 of stdin, stdout, stderr"),
        ("/exec/default/nosuch/main?command=true", 404, b"pod does not exist"),
        ("/exec/default/web/nosuch?command=true", 500, b'container not found ("nosuch")'),
        ("/portForward/default/nosuch", 404, b"pod does not exist"),
        ("/run/default/web/main?cmd=echo+hi", 200, b"hi\n"),
    ],
)
async def test_pages(world: World, path: str, status: int, text: bytes) -> None:
    answer = await world.caller().ask(path)
    assert answer.status == status
    assert text in answer.body


async def test_strangers_take_only_so_many_connections(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component, "STRANGERS", 3)
    context = world.certificates.client("")
    held = [await asyncio.open_connection("127.0.0.1", world.server.port, ssl=context, server_hostname="localhost") for _ in range(3)]
    reader, writer = await asyncio.open_connection("127.0.0.1", world.server.port, ssl=context, server_hostname="localhost")
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(5):
            assert await reader.read(1) == b""
    writer.close()
    assert (await world.caller().ask("/healthz")).status == 200
    held.pop()[1].close()
    async with asyncio.timeout(5):
        while world.server._strangers == 3:
            await asyncio.sleep(0.01)
    for _, each in held:
        each.close()


async def test_one_connection_answers_many(world: World) -> None:
    answer = await world.caller().ask("/healthz", keep=True)
    assert [piece async for piece in pieces(answer)] == [b"ok"]
    answer.writer.write(b"POST /pods HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await answer.reader.readline()).startswith(b"HTTP/1.1 405")
    await answer.reader.readuntil(b"Method Not Allowed")
    assert (await answer.reader.readline()).startswith(b"HTTP/1.1 200")
    answer.writer.close()


LINES = "".join(f"2026-11-20T10:00:0{n}.000000000+00:00 stdout F line {n}\n" for n in range(5))


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ({}, 200, b"line 0\nline 1\nline 2\nline 3\nline 4\n"),
        ({"tailLines": "2"}, 200, b"line 3\nline 4\n"),
        ({"limitBytes": "3"}, 200, b"lin"),
        ({"sinceTime": "2026-11-20T10:00:04Z", "timestamps": "true"}, 200, b"2026-11-20T10:00:04.000000000Z line 4\n"),
        ({"tailLines": "x"}, 400, b'{"message": "Unable to decode query."}'),
        ({"previous": "true"}, 400, b'previous terminated container "main" in pod "web" not found'),
    ],
)
async def test_logs(world: World, query: dict[str, str], status: int, text: bytes) -> None:
    world.log.write_text(LINES)
    answer = await world.caller().ask("/containerLogs/default/web/main?" + urlencode(query))
    assert (answer.status, answer.body) == (status, text)


async def test_logs_of_nobody(world: World) -> None:
    assert (await world.caller().ask("/containerLogs/default/no/main")).body == b'pod "no" does not exist'
    assert (await world.caller().ask("/containerLogs/default/web/no")).body == b'container "no" not found in pod "web"'
    world.pods.known[0] = known_pod(world.pods.known[0].sandbox, "", state={"waiting": {"reason": "ImagePullBackOff"}})
    answer = await world.caller().ask("/containerLogs/default/web/main")
    assert answer.status == 400
    assert answer.body == b'container "main" in pod "web" is waiting to start: trying and failing to pull image'


async def test_logs_followed_to_the_end(world: World) -> None:
    world.log.write_text(LINES)
    answer = await world.caller().ask("/containerLogs/default/web/main?follow=true&tailLines=1", keep=True)
    stream = pieces(answer)
    assert await anext(stream) == b"line 4\n"
    with world.log.open("a") as file:
        file.write(LINES.splitlines(keepends=True)[0])
    assert await anext(stream) == b"line 0\n"
    world.runtime.exit(world.container_id, 0)
    assert [piece async for piece in stream] == []
    answer.writer.close()


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_exec_over_websocket(world: World, protocol: str) -> None:
    world.runtime.commands[("ls", "-l")] = (3, b"listing")
    door = await world.caller().websocket(EXEC + "command=ls&command=-l&output=1&error=1", f"other, {protocol}")
    assert door.protocol == protocol
    found = await door.channels()
    assert found[1] == b"listing"
    status = json.loads(found[3])
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_exec_with_stdin_over_v5(world: World) -> None:
    door = await world.caller().websocket(EXEC + "command=cat&input=1&output=1", "v5.channel.k8s.io")
    assert await door.hear() == (websocket.BINARY, b"\x01")  # tells that it is connected
    await door.say(b"\x00hello")
    assert await door.hear() == (websocket.BINARY, b"\x01hello")
    await door.say(b"are you there", websocket.PING)
    assert await door.hear() == (websocket.PONG, b"are you there")
    await door.say(b"\xff\x00")
    assert json.loads((await door.channels())[3]) == STATUS


@pytest.mark.parametrize("protocol", ["v4.base64.channel.k8s.io", "base64.channel.k8s.io"])
async def test_exec_over_base64(world: World, protocol: str) -> None:
    world.runtime.commands[("x",)] = (4, b"out")
    door = await world.caller().websocket(EXEC + "command=x&output=1", protocol)
    found = await door.channels()
    assert base64.b64decode(found[ord("1")]) == b"out"
    told = base64.b64decode(found[ord("3")])
    assert told.startswith(b"{") == protocol.startswith("v4")
    assert b"exit code" in told


async def test_exec_without_a_protocol(world: World) -> None:
    world.runtime.commands[("x",)] = (0, b"out")
    door = await world.caller().websocket(EXEC + "command=x&output=1")
    assert await door.channels() == {1: b"out"}


async def test_an_unknown_websocket_protocol_is_refused(world: World) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Protocol": "v9"}
    assert (await world.caller().ask(EXEC + "command=x&output=1", headers=headers)).status == 400


async def test_exec_that_cannot_be_started(world: World) -> None:
    world.runtime.refuse["exec"] = RuntimeFailure("ExecError", "no room")
    door = await world.caller().websocket(EXEC + "command=x&output=1", "v5.channel.k8s.io")
    status = json.loads((await door.channels())[3])
    assert status["message"] == "Internal error occurred: error executing command in container: no room"
    assert (status["reason"], status["code"]) == ("InternalError", 500)


@pytest.mark.parametrize(("protocol", "status"), [("v4.channel.k8s.io", True), ("v2.channel.k8s.io", False)])
async def test_exec_over_spdy(world: World, protocol: str, status: bool) -> None:
    world.runtime.commands[("ls",)] = (3, b"listing")
    client = await world.caller().spdy(EXEC + "command=ls&output=1&error=1", f"v9.x, {protocol}")
    assert client.protocol == protocol
    error, out, err = [await client.open(streamtype=name) for name in ("error", "stdout", "stderr")]
    await client.ping()
    await client.listen(error, out, err)
    assert client.data[out] == b"listing"
    assert client.data[error].startswith(b"{") == status
    assert b"exit code 3" in client.data[error]
    assert spdy.PING in [frame.kind for frame in client.frames]
    client.close()


async def test_exec_with_stdin_and_tty_over_spdy(world: World) -> None:
    client = await world.caller().spdy(EXEC + "command=cat&input=1&output=1&tty=1", "v4.channel.k8s.io")
    streams = {name: await client.open(streamtype=name) for name in ("error", "stdin", "stdout", "resize")}
    await client.write(streams["resize"], b'{"Width":80,"Height":24}\n')
    await client.write(streams["stdin"], b"x" * 50_000)
    await client.write(streams["stdin"], b"end", fin=True)
    await client.listen(streams["error"], streams["stdout"])
    assert client.data[streams["stdout"]] == b"x" * 50_000 + b"end"
    assert json.loads(client.data[streams["error"]]) == STATUS
    client.close()


async def test_spdy_with_foreign_protocols_is_refused(world: World) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v9"}
    assert (await world.caller().ask(EXEC + "command=x&output=1", method="POST", headers=headers)).status == 403


async def test_attach(world: World) -> None:
    door = await world.caller().websocket("/attach/default/web/main?input=1&output=1", "v4.channel.k8s.io")
    await door.hear()
    await door.say(b"\x00ping")
    assert await door.hear() == (websocket.BINARY, b"\x01ping")
    door.writer.close()


async def test_attach_does_not_tell_how_the_container_ended(world: World) -> None:
    door = await world.caller().websocket("/attach/default/web/main?output=1", "v4.channel.k8s.io")
    await door.hear()
    world.runtime.exit(world.container_id, 5)
    kind, data = await door.hear()
    assert (kind, data[:1], json.loads(data[1:])) == (websocket.BINARY, b"\x03", STATUS)
    door.writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server on the loopback, as one in the pod."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                writer.write(data.upper())
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.sleep(0)


async def _spdy(world: World, tunnelled: bool) -> SpdyClient:
    if not tunnelled:
        return await world.caller().spdy("/portForward/default/web", "portforward.k8s.io")
    door = await world.caller().websocket("/portForward/default/web", "SPDY/3.1+portforward.k8s.io")
    return SpdyClient(None, door)


@pytest.mark.parametrize("tunnelled", [False, True])
async def test_port_forward_over_spdy(world: World, echo: int, tunnelled: bool) -> None:
    client = await _spdy(world, tunnelled)
    for request in ("0", "1"):
        error = await client.open(streamtype="error", port=str(echo), requestid=request)
        data = await client.open(streamtype="data", port=str(echo), requestid=request)
        await client.write(error, b"", fin=True)
        await client.write(data, b"hello " + request.encode(), fin=True)
        await client.listen(data, error)
        assert client.data[data] == b"HELLO " + request.encode()
        assert client.data[error] == b""
    client.close()


@pytest.mark.parametrize("tunnelled", [False, True])
async def test_port_forward_to_nobody(world: World, tunnelled: bool) -> None:
    client = await _spdy(world, tunnelled)
    error = await client.open(streamtype="error", port="1", requestid="0")
    data = await client.open(streamtype="data", port="1", requestid="0")
    await client.listen(error, data)
    assert client.data[error].startswith(b"error forwarding port 1 to pod web, uid ")
    assert b"failed to connect to localhost:1" in client.data[error]
    assert b"connection refused" in client.data[error]
    client.close()


@pytest.mark.parametrize("bad", [{"streamtype": "data", "port": "0"}, {"streamtype": "data"}, {"streamtype": "x", "port": "80"}])
async def test_a_senseless_stream_is_reset(world: World, bad: dict[str, str]) -> None:
    client = await _spdy(world, tunnelled=False)
    stream = await client.open(**bad)
    await client.listen(stream)
    assert client.frames[-1].kind == spdy.RST_STREAM
    client.close()


async def test_port_forward_over_channels(world: World, echo: int) -> None:
    door = await world.caller().websocket(f"/portForward/default/web?port={echo},1", "v4.channel.k8s.io")
    mark = echo.to_bytes(2, "little")
    assert [await door.hear() for _ in range(2)] == [(websocket.BINARY, b"\x00" + mark), (websocket.BINARY, b"\x01" + mark)]
    assert [await door.hear() for _ in range(2)] == [(websocket.BINARY, b"\x02\x01\x00"), (websocket.BINARY, b"\x03\x01\x00")]
    assert b"error forwarding port 1" in (await door.hear())[1]
    await door.say(b"\x00hello")
    assert await door.hear() == (websocket.BINARY, b"\x00HELLO")
    door.writer.close()


async def test_a_big_answer_waits_for_its_reader(world: World) -> None:
    """100 MB into a connection nobody reads must not pile up: the process behind it is held back."""
    from edgekube.lib.bounded import HIGH, BoundedReader

    reader = BoundedReader()
    async with TaskScope("test") as scope:

        async def produce() -> None:
            for _ in range(1000):
                await reader.put(b"x" * 100_000)

        task = scope.spawn(produce(), name="producer")
        for _ in range(50):
            await asyncio.sleep(0)
        assert not task.done()
        assert reader._size <= HIGH + 100_000
        reader.release()
        await task


def test_log_of_which_attempt() -> None:
    from edgekube.kubelet.server.containerlogs import NoLog, plan_log

    def pod(state: dict[str, object], last: dict[str, object] | None = None) -> dict[str, object]:
        known = known_pod(None, "now")
        status = {**known.obj["status"]["containerStatuses"][0], "state": state, "lastState": {"terminated": last} if last else {}}
        return replace(known, obj={**known.obj, "status": {"containerStatuses": [status]}}).obj

    ended, nothing = {"containerID": "podman://old"}, dict[str, object]()
    assert plan_log(pod({"running": {}}, ended), "main", previous=False) == "podman://now"
    assert plan_log(pod({"running": {}}, ended), "main", previous=True) == "podman://old"
    assert plan_log(pod({"terminated": {"containerID": "podman://x"}}, ended), "main", previous=False) == "podman://x"
    assert plan_log(pod({"terminated": nothing}, ended), "main", previous=False) == "podman://old"
    assert plan_log(pod({"waiting": {"reason": "CrashLoopBackOff"}}, ended), "main", previous=False) == "podman://old"
    for state, words in (
        ({"terminated": nothing}, 'container "main" in pod "web" is terminated'),
        ({"waiting": {"reason": "ContainerCreating"}}, 'container "main" in pod "web" is waiting to start: ContainerCreating'),
        ({"waiting": {"reason": "ErrImagePull"}}, "image can't be pulled"),
        (nothing, "is waiting to start - no logs yet"),
    ):
        with pytest.raises(NoLog, match=words.replace("(", r"\(")):
            plan_log(pod(state), "main", previous=False)
    with pytest.raises(NoLog, match='container "other" in pod "web" is not available'):
        plan_log(pod({"running": {}}), "other", previous=False)
