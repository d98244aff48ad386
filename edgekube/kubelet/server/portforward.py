"""port-forward: connections to 127.0.0.1 inside a pod's network namespace, carried by whatever the client speaks.

SPDY/3.1                        a data and an error stream per connection, paired by the header `requestid`
WebSocket SPDY/3.1+portforward  the same bytes in binary messages (kubectl from 1.31 on)
WebSocket v4.[base64.]channel   `port=` in the query: channels 2i data and 2i+1 error, each begun with the port in two bytes (LE)
"""

import asyncio
import base64
import binascii
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from edgekube.kubelet.runtime.mounts import NEWNET, setns
from edgekube.kubelet.server.channels import spdy_upgrade, websocket_upgrade
from edgekube.kubelet.server.http import Reply, Request
from edgekube.kubelet.server.pipes import Spdy, SpdyStream, WebSocket
from edgekube.kubelet.server.protocol import KnownPod
from edgekube.lib import websocket
from edgekube.lib.tasks import TaskScope

log = logging.getLogger(__name__)

_PIECE = 32 << 10
_SPDY_PROTOCOL = "portforward.k8s.io"
_TUNNEL = "SPDY/3.1+portforward.k8s.io"
_BINARY = ("v4.channel.k8s.io", "portforward.k8s.io")
_BASE64 = ("v4.base64.channel.k8s.io",)
_CONNECT_SECONDS = 30.0
_PAIR_SECONDS = 30.0
_GONE = (OSError, ssl.SSLError)

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def serve(request: Request, pod: KnownPod) -> Reply | None:
    """Upgrade and forward until the client goes. None: the connection was used."""
    if request.upgrades_to("SPDY/3.1"):
        opened = await spdy_upgrade(request, (_SPDY_PROTOCOL,))
        if isinstance(opened, Reply):
            return opened
        await _forward_streams(opened[0], pod)
        return None
    if not request.upgrades_to("websocket"):
        return Reply(400, b"Upgrade request required")
    ports = _ports(request)
    answer = await websocket_upgrade(request, (_TUNNEL, *_BINARY, *_BASE64))
    if isinstance(answer, Reply):
        return answer
    door, protocol = answer
    if protocol == _TUNNEL:
        await _forward_streams(Spdy(door), pod)
    elif ports:
        await _forward_channels(door, pod, ports, text=protocol in _BASE64)
    await door.close()
    return None


async def connect(pod: KnownPod, port: int) -> Stream:
    """A connection to `port` of the pod's loopback. Raises OSError saying what was tried."""
    netns = pod.sandbox.net if pod.sandbox is not None else ""
    failures = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            return await _connect(netns, family, address, port)
        except (OSError, TimeoutError) as error:
            why = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else "i/o timeout"
            kind, shown = ("IPv4", "tcp4 127.0.0.1") if family == socket.AF_INET else ("IPv6", "tcp6 [::1]")
            failures.append(f"{kind}: dial {shown}:{port}: connect: {why}")
    raise OSError(f"failed to connect to localhost:{port} inside namespace {netns or 'host'!r}, {' '.join(failures)}")


async def _connect(netns: str, family: socket.AddressFamily, address: str, port: int) -> Stream:
    door = await asyncio.to_thread(_socket_in, netns, family)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(door, (address, port))
            return await asyncio.open_connection(sock=door)
    except BaseException:
        door.close()
        raise


def _socket_in(netns: str, family: socket.AddressFamily) -> socket.socket:
    """A socket belongs to the namespace it was made in, whoever uses it later; the thread that entered it ends."""

    def make() -> socket.socket:
        if netns:
            setns(netns, NEWNET)
        door = socket.socket(family, socket.SOCK_STREAM)
        door.setblocking(False)
        return door

    with ThreadPoolExecutor(1, thread_name_prefix="port-forward") as threads:
        return threads.submit(make).result()


