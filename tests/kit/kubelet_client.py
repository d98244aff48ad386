"""A client of the node's API as kubectl is one: TLS with a certificate, plain requests, WebSocket and SPDY conversations."""

import asyncio
import base64
import os
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekube.kubelet.runtime.protocol import Sandbox
from edgekube.kubelet.server.protocol import KnownPod
from edgekube.lib import pki, spdy, websocket
from tests.kit.fake_runtime import pod_ref


@dataclass
class FewPods:
    """The Pods protocol over a list. As the kubelet does, it makes its answers anew for every question."""

    known: list[KnownPod] = field(default_factory=list)

    def pods(self) -> list[KnownPod]:
        return [replace(pod) for pod in self.known]

    def find(self, namespace: str, name: str, uid: str = "") -> KnownPod | None:
        return next((p for p in self.known if (p.ref.namespace, p.ref.name) == (namespace, name) and uid in ("", p.ref.uid)), None)


def known_pod(sandbox: Sandbox | None, container_id: str, *, state: Mapping[str, Any] | None = None, name: str = "web") -> KnownPod:
    """A pod with one container `main`."""
    ref = sandbox.pod if sandbox is not None else pod_ref(name)
    status = {"name": "main", "containerID": f"podman://{container_id}", "state": state or {"running": {}}}
    obj = {
        "metadata": {"name": ref.name, "namespace": ref.namespace, "uid": ref.uid},
        "spec": {"containers": [{"name": "main", "image": "busybox:test"}]},
        "status": {"phase": "Running", "containerStatuses": [status], "startTime": "2026-01-01T00:00:00Z"},
    }
    return KnownPod(ref, obj, sandbox)


@dataclass(frozen=True)
class Certificates:
    """TLS contexts: the node's, and clients' by name."""

    folder: Path
    authority: bytes

    @classmethod
    def make(cls, folder: Path) -> "Certificates":
        authority = pki.create_authority("test", datetime.now(UTC))
        (folder / "ca.pem").write_bytes(pki.certificate_pem(authority))
        return cls(folder, authority)

    def _issue(self, name: str, subject: pki.Subject) -> Path:
        path = self.folder / f"{name}.pem"
        path.write_bytes(pki.issue(self.authority, subject, datetime.now(UTC)))
        return path

    def server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.folder / "ca.pem"))
        context.load_cert_chain(
            self._issue("server", pki.Subject("system:node:n1", names=("localhost",), addresses=("127.0.0.1",), server=True))
        )
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def client(self, name: str, *groups: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if name:
            context.load_cert_chain(self._issue(f"client-{name}", pki.Subject(name, groups, client=True)))
        return context


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass
class Caller:
    """Requests to one server."""

    port: int
    tls: ssl.SSLContext

    async def ask(self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, keep: bool = False) -> Answer:
        """One request on a connection of its own; with `keep` (and after 101) it stays open and the body unread."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname="localhost")
        lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in (headers or {}).items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        answer = Answer(int(head[0].split()[1]), fields, b"", reader, writer)
        if answer.status != 101 and not keep:
            answer.body = b"".join([piece async for piece in pieces(answer)])
            writer.close()
        return answer

    async def websocket(self, path: str, protocol: str = "") -> "WebSocketClient":
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        }
        if protocol:
            headers["Sec-WebSocket-Protocol"] = protocol
        answer = await self.ask(path, headers=headers)
        assert answer.status == 101, answer
        return WebSocketClient(answer)

    async def spdy(self, path: str, protocol: str) -> "SpdyClient":
        headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": protocol}
        answer = await self.ask(path, method="POST", headers=headers)
        assert answer.status == 101, answer
        return SpdyClient(answer)


async def pieces(answer: Answer) -> AsyncIterator[bytes]:
    """The body as it comes."""
    if "chunked" in answer.headers.get("transfer-encoding", ""):
        while size := int(await answer.reader.readline(), 16):
            yield await answer.reader.readexactly(size)
            await answer.reader.readline()
        return
    yield await answer.reader.readexactly(int(answer.headers.get("content-length", 0)))


class WebSocketClient:
    """Masked frames out, whole messages in."""

    def __init__(self, answer: Answer) -> None:
        self.protocol = answer.headers.get("sec-websocket-protocol", "")
        self._reader, self.writer = answer.reader, answer.writer

    async def say(self, data: bytes, kind: int = websocket.BINARY) -> None:
        mask = os.urandom(4)
        size = struct.pack(">BH", 0x80 | 126, len(data)) if len(data) > 125 else struct.pack(">B", 0x80 | len(data))
        self.writer.write(bytes([0x80 | kind]) + size + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))
        await self.writer.drain()

    async def hear(self) -> tuple[int, bytes]:
        """Kind and data of the next frame."""
        first, second = await self._reader.readexactly(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(await self._reader.readexactly(2 if length == 126 else 8), "big")
        return first & 0x0F, await self._reader.readexactly(length)

    async def channels(self) -> dict[int, bytes]:
        """Everything until the server closes, by channel."""
        found: dict[int, bytes] = {}
        while True:
            kind, data = await self.hear()
            if kind == websocket.CLOSE:
                return found
            found[data[0]] = found.get(data[0], b"") + data[1:]


class SpdyClient:
    """Streams opened by us; what comes is collected by stream."""

    def __init__(self, answer: Answer | None, tunnel: WebSocketClient | None = None) -> None:
        self.protocol = answer.headers.get("x-stream-protocol-version", "") if answer is not None else ""
        self._answer, self._tunnel = answer, tunnel
        self._session = spdy.Session()
        self._next = 1
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.frames: list[spdy.Frame] = []

    async def send(self, data: bytes) -> None:
        if self._tunnel is not None:
            await self._tunnel.say(data)
        elif self._answer is not None:
            self._answer.writer.write(data)
            await self._answer.writer.drain()

    async def open(self, **headers: str) -> int:
        number, self._next = self._next, self._next + 2
        await self.send(self._session.syn_stream(number, headers))
        return number

    async def write(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        await self.send(self._session.data(stream, data, fin=fin))

    async def ping(self) -> None:
        await self.send(self._session.ping(5))

    async def listen(self, *until_ended: int) -> None:
        """Until these streams have ended, or the connection has."""
        while not set(until_ended) <= self.ended or not until_ended:
            received = await self._receive()
            if not received:
                return
            for frame in self._session.receive(received):
                self.frames.append(frame)
                self.data[frame.stream] = self.data.get(frame.stream, b"") + frame.data
                if frame.fin or frame.kind == spdy.RST_STREAM:
                    self.ended.add(frame.stream)

    async def _receive(self) -> bytes:
        if self._tunnel is not None:
            kind, data = await self._tunnel.hear()
            return data if kind == websocket.BINARY else b""
        assert self._answer is not None
        return await self._answer.reader.read(65536)

    def close(self) -> None:
        (self._tunnel.writer if self._tunnel is not None else self._answer.writer).close()
