"""Questions that are not the cluster's: asked of the host's own name servers, answers kept for as long as they say.

Reads the host's resolv.conf, followed live (a stat per question); behind systemd-resolved its list of true upstreams. Answers are kept as
bytes, at most 1,000, and served stale for an hour when no upstream answers: a box whose uplink is gone keeps the names it used.
Never asks our own address: that would be a loop.
"""

import asyncio
import logging
import os
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
_TRY_SECONDS = 2.0
_STALE_SECONDS = 3600.0
_ENTRIES = 1000


class NoUpstream(Exception):
    """Nobody answered."""


@dataclass(slots=True)
class _Kept:
    answer: bytes
    until: float


def parse_servers(text: str, own: Sequence[str]) -> list[str]:
    """The name servers of a resolv.conf, without ourselves."""
    words = (line.split() for line in text.splitlines())
    found = [entry[1].split("%")[0] for entry in words if len(entry) >= 2 and entry[0] == "nameserver"]
    return [server for server in dict.fromkeys(found) if server not in own]


class Upstreams:
    """The list of servers, read again when the file changes."""

    def __init__(self, path: Path, own: Sequence[str]) -> None:
        self._path, self._own = path, own
        self._seen: tuple[Path, int, int] | None = None
        self._servers: list[str] = []

    def servers(self) -> list[str]:
        path = _RESOLVED if self._points_at_stub() else self._path
        try:
            state = os.stat(path)
        except OSError:
            return self._servers
        if self._seen != (path, state.st_mtime_ns, state.st_ino):
            self._seen = (path, state.st_mtime_ns, state.st_ino)
            self._servers = parse_servers(path.read_text(errors="replace"), self._own)
        return self._servers

    def _points_at_stub(self) -> bool:
        return _RESOLVED.exists() and "systemd" in os.path.realpath(self._path)


class Forwarder:
    """Asks upstream, one question at a time per caller; keeps answers."""

    def __init__(self, upstreams: Upstreams, *, port: int = 53, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._upstreams, self._port, self._monotonic = upstreams, port, monotonic
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    async def ask(self, query: bytes, *, tcp: bool) -> bytes:
        """The whole answer to a whole query message, with the query's id. Raises NoUpstream."""
        key = bytes([tcp]) + query[2:]
        kept = self._kept.get(key)
        now = self._monotonic()
        if kept is not None and kept.until > now:
            return query[:2] + kept.answer[2:]
        for server in self._upstreams.servers():
            try:
                async with asyncio.timeout(_TRY_SECONDS):
                    answer = await (_over_tcp if tcp else _over_udp)(server, self._port, query)
            except (TimeoutError, OSError):
                continue
            self._keep(key, answer, now)
            return answer
        if kept is not None and kept.until + _STALE_SECONDS > now:
            return query[:2] + kept.answer[2:]
        raise NoUpstream

    def _keep(self, key: bytes, answer: bytes, now: float) -> None:
        seconds = _lifetime(answer)
        if seconds > 0:
            self._kept[key] = _Kept(answer, now + seconds)
            self._kept.move_to_end(key)
            if len(self._kept) > _ENTRIES:
                self._kept.popitem(last=False)


def _lifetime(answer: bytes) -> float:
    """Seconds an answer may be kept: the smallest TTL, 5 for a name that does not exist, 0 for failures and truncated answers."""
    from dnslib import DNSError, DNSRecord

    try:
        record = DNSRecord.parse(answer)
    except (DNSError, struct.error, ValueError):
        return 0
    if record.header.tc or record.header.rcode not in (0, 3):
        return 0
    times = [entry.ttl for entry in record.rr]
    return float(min(times)) if times else 5.0


async def _over_tcp(server: str, port: int, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(struct.pack("!H", len(query)) + query)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("the upstream closed the connection") from error
    finally:
        writer.close()


async def _over_udp(server: str, port: int, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Reply(query[:2], answer), remote_addr=(server, port))
    try:
        transport.sendto(query)
        return await answer
    finally:
        transport.close()


class _Reply(asyncio.DatagramProtocol):
    """Waits for the datagram with our id."""

    def __init__(self, wanted: bytes, answer: asyncio.Future[bytes]) -> None:
        self._wanted, self._answer = wanted, answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data[:2] == self._wanted and not self._answer.done():
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)
