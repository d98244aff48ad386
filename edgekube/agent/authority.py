"""Asking an address that nobody has vouched for yet who it is: `GET /cacerts` over TLS that verifies nothing.

Nothing of ours is sent but the request for a public file. What comes back proves nothing either, until its digest is compared with the
one in the token: only then is there an authority to verify with.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from edgekube import __version__
from edgekube.agent.dial import parse_address, parse_date
from edgekube.lib.mux import words
from edgekube.lib.tlsclock import OutOfDate

_LIMIT = 256 * 1024
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


class Unreachable(Exception):
    """No answer, or none that makes sense; the message says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a server says of itself. `date`: its clock, if it told."""

    authority: bytes
    date: datetime | None


async def ask(server: str, *, timeout: float, context: ssl.SSLContext | None = None) -> Found:
    """`server` is https://HOST[:PORT]; with a `context` it is verified after all. Raises Unreachable."""
    status, headers, body = await fetch(server, "/cacerts", context=context or _trusting(), timeout=timeout)
    if status != 200 or _CERTIFICATE not in body:
        raise Unreachable(f"it is no edgekube server (its answer to /cacerts was {status})")
    return Found(body, parse_date(headers.get("date", "")))


async def fetch(
    server: str, path: str, *, context: ssl.SSLContext, timeout: float, body: bytes | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    """One GET, or a POST of `body`, over a connection of its own: status, headers, body. Raises Unreachable."""
    place = parse_address(server)
    try:
        async with asyncio.timeout(timeout):
            return await _exchange(place.host, place.port, path, context, body)
    except TimeoutError:
        raise Unreachable("no answer in time") from None
    except OutOfDate as error:
        raise Unreachable(error.reason) from error
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"its certificate is not good: {error.verify_message}") from error
    except (OSError, EOFError, ValueError) as error:
        raise Unreachable((getattr(error, "strerror", "") or str(error) or "the connection was closed").lower()) from error


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _exchange(host: str, port: int, path: str, context: ssl.SSLContext, sent: bytes | None) -> tuple[int, Mapping[str, str], bytes]:
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=words.SERVER_NAME, limit=_LIMIT)
    try:
        lines = [f"{'GET' if sent is None else 'POST'} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"User-Agent: edgekube/{__version__}", *([] if sent is None else [f"Content-Length: {len(sent)}"])]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (sent or b""))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        version, _, rest = head[0].partition(" ")
        if not version.startswith("HTTP/") or not rest[:3].isdigit():
            raise ValueError("it does not speak HTTP")
        length = headers.get("content-length", "")
        body = await (reader.readexactly(min(int(length), _LIMIT)) if length.isdigit() else reader.read(_LIMIT))
        return int(rest[:3]), headers, body
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await writer.wait_closed()
