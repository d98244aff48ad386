"""The client's side of exec and attach, whatever it speaks: stdin and resizes in, stdout, stderr and one status out.

    WebSocket   [v5|v4|].channel.k8s.io binary, base64 variants as text: channel 0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize; v5 closes a
                channel with message 255,<channel>
    SPDY        X-Stream-Protocol-Version v4..v1: one stream each, named by the header `streamtype`

From v4 on the status is a Status object; before, the text of the error and nothing for success.
"""

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgekube.kubelet.server.http import Reply, Request
from edgekube.kubelet.server.pipes import RawPipe, Spdy, SpdyStream, WebSocket
from edgekube.lib import websocket
from edgekube.lib.bounded import BoundedReader
from edgekube.lib.tasks import TaskScope

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_BINARY = ("v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io")
_BASE64 = ("v4.base64.channel.k8s.io", "base64.channel.k8s.io")
_SPDY = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
_STREAMS_SECONDS = 30.0

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which streams the client asked for."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class Channels(Protocol):
    """Closed by `finish` or when the client goes (`gone`)."""

    stdin: BoundedReader
    resizes: asyncio.Queue[Size]
    gone: asyncio.Event

    async def write(self, channel: int, data: bytes) -> None: ...

    async def finish(self, status: Mapping[str, Any], message: str) -> None:
        """`status` for v4 and later; `message` before ("" for success)."""


class _Base:
    def __init__(self) -> None:
        self.stdin = BoundedReader()
        self.resizes: asyncio.Queue[Size] = asyncio.Queue(16)
        self.gone = asyncio.Event()

    def _left(self) -> None:
        self.stdin.end()
        self.gone.set()

    def _resize(self, text: bytes) -> None:
        for line in text.splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, asyncio.QueueFull):
                size = json.loads(line)
                self.resizes.put_nowait((int(size["Width"]), int(size["Height"])))


class WebSocketChannels(_Base):
    """Over one WebSocket."""

    def __init__(self, socket: WebSocket, protocol: str) -> None:
        super().__init__()
        self._socket = socket
        self._base64 = protocol in _BASE64
        self._status = protocol.startswith(("v4.", "v5."))
        self._closes = protocol.startswith("v5.")

    async def read(self) -> None:
        """Take in what the client sends until it goes."""
        async for message in self._socket.messages():
            channel, data = self._decode(message.data)
            if channel == STDIN:
                await self.stdin.put(data)
            elif channel == RESIZE:
                self._resize(data)
            elif channel == CLOSE and self._closes and data[:1] == bytes([STDIN]):
                self.stdin.end()
        self._left()

    async def write(self, channel: int, data: bytes) -> None:
        if self._base64:
            await self._socket.say(websocket.TEXT, bytes([0x30 + channel]) + base64.b64encode(data))
        else:
            await self._socket.say(websocket.BINARY, bytes([channel]) + data)

    async def finish(self, status: Mapping[str, Any], message: str) -> None:
        text = json.dumps(status) if self._status else message
        if text:
            await self.write(ERROR, text.encode())
        await self._socket.close()

    def _decode(self, data: bytes) -> tuple[int, bytes]:
        if not data:
            return -1, b""
        if not self._base64:
            return data[0], data[1:]
        with contextlib.suppress(binascii.Error):
            return data[0] - 0x30, base64.b64decode(data[1:])
        return -1, b""


