"""One small HTTP/1.1 GET for probes and lifecycle hooks: any port of a pod, TLS unverified, redirects on the same host followed.

Reads at most 10 KiB of the body. Promises to finish or raise within `timeout`, and to leave no connection behind.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

MAX_BODY = 10 << 10
MAX_HEADERS = 64 << 10
MAX_REDIRECTS = 10


class HttpFailed(Exception):
    """No answer; the message says why in Go's words where a user sees them."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]
    redirected_away: bool = False


def url_of(scheme: str, host: str, port: int, path: str) -> str:
    literal = f"[{host}]" if ":" in host else host
    return f"{scheme}://{literal}:{port}{path if path.startswith('/') else '/' + path}"


async def get(url: str, headers: Sequence[tuple[str, str]], *, timeout: float) -> Answer:
    """Raises HttpFailed, TimeoutError."""
    async with asyncio.timeout(timeout):
        start = urlsplit(url).hostname
        for _ in range(MAX_REDIRECTS):
            answer = await _once(url, headers)
            location = answer.headers.get("location")
            if answer.status not in (301, 302, 303, 307, 308) or not location:
                return answer
            url = urljoin(url, location)
            if urlsplit(url).hostname != start:
                return Answer(answer.status, answer.body, answer.headers, redirected_away=True)
        raise HttpFailed(f'Get "{url}": stopped after {MAX_REDIRECTS} redirects')


async def _once(url: str, headers: Sequence[tuple[str, str]]) -> Answer:
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    context = _unverified() if secure else None
    name = None if not secure else _server_name(headers, host)
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name, limit=MAX_HEADERS)
    except OSError as error:
        raise HttpFailed(f'Get "{url}": dial tcp {_authority(host, port)}: connect: {_reason(error)}') from error
    try:
        writer.write(_request(parts.path or "/", parts.query, parts.netloc, headers))
        await writer.drain()
        return await _answer(reader)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        word = "EOF" if isinstance(error, asyncio.IncompleteReadError) else _reason(error)
        raise HttpFailed(f'Get "{url}": {word}') from error
    finally:
        writer.transport.abort()


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset by peer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _server_name(headers: Sequence[tuple[str, str]], host: str) -> str:
    wanted = next((value for name, value in headers if name.lower() == "host"), host).rsplit(":", 1)[0]
    try:
        ipaddress.ip_address(wanted.strip("[]"))
    except ValueError:
        return wanted
    return ""


def _request(path: str, query: str, netloc: str, headers: Sequence[tuple[str, str]]) -> bytes:
    known = {name.lower() for name, _ in headers}
    lines = [f"GET {path}{'?' + query if query else ''} HTTP/1.1"]
    if "host" not in known:
        lines.append(f"Host: {netloc}")
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


async def _answer(reader: asyncio.StreamReader) -> Answer:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
            raise ValueError(f'malformed HTTP response "{first[:60]}"')
        status = int(words[1])
        if status >= 200:
            break
    pairs = [line.partition(":") for line in rest if line]
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Answer(status, await _body(reader, headers), headers)


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunked(reader)
    wanted = MAX_BODY
    length = headers.get("content-length", "")
    if length.isdigit():
        wanted = min(MAX_BODY, int(length))
    found = b""
    while len(found) < wanted and (data := await reader.read(wanted - len(found))):
        found += data
    return found


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    found = b""
    while len(found) < MAX_BODY:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size == 0:
            break
        taken = min(size, MAX_BODY - len(found))
        found += await reader.readexactly(taken)
        if taken < size:
            break
        await reader.readexactly(2)
    return found