async def _forward_streams(connection: Spdy, pod: KnownPod) -> None:
    waiting: dict[str, SpdyStream] = {}
    async with TaskScope("port-forward") as scope:
        async for stream in connection.accept():
            kind, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
            if kind not in ("data", "error") or not port.isdigit() or not 0 < int(port) < 65536:
                await stream.reset()
                continue
            number = stream.headers.get("requestid") or str(stream.number if kind == "error" else stream.number - 2)
            other = waiting.pop(number, None)
            if other is None:
                waiting[number] = stream
                scope.spawn(_expire(waiting, number, stream), name="expire")
                continue
            data, error = (stream, other) if kind == "data" else (other, stream)
            scope.spawn(_forward(connection, data, error, pod, int(port)), name=f"forward/{port}")


async def _expire(waiting: dict[str, SpdyStream], number: str, stream: SpdyStream) -> None:
    await asyncio.sleep(_PAIR_SECONDS)
    if waiting.get(number) is stream:
        del waiting[number]
        await stream.reset()


async def _forward(connection: Spdy, data: SpdyStream, error: SpdyStream, pod: KnownPod, port: int) -> None:
    try:
        reader, writer = await connect(pod, port)
    except OSError as failure:
        with contextlib.suppress(*_GONE):
            await error.write(f"error forwarding port {port} to pod {pod.ref.name}, uid {pod.ref.uid}: {failure}".encode())
            await error.close()
        await data.reset()
        connection.forget(error)
        connection.forget(data)
        return
    try:
        async with TaskScope("forward") as scope:
            back = scope.spawn(_back(reader, data), name="back")
            scope.spawn(_forth(data, writer), name="forth")
            await asyncio.wait({back})  # the pod's end is the end; the client's is passed on as a half-close
    finally:
        writer.close()
    await data.close()
    await error.close()
    connection.forget(error)
    connection.forget(data)


async def _back(reader: asyncio.StreamReader, data: SpdyStream) -> None:
    with contextlib.suppress(*_GONE):
        while piece := await reader.read(_PIECE):
            await data.write(piece)


async def _forth(data: SpdyStream, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(*_GONE):
        while piece := await data.read():
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


def _ports(request: Request) -> Sequence[int]:
    texts = [part for name in ("port", "ports") for value in request.query.get(name, ()) for part in value.split(",")]
    return [int(text) for text in texts if text.isdigit() and 0 < int(text) < 65536]


async def _forward_channels(door: WebSocket, pod: KnownPod, ports: Sequence[int], *, text: bool) -> None:
    async def say(channel: int, data: bytes) -> None:
        if text:
            await door.say(websocket.TEXT, bytes([0x30 + channel]) + base64.b64encode(data))
        else:
            await door.say(websocket.BINARY, bytes([channel]) + data)

    async def back(reader: asyncio.StreamReader, channel: int) -> None:
        with contextlib.suppress(*_GONE):
            while piece := await reader.read(_PIECE):
                await say(channel, piece)

    writers: dict[int, asyncio.StreamWriter] = {}
    try:
        async with TaskScope("port-forward") as scope:
            readers = []
            for index, port in enumerate(ports):
                mark = port.to_bytes(2, "little")
                await say(2 * index, mark)
                await say(2 * index + 1, mark)
                try:
                    reader, writers[2 * index] = await connect(pod, port)
                    readers.append(scope.spawn(back(reader, 2 * index), name=f"back/{port}"))
                except OSError as failure:
                    await say(2 * index + 1, f"error forwarding port {port} to pod {pod.ref.name}, uid {pod.ref.uid}: {failure}".encode())
            if readers:
                client = scope.spawn(_from_client(door, writers, text=text), name="client")
                ended = scope.spawn(_wait_all(readers), name="ended")
                await asyncio.wait({client, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for writer in writers.values():
            writer.close()


async def _wait_all(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _from_client(door: WebSocket, writers: dict[int, asyncio.StreamWriter], *, text: bool) -> None:
    async for message in door.messages():
        if not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if text:
            with contextlib.suppress(binascii.Error):
                channel, data = channel - 0x30, base64.b64decode(data)
        writer = writers.get(channel)
        if writer is not None:
            with contextlib.suppress(*_GONE):
                writer.write(data)
                await writer.drain()
