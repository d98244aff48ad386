"""Bodies of requests as they arrive, within bounds: of one, of one sender, and of all that are under way.

A body is held until it is whole. Who sends many at once and none to its end would fill the memory of the server; so what is not whole yet
is counted, for each sender (the holder of a certificate, else an address) and in all, and what would be too much is refused.
"""

import asyncio
from collections import Counter

from aiohttp import web
from aiohttp.web_request import BaseRequest

from edgekube.apiserver.connection import Connection
from edgekube.errors import BadRequest, TooLarge, TooManyRequests

MAX_BODY = 3 * 1024 * 1024
BODY_SECONDS = 60.0
ALL, EACH = 64 << 20, 16 << 20  # bytes of bodies that are not whole yet


class Bodies:
    def __init__(self, *, everybody: int = ALL, each: int = EACH) -> None:
        self._limits = everybody, each
        self._total = 0
        self._of: Counter[str] = Counter()

    async def read(self, raw: BaseRequest, connection: Connection) -> bytes:
        """The whole body. Raises TooLarge, TooManyRequests, BadRequest."""
        if not raw.body_exists:
            return b""
        text = f"limit is {MAX_BODY}"
        if raw.content_length is not None and raw.content_length > MAX_BODY:
            raise TooLarge(f"Request entity too large: {text}")
        if raw.headers.get("Expect", "").lower() == "100-continue" and connection.stream is not None:
            connection.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces: list[bytes] = []
        sender, size = connection.sender, 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while chunk := await raw.content.readany():
                    size += len(chunk)
                    if size > MAX_BODY:
                        raise TooLarge(f"Request entity too large: {text}")
                    self._add(sender, len(chunk))
                    pieces.append(chunk)
        except TimeoutError as error:
            raise BadRequest(f"the body of the request did not arrive within {BODY_SECONDS:g} s") from error
        except (web.RequestPayloadError, ConnectionError) as error:
            raise BadRequest(f"the body of the request could not be read: {error}") from error
        finally:
            self._remove(sender, sum(map(len, pieces)))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _add(self, sender: str, count: int) -> None:
        if self._total + count > self._limits[0] or self._of[sender] + count > self._limits[1]:
            raise TooManyRequests("too many requests that are not whole yet, please try again later", details={"retryAfterSeconds": 1})
        self._total += count
        self._of[sender] += count

    def _remove(self, sender: str, count: int) -> None:
        self._total -= count
        self._of[sender] -= count
        if self._of[sender] <= 0:
            del self._of[sender]