class SpdyChannels(_Base):
    """Over SPDY streams."""

    def __init__(self, connection: Spdy, protocol: str, wanted: Wanted) -> None:
        super().__init__()
        self._connection = connection
        self._status = protocol.startswith("v4.")
        self._streams: dict[str, SpdyStream] = {}
        names = {"error": True, "stdin": wanted.stdin, "stdout": wanted.stdout, "stderr": wanted.stderr and not wanted.tty}
        self._missing = {name for name, want in names.items() if want}
        if wanted.tty and protocol in ("v4.channel.k8s.io", "v3.channel.k8s.io"):
            self._missing.add("resize")
        self.complete = asyncio.Event()

    async def read(self) -> None:
        """Take in the client's streams until it goes."""
        async with TaskScope("spdy-streams") as scope:
            async for stream in self._connection.accept():
                name = stream.headers.get("streamtype", "")
                self._streams[name] = stream
                self._missing.discard(name)
                if name in ("stdin", "resize"):
                    scope.spawn(self._take(name, stream), name=name)
                if not self._missing:
                    self.complete.set()
        self._left()

    async def _take(self, name: str, stream: SpdyStream) -> None:
        rest = b""
        while data := await stream.read():
            if name == "stdin":
                await self.stdin.put(data)
                continue
            *lines, rest = (rest + data).split(b"\n")
            if rest.endswith(b"}"):
                lines, rest = [*lines, rest], b""
            self._resize(b"\n".join(lines))
        if name == "stdin":
            self.stdin.end()

    async def write(self, channel: int, data: bytes) -> None:
        stream = self._streams.get({STDOUT: "stdout", STDERR: "stderr"}.get(channel, "error"))
        if stream is not None:
            await stream.write(data)

    async def finish(self, status: Mapping[str, Any], message: str) -> None:
        text = json.dumps(status) if self._status else message
        error = self._streams.get("error")
        if error is not None and text:
            await error.write(text.encode())
        for name in ("error", "stdout", "stderr"):
            if name in self._streams:
                await self._streams[name].close()
        await self._connection.send(self._connection.session.goaway(max((s.number for s in self._streams.values()), default=0)))


Opened = WebSocketChannels | SpdyChannels


async def open_channels(request: Request, wanted: Wanted) -> Opened | Reply:
    """Answer the upgrade; a Reply is a refusal. The caller then runs `read` of what it got."""
    if request.upgrades_to("websocket"):
        return await _open_websocket(request)
    if request.upgrades_to("SPDY/3.1"):
        return await _open_spdy(request, wanted)
    return Reply(400, b"Upgrade request required")


async def websocket_upgrade(request: Request, protocols: Sequence[str]) -> tuple[WebSocket, str] | Reply:
    """The handshake: a client that names no protocol gets none, one that names only foreign ones is refused."""
    key, offered = request.headers.get("sec-websocket-key", ""), request.headers.get("sec-websocket-protocol", "")
    chosen = websocket.choose_protocol(offered, protocols) if offered else ""
    if not key or chosen is None:
        return Reply(400, b"unable to upgrade: unsupported WebSocket protocol or no key")
    headers = {"Sec-WebSocket-Accept": websocket.accept_key(key)}
    if chosen:
        headers["Sec-WebSocket-Protocol"] = chosen
    await request.switch("websocket", headers)
    return WebSocket(request), chosen


async def spdy_upgrade(request: Request, protocols: Sequence[str]) -> tuple[Spdy, str] | Reply:
    """The same for SPDY: ours is chosen in the order of the client's wishes."""
    offered = request.headers.get("x-stream-protocol-version", "")
    chosen = websocket.choose_protocol(offered, protocols) if offered else protocols[-1]
    if chosen is None:
        text = f"unable to upgrade: unable to negotiate protocol: client supports [{offered}], server accepts {list(protocols)}"
        return Reply(403, text.encode(), headers={"X-Accepted-Stream-Protocol-Versions": ", ".join(protocols)})
    await request.switch("SPDY/3.1", {"X-Stream-Protocol-Version": chosen} if offered else {})
    return Spdy(RawPipe(request)), chosen


async def _open_websocket(request: Request) -> Opened | Reply:
    answer = await websocket_upgrade(request, (*_BINARY, *_BASE64))
    if isinstance(answer, Reply):
        return answer
    return WebSocketChannels(*answer)


async def _open_spdy(request: Request, wanted: Wanted) -> Opened | Reply:
    answer = await spdy_upgrade(request, _SPDY)
    if isinstance(answer, Reply):
        return answer
    return SpdyChannels(answer[0], answer[1], wanted)


async def until_complete(channels: Opened) -> bool:
    """Whether the client opened all streams it announced, within 30 s."""
    if isinstance(channels, SpdyChannels):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STREAMS_SECONDS):
                await channels.complete.wait()
        return channels.complete.is_set()
    return True
