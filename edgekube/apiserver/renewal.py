"""`POST /v1-edgekube/renew`: a node whose certificate ended while it was off gets a fresh one for its key.

Open to everybody, for whoever comes here has no credentials that hold. Proof is the signing request itself (PEM): it is signed by the key
that the node's name is pinned to, and a certificate for that key is of use to nobody else, so a request that is sent again by another gives
nothing away. Refused: unknown nodes, other keys, revoked ones, anything but a node's client certificate. Requests are few and small: the
rate is limited by sender and in all, before anything is parsed; every answer is logged.
"""

import asyncio
import logging
from collections import OrderedDict
from datetime import timedelta
from pathlib import Path

from edgekube.api import signers
from edgekube.apiserver.identities import NodeIdentities
from edgekube.apiserver.request import AnyResponse, Request, Response
from edgekube.errors import BadRequest, Forbidden, TooLarge, TooManyRequests
from edgekube.lib import csr
from edgekube.lib.clock import Clock
from edgekube.lib.csr import SigningRequest

log = logging.getLogger(__name__)

PATH = "/v1-edgekube/renew"
LARGEST = 16 * 1024
_USAGES = ("digital signature", "client auth")
_PEM = "application/x-pem-file"
_EACH, _ALL = 6, 60  # requests a minute: of one sender, of all


class Renewal:
    """The handler. `authority` is the file with key and certificate."""

    def __init__(self, *, identities: NodeIdentities, authority: Path, clock: Clock, life: timedelta) -> None:
        self._identities, self._authority, self._clock, self._life = identities, authority, clock, life
        self._rate = Rate(clock)

    async def handle(self, request: Request) -> AnyResponse:
        """200 with the certificate. Raises TooManyRequests, TooLarge, BadRequest, Forbidden."""
        if not self._rate.admits(request.remote):
            log.warning("certificate renewal refused", extra={"remote": request.remote, "why": "too many requests"})
            raise TooManyRequests("too many requests for a renewal, try again in a minute", details={"retryAfterSeconds": 60})
        asked = await self._read(request)
        node = signers.node_of(asked.common_name)
        problem = signers.node_client_problem(asked, _USAGES) or self._identities.problem(node, asked.key_digest)
        extra = {"node": node, "key": asked.key_digest[:12], "remote": request.remote}
        if problem:
            log.warning("certificate renewal refused", extra=extra | {"why": problem})
            raise Forbidden(f"no renewal: {problem}", details={})
        made = await asyncio.to_thread(self._sign, asked)
        log.info("certificate renewed by proof of key", extra=extra)
        return Response(200, made, _PEM)

    async def _read(self, request: Request) -> SigningRequest:
        """Bodies of unknown size are not read at all."""
        size = request.headers.get("content-length", "")
        if not (size.isascii() and size.isdigit()):
            raise BadRequest("a renewal needs a Content-Length")
        if int(size) > LARGEST:
            raise TooLarge(f"Request entity too large: limit is {LARGEST}")
        try:
            return await asyncio.to_thread(csr.parse, await request.read_body())
        except ValueError as error:
            log.warning("certificate renewal refused", extra={"remote": request.remote, "why": str(error)})
            raise BadRequest(f"no signing request: {error}") from None

    def _sign(self, asked: SigningRequest) -> bytes:
        return csr.issue(self._authority.read_bytes(), asked, _USAGES, now=self._clock.now(), life=self._life)


class Rate:
    """At most so many a minute of each sender and of all; remembers a bounded number of senders."""

    def __init__(self, clock: Clock, *, each: int = _EACH, everybody: int = _ALL, senders: int = 1024) -> None:
        self._clock, self._each, self._everybody, self._senders = clock, each, everybody, senders
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()  # sender -> (tokens left, as of)

    def admits(self, sender: str) -> bool:
        """Count one request. A sender that is over its rate does not use up that of all."""
        return self._take(sender, self._each) and self._take("", self._everybody)

    def _take(self, name: str, rate: int) -> bool:
        now = self._clock.monotonic()
        left, since = self._known.get(name, (float(rate), now))
        left = min(float(rate), left + (now - since) * rate / 60)
        admitted = left >= 1
        self._known[name] = (left - 1 if admitted else left, now)
        self._known.move_to_end(name)
        while len(self._known) > self._senders:
            self._known.popitem(last=False)
        return admitted
