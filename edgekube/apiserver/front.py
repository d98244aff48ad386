"""HTTP and TLS: aiohttp's low-level server as parser and connection keeper; what goes out is written to the transport by ourselves.

A connection's client certificate is read once. Answers are whole, in chunks, pushed by others (watch), or the connection itself is handed
over (exec, attach, port-forward). Certificates are loaded again into the live context when they change. uvloop keeps an idle TLS
connection at 40 KB.
"""

import asyncio
import logging
import socket
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, unquote

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from edgekube.apiserver.identity import PeerCertificate
from edgekube.apiserver.request import PushResponse, Request, Response, StreamResponse, TunnelResponse
from edgekube.apiserver.server import Server
from edgekube.errors import BadRequest, TooLarge

log = logging.getLogger(__name__)

MAX_BODY = 3 * 1024 * 1024
SEND_BUFFER = 128 * 1024
KEEP_ALIVE = 120.0
GZIP_FROM = 128 * 1024
ABORT_AFTER = 10.0  # seconds a closed watch may take to drain
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_NO_BODY = frozenset((204, 304))


class _Done(web.StreamResponse):
    """Tells aiohttp that the answer has been written."""

    def __init__(self, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: BaseRequest) -> None:
        return None

    async def write_eof(self, data: Any = b"") -> None:
        return None


_KEEP, _CLOSE = True, False


class Connection(RequestHandler):
    """One connection; knows its peer's certificate and who wants to hear of its end."""

    __slots__ = ("certificate", "on_lost", "stream")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.certificate: PeerCertificate | None = None
        self.on_lost: asyncio.Future[None] | None = None
        self.stream: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.certificate = peer_certificate(transport)
        self.stream = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.stream = None
        if self.on_lost is not None and not self.on_lost.done():
            self.on_lost.set_result(None)


def peer_certificate(transport: asyncio.BaseTransport) -> PeerCertificate | None:
    """What TLS verified of the client, if it showed a certificate."""
    subject = (transport.get_extra_info("peercert") or {}).get("subject")
    if not subject:
        return None
    names: list[tuple[str, str]] = [pair for relative in subject for pair in relative]
    common = next((value for name, value in names if name == "commonName"), "")
    organizations = tuple(value for name, value in names if name == "organizationName")
    tls = transport.get_extra_info("ssl_object")
    return PeerCertificate(common, organizations, (tls.getpeercert(True) or b"") if tls is not None else b"")


class _Factory(web.Server):
    """Makes our kind of connection."""

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class ConnectionSink:
    """Pushes to one connection; satisfies request.Sink."""

    __slots__ = ("_chunked", "_connection", "done")

    def __init__(self, connection: Connection, chunked: bool) -> None:
        self._connection, self._chunked = connection, chunked
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connection.on_lost = self.done

    def write(self, data: bytes, chunk: bytes) -> None:
        stream = self._connection.stream
        if stream is not None and not self.done.done():
            stream.write(chunk if self._chunked else data)

    def buffered(self) -> int:
        stream = self._connection.stream
        return 0 if stream is None else stream.get_write_buffer_size()

    def close(self) -> None:
        if self.done.done():
            return
        stream = self._connection.stream
        if stream is not None:
            if self._chunked:
                stream.write(b"0\r\n\r\n")
            if stream.get_write_buffer_size() > SEND_BUFFER:  # it did not read for long: do not wait for ever
                asyncio.get_running_loop().call_later(ABORT_AFTER, _abort, self._connection)
        self.done.set_result(None)


def _abort(connection: Connection) -> None:
    if connection.stream is not None and connection.stream.get_write_buffer_size() > SEND_BUFFER:
        connection.stream.abort()


