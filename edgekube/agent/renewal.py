"""Certificates never stop the box: both are renewed in process when two thirds of their life are over, and taken into use at once.

    client    a new signing request as the node itself; `renewed` moves the connection to the new one
    serving   the same, also when the addresses of this machine change; `reload` puts it into the live listener

A client certificate that ended while the machine was off (or by a clock that jumped), or that the disk has damaged, proves nothing; the
key does: the server makes a fresh one for the key it has pinned (POST /v1-edgekube/renew). Reads and writes client.crt and serving.crt;
the key never changes. Sleeps until something is due, at most a day. A node that the server has revoked says so once and keeps asking,
slowly.
"""

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekube.agent import identity as identities
from edgekube.agent.authority import Unreachable, fetch
from edgekube.agent.identity import Identity
from edgekube.agent.join import REJOIN, serving_subject
from edgekube.agent.signing import Refused, Wish, obtain
from edgekube.client.protocol import Client
from edgekube.errors import ApiError
from edgekube.lib import csr, der, pki
from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import Clock
from edgekube.lib.failpoint import hit
from edgekube.lib.pki import Subject, Validity, renewal_of
from edgekube.lib.tlsclock import client_context

log = logging.getLogger(__name__)

RENEW = "/v1-edgekube/renew"
_LONGEST_SLEEP, _SHORTEST_SLEEP = 86400.0, 1.0
_AHEAD_SECONDS = 3600.0
_ASK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalConfig:
    """Whose certificates, and who wants to know."""

    identity: Identity
    servers: Callable[[], Sequence[str]]  # https://HOST:PORT, the most promising first
    addresses: Callable[[], Sequence[str]]
    renewed: Callable[[], None]  # the client certificate is another
    reload: Callable[[], None]  # the serving certificate is another


class NodeCertificates:
    """Component; see the module."""

    name = "certificates"

    def __init__(self, *, config: RenewalConfig, client: Client, clock: Clock) -> None:
        self._config, self._client, self._clock = config, client, clock
        self._kick = asyncio.Event()
        self._backoff = Backoff(base=2.0, cap=600.0, jitter=0.3)
        self._served = tuple(config.identity.addresses)
        self._revoked = self._expired = False

    def refused(self, status: int, why: str) -> None:
        """The server is there and does not want this connection."""
        if status not in (401, 403):
            return
        if "revoked" in why:
            self._tell_revoked(why)
        else:
            self._expired = True  # by the server's clock, whatever ours says
            self.kick()

    def kick(self) -> None:
        """Look at once: the clock jumped, an address changed, the server refused our certificate."""
        self._kick.set()

    async def run(self, ready: asyncio.Event) -> None:
        ready.set()
        while True:
            try:
                left = await self._look()
                self._backoff.forget("")
            except (ApiError, Refused, Unreachable, OSError, ValueError) as error:
                left = self._backoff.delay("")
                self._tell(getattr(error, "message", "") or str(error), left)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_LONGEST_SLEEP, max(_SHORTEST_SLEEP, left))):
                    await self._kick.wait()
            self._kick.clear()

    def _tell(self, why: str, left: float) -> None:
        if "revoked" in why:
            self._tell_revoked(why)
            return
        log.warning("certificate not renewed", extra={"error": why, "again_in": round(left)})

    def _tell_revoked(self, why: str) -> None:
        if not self._revoked:
            log.error("this node was revoked: it gets no orders any more", extra={"why": why, "fix": REJOIN})
        self._revoked = True

    async def _look(self) -> float:
        """Renew what is due; seconds until something else will be."""
        identity, now = self._config.identity, self._clock.now()
        client = _usable(identity.client, identity.key)
        if client is None or now > client.not_after or self._expired:
            await self._prove()
        elif now >= renewal_of(client):
            await self._renew_client()
        serving, addresses = _usable(identity.serving, identity.key), tuple(self._config.addresses())
        if serving is None or now >= renewal_of(serving) or addresses != self._served:
            await self._renew_serving(addresses)
        certificates = (validity(identity.client), validity(identity.serving))
        left = min((renewal_of(one) - self._clock.now()).total_seconds() for one in certificates)
        return left if left > 0 else self._ahead()

    def _ahead(self) -> float:
        """What was just made is due already, by our clock: another one would not be better."""
        log.warning("clock is far ahead of the server's: new certificates look old", extra={"fix": "set the clock of this machine"})
        return _AHEAD_SECONDS

    async def _renew_client(self) -> None:
        wish = Wish(key=self._key(), subject=self._subject())
        await self._take_client(await obtain(self._client, wish, again=True))

    async def _prove(self) -> None:
        """By the key alone."""
        body = await asyncio.to_thread(csr.make, self._key(), self._subject())
        context = client_context(clock=self._clock, ca=self._config.identity.ca)
        troubles = []
        for server in self._config.servers():
            try:
                status, _, answer = await fetch(server, RENEW, context=context, timeout=_ASK_SECONDS, body=body)
            except Unreachable as error:
                troubles.append(f"{server}: {error}")
                continue
            if status != 200:
                raise Refused("", f"the server made no new certificate for this key: {_message(answer) or status}")
            await self._take_client(answer)
            return
        raise Unreachable("; ".join(troubles) or "no server is known")

    async def _take_client(self, certificate: bytes) -> None:
        await asyncio.to_thread(self._write, self._config.identity.client, certificate)
        self._revoked = self._expired = False
        self._config.renewed()

    async def _renew_serving(self, addresses: tuple[str, ...]) -> None:
        identity = self._config.identity
        wish = Wish(key=self._key(), subject=serving_subject(identity.name, addresses))
        certificate = await obtain(self._client, wish, again=True)
        identities.save(replace(identity, addresses=addresses))
        await asyncio.to_thread(self._write, identity.serving, certificate)
        self._served = addresses
        self._config.reload()

    def _subject(self) -> Subject:
        return Subject(f"system:node:{self._config.identity.name}", ("system:nodes",), client=True)

    def _key(self) -> bytes:
        return self._config.identity.key.read_bytes()

    def _write(self, path: Path, certificate: bytes) -> None:
        """Only what fits our key: a certificate that does not would cut the node off."""
        own = csr.parse(csr.make(self._key(), self._subject())).key_digest
        if der.key_digest(ssl.PEM_cert_to_DER_cert(pki.certificate_pem(certificate).decode())) != own:
            raise ValueError("the certificate that came back is for another key")
        hit("renewal.write")
        pki.write_secret(path, certificate)
        log.info("certificate renewed", extra={"file": path.name, "until": validity(path).not_after.isoformat()})


def _usable(path: Path, key: Path) -> Validity | None:
    """None if the certificate is missing, damaged, or of another key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, key)
        return validity(path)
    except (OSError, ValueError):
        return None


def validity(path: Path) -> Validity:
    """Of a certificate on disk; read without the cryptography library. Raises OSError, ValueError."""
    first, last = der.dates(ssl.PEM_cert_to_DER_cert(pki.certificate_pem(path.read_bytes()).decode()))
    return Validity(first + (last - first) / 2, first, last)  # as lib.csr.issue makes them: a whole life before they were issued


def _message(answer: bytes) -> str:
    try:
        found = json.loads(answer)
    except ValueError:
        return ""
    return str(found.get("message", "")) if isinstance(found, dict) else ""
