"""One attempt to reach a server: TCP, TLS with our authority and our certificate, and the upgrade to a tunnel.

Whether it is our server, TLS decides: its certificate must be of our authority and carry the API's own name. Which address it has does not
matter, so an address may come from anywhere.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, cast

import orjson

from edgekube import __version__
from edgekube.lib.mux import words
from edgekube.lib.tlsclock import OutOfDate

DEFAULT_PORT = 6443
_HEAD_LIMIT = 64 * 1024


class Address(NamedTuple):
    """Where a server may be; `host` is a name or an address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Dialed:
    """A tunnel that is open. `servers`: where the server says it can be reached. `rest()`: what has come through it until now; to be asked
    in the moment when another protocol takes over, so that nothing is lost in between. `date`: the server's clock."""

    address: Address
    transport: asyncio.Transport
    rest: Callable[[], bytes]
    servers: Sequence[Address]
    date: datetime | None = None


class DialFailed(Exception):
    """Nothing came of it; the message says why. `refused`: the server is there and does not want us (an HTTP status)."""

    def __init__(self, why: str, refused: int = 0) -> None:
        super().__init__(why)
        self.refused = refused


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """`https://HOST:PORT`, `HOST:PORT`, `HOST`, `[V6]:PORT`, or a bare IPv6 address. Raises ValueError."""
    bare = text.strip().removeprefix("https://").rstrip("/")
    if bare.startswith("["):
        host, _, port = bare[1:].partition("]")
        port = port.removeprefix(":")
    elif bare.count(":") > 1:
        host, port = bare, ""
    else:
        host, _, port = bare.partition(":")
    number = int(port) if port else default_port
    if not host or "/" in bare or "@" in bare or not 0 < number < 65536:
        raise ValueError(f"{text!r} is no address of a server such as https://HOST:{default_port}")
    return Address(host, number)


def parse_addresses(text: str) -> list[Address]:
    """As a server tells them, HOST:PORT,...; what is unreadable is left out."""
    found = []
    for part in filter(None, text.split(",")):
        with contextlib.suppress(ValueError):
            found.append(parse_address(part))
    return found


def is_gone(sockname: Any) -> bool:
    """Whether this machine has the address of a socket no more."""
    if not isinstance(sockname, tuple):
        return False
    with socket.socket(socket.AF_INET6 if len(sockname) == 4 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((sockname[0], 0, *sockname[2:]))
        except OSError as error:
            return error.errno == errno.EADDRNOTAVAIL
    return False


def parse_date(text: str) -> datetime | None:
    """The Date header of an answer; None if there is none, or none that can be read."""
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


async def dial(address: Address, tls: ssl.SSLContext, *, timeout: float, process: str = "") -> Dialed:
    """`address.host` must be an address; `process` tells this agent from a copy of it. Raises DialFailed."""
    loop = asyncio.get_running_loop()
    upgrade = _Upgrade(process)
    transport: asyncio.Transport | None = None
    try:
        async with asyncio.timeout(timeout):
            transport, _ = await loop.create_connection(
                lambda: upgrade,
                address.host,
                address.port,
                ssl=tls,
                server_hostname=words.SERVER_NAME,
                ssl_handshake_timeout=timeout,
                ssl_shutdown_timeout=1.0,
            )
            head = await upgrade.answered()
            found, transport = transport, None
            servers = parse_addresses(head.get(words.SERVERS_HEADER.lower(), ""))
            return Dialed(address, found, upgrade.rest, servers, parse_date(head.get("date", "")))
    except TimeoutError:
        raise DialFailed("no answer in time") from None
    except ssl.SSLCertVerificationError as error:
        why = error.reason if isinstance(error, OutOfDate) else f"its certificate is not of our cluster ({error.verify_message})"
        raise DialFailed(why) from error
    except ssl.SSLError as error:
        raise DialFailed(f"tls: {error.reason or error}") from error
    except (OSError, EOFError) as error:
        number = error.errno if isinstance(error, OSError) else None
        raise DialFailed(os.strerror(number).lower() if number else str(error) or "the connection was closed") from error
    finally:
        if transport is not None:
            transport.abort()


class _Upgrade(asyncio.Protocol):
    """Asks for the tunnel and waits for the answer's head."""

    def __init__(self, process: str = "") -> None:
        self._process = process
        self._data = b""
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        lines = [f"GET {words.PATH} HTTP/1.1", f"Host: {words.SERVER_NAME}", "Connection: Upgrade", f"Upgrade: {words.PROTOCOL}"]
        lines.append(f"User-Agent: edgekube/{__version__}")
        lines += [f"{words.PROCESS_HEADER}: {self._process}"] if self._process else []
        cast(asyncio.Transport, transport).write("\r\n".join([*lines, "", ""]).encode())

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._complete() or len(self._data) > _HEAD_LIMIT:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._wake()

    def _complete(self) -> bool:
        """Of a refusal the body is wanted too: it says why."""
        head, _, body = self._data.partition(b"\r\n\r\n")
        if len(head) == len(self._data):
            return False
        length = _headers(head).get("content-length", "")
        return head.startswith(b"HTTP/1.1 101") or (length.isdigit() and len(body) >= int(length))

    def _wake(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def rest(self) -> bytes:
        return self._data.partition(b"\r\n\r\n")[2]

    async def answered(self) -> dict[str, str]:
        """The headers. Raises DialFailed, EOFError."""
        await self._done
        head, _, rest = self._data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 "):
            raise EOFError("it does not speak HTTP" if head else "the connection was closed")
        status = int(head[9:12]) if head[9:12].isdigit() else 0
        if status != 101:
            raise DialFailed(_why(rest) or f"the server answered {status}", refused=status)
        return _headers(head)


def _headers(head: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _why(body: bytes) -> str:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(answer.get("message", "")) if isinstance(answer, dict) else ""
