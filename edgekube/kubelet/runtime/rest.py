"""A small HTTP/1.1 client over podman's unix socket: keep-alive connections, a deadline for every call, and hijacked streams.

Why not podman-py for this: measured on a 2-core VM, importing it costs 12 MB and 70 ms, each call blocks a thread and adds 0.5 ms (create
a whole inspect more), and it has no attach, no stdin or resize for exec and no unknown spec fields. Everything on the path of a pod goes
through here; podman-py is imported only where images are pulled, loaded or removed (see images.py).

Raises RuntimeDown when the socket is gone or a deadline passes, RestError for an answer that is an error.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from edgekube.kubelet.runtime.protocol import RuntimeDown, RuntimeFailure

API = "/v4.0.0/libpod"
_IDLE_CONNECTIONS = 4
_LIMIT = 1 << 20

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RestError(RuntimeFailure):
    """An error answer of the service. Who knows a better reason says it; whoever forgets has a failure of the runtime, not of edgekube."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__("RuntimeError", message)
        self.status = status


class _Stale(Exception):
    """A kept connection was closed by the other side before it answered."""


class Rest:
    """Calls on one socket. Bounded: never more than `parallel` at a time (hijacked streams not counted)."""

    def __init__(self, socket: Path, *, parallel: int = 16) -> None:
        self._socket = socket
        self._idle: list[Stream] = []
        self._gate = asyncio.Semaphore(parallel)

    async def call(
        self, method: str, path: str, *, query: Mapping[str, object] | None = None, body: object = None, timeout: float = 30.0
    ) -> Any:
        """One request; the decoded JSON (None for an empty answer)."""
        payload = b"" if body is None else json.dumps(body).encode()
        data = await self._answer(method, path, query, payload, timeout)
        try:
            return json.loads(data) if data.strip() else None
        except ValueError:
            return data.decode(errors="replace").strip()  # some answers are plain text

    async def ping(self, timeout: float) -> None:
        """Returns when the service answers."""
        await self._answer("GET", "/_ping", None, b"", timeout)

    async def _answer(self, method: str, path: str, query: Mapping[str, object] | None, payload: bytes, timeout: float) -> bytes:
        async with self._gate:
            try:
                async with asyncio.timeout(timeout):
                    status, data = await self._request(method, _target(path, query), payload)
            except TimeoutError as error:
                raise RuntimeDown(f"podman did not answer {method} {path.split('/')[1]} within {timeout:g} s") from error
            except (OSError, EOFError, _Stale) as error:
                raise RuntimeDown(f"podman does not answer: {error or type(error).__name__}") from error
        if status >= 400:
            raise RestError(status, _message(data, status))
        return data

    async def lines(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> AsyncIterator[dict[str, Any]]:
        """A request answered by a stream of JSON documents, one a line. `timeout` is the longest silence."""
        reader, writer = await self._open()
        try:
            extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
            writer.write(_head(method, _target(path, query), 0, extra))
            async with asyncio.timeout(timeout):
                status, fields = await _read_head(reader)
            if status >= 400:
                raise RestError(status, _message(await _read_body(reader, fields), status))
            rest = b""
            async for chunk in _chunks(reader, fields, timeout):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in filter(None, whole):
                    yield json.loads(line)
            if rest.strip():
                yield json.loads(rest)
        except (TimeoutError, OSError, EOFError) as error:
            raise RuntimeDown(f"podman does not answer: {error or type(error).__name__}") from error
        finally:
            writer.close()

    async def hijack(self, path: str, *, query: Mapping[str, object] | None = None, body: object = None, timeout: float = 30.0) -> Stream:
        """A connection that podman hands over after `101`: the caller owns and closes it."""
        payload = b"" if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await self._open()
                try:
                    extra = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
                    writer.write(_head("POST", _target(path, query), len(payload), extra) + payload)
                    status, headers = await _read_head(reader)
                    if status not in (101, 200):
                        raise RestError(status, _message(await _read_body(reader, headers), status))
                except BaseException:
                    writer.close()
                    raise
        except (TimeoutError, OSError, EOFError) as error:
            raise RuntimeDown(f"podman does not answer: {error or type(error).__name__}") from error
        return reader, writer

    def close(self) -> None:
        """Drop the kept connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _open(self) -> Stream:
        return await asyncio.open_unix_connection(str(self._socket), limit=_LIMIT)

    async def _request(self, method: str, target: str, payload: bytes) -> tuple[int, bytes]:
        while self._idle:
            reader, writer = self._idle.pop()
            if reader.at_eof() or writer.is_closing():
                writer.close()
                continue
            with contextlib.suppress(_Stale):  # closed while it lay idle: nothing was done, so asking again is safe
                return await self._exchange(reader, writer, method, target, payload)
        reader, writer = await self._open()
        return await self._exchange(reader, writer, method, target, payload)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, target: str, payload: bytes
    ) -> tuple[int, bytes]:
        kept = False
        try:
            try:
                writer.write(_head(method, target, len(payload), "") + payload)
                await writer.drain()
                status, headers = await _read_head(reader)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                raise _Stale(str(error)) from error
            data = await _read_body(reader, headers)
            kept = headers.get("connection", "").lower() != "close" and len(self._idle) < _IDLE_CONNECTIONS
            if kept:
                self._idle.append((reader, writer))
            return status, data
        finally:
            if not kept:
                writer.close()


def _target(path: str, query: Mapping[str, object] | None) -> str:
    target = API + path
    return f"{target}?{urlencode({k: _text(v) for k, v in query.items()})}" if query else target


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)


def _head(method: str, target: str, length: int, extra: str) -> bytes:
    content = f"Content-Type: application/json\r\nContent-Length: {length}\r\n" if length or method == "POST" else ""
    return f"{method} {target} HTTP/1.1\r\nHost: d\r\n{content}{extra}\r\n".encode()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    parts = [chunk async for chunk in _chunks(reader, headers, None)]
    return b"".join(parts)


async def _chunks(reader: asyncio.StreamReader, headers: Mapping[str, str], silence: float | None) -> AsyncIterator[bytes]:
    if "chunked" in headers.get("transfer-encoding", ""):
        while True:
            async with asyncio.timeout(silence):
                size = int((await reader.readline()).split(b";")[0] or b"0", 16)
                data = await reader.readexactly(size + 2)
            if not size:
                return
            yield data[:-2]
    elif (length := int(headers.get("content-length", 0))) > 0:
        yield await reader.readexactly(length)


def _message(data: bytes, status: int) -> str:
    try:
        found = json.loads(data)
        return str(found.get("message") or found.get("cause") or status)
    except (ValueError, AttributeError):
        return data.decode(errors="replace").strip() or f"status {status}"