class Front:
    """Listens and translates. `listen` may be called for several addresses."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._web = _Factory(self._handle, access_log=None, keepalive_timeout=KEEP_ALIVE, auto_decompress=True)
        self._listeners: list[asyncio.Server] = []

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Start to accept; returns the port. Raises OSError."""
        listener = await asyncio.get_running_loop().create_server(self._web, host, port, ssl=tls, backlog=1024, reuse_address=True)
        self._listeners.append(listener)
        found: int = listener.sockets[0].getsockname()[1]
        return found

    async def close(self, timeout: float = 5.0) -> None:
        """Stop to accept, end watches, let the rest finish for `timeout` seconds."""
        for listener in self._listeners:
            listener.close()
        self._server.hub.close()
        self._web.pre_shutdown()
        await self._web.shutdown(timeout)
        self._listeners.clear()

    async def _handle(self, raw: BaseRequest) -> web.StreamResponse:
        connection = raw.protocol
        if not isinstance(connection, Connection):
            raise TypeError("a connection that we did not make")
        response = await self._server.handle(self._request(raw, connection))
        match response:
            case Response():
                return await self._whole(raw, connection, response)
            case StreamResponse():
                return await self._chunks(raw, connection, response)
            case PushResponse():
                return await self._push(raw, connection, response)
            case TunnelResponse():
                return await self._tunnel(raw, connection, response)

    def _request(self, raw: BaseRequest, connection: Connection) -> Request:
        path, _, query = raw.path_qs.partition("?")
        headers: dict[str, str] = {}
        for name, value in raw.headers.items():
            lower = name.lower()
            if lower in headers:
                value = f"{headers[lower]}\n{value}" if lower.startswith("impersonate-") else f"{headers[lower]}, {value}"
            headers[lower] = value

        async def read_body() -> bytes:
            return await _body(raw, connection)

        return Request(
            method=raw.method,
            path=unquote(path) if "%" in path else path,
            query=parse_qs(query, keep_blank_values=True) if query else {},
            headers=headers,
            read_body=read_body,
            certificate=connection.certificate,
            remote=(connection.peername or ("",))[0] if not isinstance(connection.peername, str) else connection.peername,
            head=b"",
        )

    async def _whole(self, raw: BaseRequest, connection: Connection, response: Response) -> _Done:
        body = response.body
        if len(body) > GZIP_FROM and "gzip" in raw.headers.get("Accept-Encoding", "") and "Content-Encoding" not in response.headers:
            body = await asyncio.to_thread(_gzip, body)
            response.headers["Content-Encoding"] = "gzip"
        keep = _keeps(raw)
        head = _head(raw, response.status, response.content_type, response.headers, len(body), keep)
        stream = connection.stream
        if stream is None:
            return _Done(_CLOSE)
        if raw.method == "HEAD" or response.status in _NO_BODY:
            body = b""
        stream.write(head + body if len(body) < GZIP_FROM else head)
        if len(body) >= GZIP_FROM:
            stream.write(body)
            await connection._drain_helper()
        return _Done(keep)

    async def _chunks(self, raw: BaseRequest, connection: Connection, response: StreamResponse) -> _Done:
        chunked = raw.version >= (1, 1)
        keep = chunked and _keeps(raw)
        stream = connection.stream
        try:
            if stream is not None:
                stream.write(_head(raw, response.status, response.content_type, response.headers, None, keep))
            async for chunk in response.chunks:
                stream = connection.stream
                if stream is None:
                    return _Done(_CLOSE)
                if not chunk or raw.method == "HEAD":
                    continue
                if chunked:
                    stream.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))
                else:
                    stream.write(chunk)
                await connection._drain_helper()
            stream = connection.stream
            if stream is not None and chunked:
                stream.write(b"0\r\n\r\n")
        except ConnectionError:
            return _Done(_CLOSE)
        finally:
            closing = getattr(response.chunks, "aclose", None)
            if closing is not None:
                await closing()
        return _Done(keep)

    async def _push(self, raw: BaseRequest, connection: Connection, response: PushResponse) -> _Done:
        chunked = raw.version >= (1, 1)
        stream = connection.stream
        if stream is None:
            return _Done(_CLOSE)
        stream.write(_head(raw, 200, response.content_type, response.headers, None, chunked))
        sink = ConnectionSink(connection, chunked)
        try:
            response.start(sink)
            await sink.done
        finally:
            response.stop()
            connection.on_lost = None
        return _Done(chunked and _keeps(raw))

    async def _tunnel(self, raw: BaseRequest, connection: Connection, response: TunnelResponse) -> _Done:
        stream = connection.stream
        if stream is None:
            return _Done(_CLOSE)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=256 * 1024, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        tail = connection._message_tail
        connection._message_tail = b""
        stream.set_protocol(protocol)
        protocol.connection_made(stream)
        connection.stream = None
        connection.transport = None  # aiohttp must neither read nor close it any more
        if tail:
            reader.feed_data(tail)
        writer = asyncio.StreamWriter(stream, protocol, reader, loop)
        try:
            if not stream.is_reading():
                stream.resume_reading()
            await response.run(reader, writer)
        finally:
            writer.close()
            connection.connection_lost(None)
        return _Done(_CLOSE)


def _keeps(raw: BaseRequest) -> bool:
    return bool(raw.keep_alive)


def _head(raw: BaseRequest, status: int, content_type: str, headers: dict[str, str], length: int | None, keep: bool) -> bytes:
    parts = [b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\n" % (status, _REASONS.get(status, b"Unknown"), content_type.encode())]
    if "Cache-Control" not in headers:
        parts.append(b"Cache-Control: no-cache, private\r\n")
    parts += [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
    if length is not None:
        if status not in _NO_BODY:
            parts.append(b"Content-Length: %d\r\n" % length)
    elif raw.version >= (1, 1):
        parts.append(b"Transfer-Encoding: chunked\r\n")
    if not keep:
        parts.append(b"Connection: close\r\n")
    elif raw.version < (1, 1):
        parts.append(b"Connection: keep-alive\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def _gzip(body: bytes) -> bytes:
    import gzip

    return gzip.compress(body, 4)


async def _body(raw: BaseRequest, connection: Connection) -> bytes:
    """The whole body. Raises TooLarge, BadRequest."""
    if not raw.body_exists:
        return b""
    text = f"limit is {MAX_BODY}"
    if raw.content_length is not None and raw.content_length > MAX_BODY:
        raise TooLarge(f"Request entity too large: {text}")
    if raw.headers.get("Expect", "").lower() == "100-continue" and connection.stream is not None:
        connection.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    pieces: list[bytes] = []
    size = 0
    try:
        while chunk := await raw.content.readany():
            size += len(chunk)
            if size > MAX_BODY:
                raise TooLarge(f"Request entity too large: {text}")
            pieces.append(chunk)
    except (web.RequestPayloadError, ConnectionError) as error:
        raise BadRequest(f"the body of the request could not be read: {error}") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def server_context(certificate: Path, client_ca: Path) -> ssl.SSLContext:
    """TLS 1.2 and 1.3, key and certificate in one file; client certificates are optional and must be of our authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


