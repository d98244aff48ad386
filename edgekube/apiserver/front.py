"""HTTP and TLS: aiohttp's low-level server as parser and connection keeper; what goes out is written to the transport by ourselves.

A connection's client certificate is read once. Answers are whole, in chunks, pushed by others (watch), or the connection itself is handed
over (exec, attach, port-forward). Certificates are loaded again into the live context when they change. uvloop keeps an idle TLS
connection at 40 KB.
"""

import asyncio
import ssl
from pathlib import Path
from urllib.parse import parse_qs, unquote

from aiohttp import web
from aiohttp.web_request import BaseRequest

from edgekube.api.signers import NODE_PREFIX
from edgekube.apiserver.bodies import Bodies
from edgekube.apiserver.connection import NO_BODY, Connection, ConnectionSink, Done, Factory, head_of, keeps, packed
from edgekube.apiserver.request import PushResponse, Request, Response, StreamResponse, TakeoverResponse, TunnelResponse
from edgekube.apiserver.server import Server
from edgekube.lib.tlsclock import ignore_time

KEEP_ALIVE = 120.0
HANDSHAKE = 15.0  # seconds, over the worst of links
GZIP_FROM = 128 * 1024
LINE = 65536  # long selectors, long tokens


class Front:
    """Listens and translates. `listen` may be called for several addresses."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._web = Factory(
            self._handle, access_log=None, keepalive_timeout=KEEP_ALIVE, max_line_size=LINE, max_field_size=LINE, max_headers=256
        )
        self._bodies = Bodies()
        self._listeners: list[asyncio.Server] = []

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Start to accept; returns the port. Raises OSError."""
        listener = await asyncio.get_running_loop().create_server(
            self._web, host, port, ssl=tls, ssl_handshake_timeout=HANDSHAKE if tls is not None else None, backlog=1024, reuse_address=True
        )
        self._listeners.append(listener)
        found: int = listener.sockets[0].getsockname()[1]
        return found

    def drop_node(self, node: str) -> None:
        """Cut every connection that shows a certificate of `node`."""
        name = NODE_PREFIX + node
        for connection in [one for one in self._web.connections if isinstance(one, Connection)]:
            if connection.certificate is not None and connection.certificate.common_name == name:
                connection.cut()

    async def close(self, timeout: float = 2.0) -> None:
        """Stop to accept, end watches, let the rest finish for `timeout` seconds."""
        for listener in self._listeners:
            listener.close()
        self._server.hub.close()
        for end in self._server.on_stop:
            end()
        self._web.pre_shutdown()
        await self._web.shutdown(timeout)
        self._listeners.clear()

    async def _handle(self, raw: BaseRequest) -> web.StreamResponse:
        connection = raw.protocol
        if not isinstance(connection, Connection):
            raise TypeError("a connection that we did not make")
        connection.began()
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
            case TakeoverResponse():
                return await self._takeover(connection, response)

    def _request(self, raw: BaseRequest, connection: Connection) -> Request:
        path, _, query = raw.path_qs.partition("?")
        headers: dict[str, str] = {}
        for name, value in raw.headers.items():
            lower = name.lower()
            if lower in headers:
                value = f"{headers[lower]}\n{value}" if lower.startswith("impersonate-") else f"{headers[lower]}, {value}"
            headers[lower] = value

        async def read_body() -> bytes:
            return await self._bodies.read(raw, connection)

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

    async def _whole(self, raw: BaseRequest, connection: Connection, response: Response) -> Done:
        body = response.body
        if len(body) > GZIP_FROM and "gzip" in raw.headers.get("Accept-Encoding", "") and "Content-Encoding" not in response.headers:
            body = await asyncio.to_thread(packed, body)
            response.headers["Content-Encoding"] = "gzip"
        keep = keeps(raw)
        head = head_of(raw, response.status, response.content_type, response.headers, len(body), keep)
        stream = connection.stream
        if stream is None:
            return Done(False)
        if raw.method == "HEAD" or response.status in NO_BODY:
            body = b""
        stream.write(head + body if len(body) < GZIP_FROM else head)
        if len(body) >= GZIP_FROM:
            stream.write(body)
            await connection._drain_helper()
        return Done(keep)

    async def _chunks(self, raw: BaseRequest, connection: Connection, response: StreamResponse) -> Done:
        chunked = raw.version >= (1, 1)
        keep = chunked and keeps(raw)
        stream = connection.stream
        try:
            if stream is not None:
                stream.write(head_of(raw, response.status, response.content_type, response.headers, None, keep))
            async for chunk in response.chunks:
                stream = connection.stream
                if stream is None:
                    return Done(False)
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
            return Done(False)
        finally:
            closing = getattr(response.chunks, "aclose", None)
            if closing is not None:
                await closing()
        return Done(keep)

    async def _push(self, raw: BaseRequest, connection: Connection, response: PushResponse) -> Done:
        chunked = raw.version >= (1, 1)
        stream = connection.stream
        if stream is None:
            return Done(False)
        stream.write(head_of(raw, 200, response.content_type, response.headers, None, chunked))
        sink = ConnectionSink(connection, chunked)
        try:
            response.start(sink)
            await sink.done
        finally:
            response.stop()
            connection.on_lost = None
        return Done(chunked and keeps(raw))

    async def _takeover(self, connection: Connection, response: TakeoverResponse) -> Done:
        stream, tail = connection.stream, connection._message_tail
        if stream is None:
            return Done(False)
        connection._message_tail = b""
        connection.stream = None
        connection.transport = None  # aiohttp must neither read nor close it any more
        try:
            await response.run(stream, tail, self._web)
        finally:
            stream.close()
            connection.connection_lost(None)
        return Done(False)

    async def _tunnel(self, raw: BaseRequest, connection: Connection, response: TunnelResponse) -> Done:
        stream = connection.stream
        if stream is None:
            return Done(False)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=256 * 1024, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        tail = connection._message_tail
        connection._message_tail = b""
        stream.set_protocol(protocol)
        protocol.connection_made(stream)
        connection.stream, connection.handed = None, stream
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
        return Done(False)


def server_context(certificate: Path, client_ca: Path) -> ssl.SSLContext:
    """TLS 1.2 and 1.3, key and certificate in one file; client certificates are optional and must be of our authority. Their dates are
    judged by the Authenticator: an expired client gets an answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return ignore_time(context)
