"""Joining: from a token to an identity on disk. Once: afterwards no token is used or needed.

    1  key            made, for life                                                    node.key
    2  authority      asked for without trust, compared with the token's digest        ca.crt
    3  name           certificate asked for with the token, over verified TLS; pinned    node.json
    4  certificate    system:node:NAME                                                  client.crt
    5  certificate    of this node's own API, asked for as the node itself               serving.crt

Nothing of ours is sent before 2 has succeeded. Killed between any two lines, the next start goes on where this one stopped: the key stays,
so the server knows the request (and that the token has been used for it), and the name is pinned before the certificate is there.
Promises: JoinRefused says in one line what is wrong and what to do; trouble that may pass is retried until `timeout`, with a log line.
"""

import asyncio
import hashlib
import itertools
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from edgekube.agent import identity as identities
from edgekube.agent.authority import Found, Unreachable, ask
from edgekube.agent.dial import parse_address
from edgekube.agent.identity import Identity
from edgekube.agent.refusal import JoinRefused
from edgekube.agent.signing import Refused, Wish, obtain
from edgekube.api import bootstraptokens, nodeidentity
from edgekube.client.http import HttpClient, HttpConfig
from edgekube.errors import ApiError, Forbidden, ServiceUnavailable, Timeout, TooManyRequests, Unauthorized
from edgekube.lib import pki
from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import rfc3339
from edgekube.lib.failpoint import hit
from edgekube.lib.files import write_if_changed
from edgekube.lib.mux import words
from edgekube.lib.pki import Subject
from edgekube.lib.timefloor import FlooredClock
from edgekube.lib.tlsclock import client_context

log = logging.getLogger(__name__)

ASK_SECONDS = 8.0
REJOIN = "to join again, run edgekube uninstall on it and start it with a new token"
_ABSURD = timedelta(days=365)  # a clock further ahead of the server's than this makes certificates expire


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinConfig:
    """What a first start knows."""

    folder: Path
    servers: Sequence[str]  # https://HOST[:PORT]
    token: str
    node_name: str
    named: bool  # a person chose the name: it is never changed
    machine_id: str
    addresses: Sequence[str]
    timeout: float


async def ensure_joined(config: JoinConfig, clock: FlooredClock) -> Identity:
    """The identity of this machine; joins if it has none. Raises JoinRefused, IdentityDamaged, OSError."""
    known = identities.load(config.folder)
    if known is not None:
        identities.examine_key(known)
    if known is not None and identities.joined(known):
        if config.named and config.node_name != known.name:
            log.warning("this node keeps the name it joined with", extra={"node": known.name, "asked": config.node_name})
        return known
    joining = _Joining(config, clock)
    if known is None or not known.client.exists() or not identities.knows_authority(known):
        known = await joining.become(known)
    known = await joining.serve(known)
    log.info("joined the cluster", extra={"node": known.name})
    return known


class _Joining:
    """One attempt, as long as it takes."""

    def __init__(self, config: JoinConfig, clock: FlooredClock) -> None:
        self._config, self._clock = config, clock
        self._deadline = clock.monotonic() + config.timeout
        self._backoff = Backoff(base=0.2, cap=10.0, jitter=0.3)

    async def become(self, known: Identity | None) -> Identity:
        """Steps 1 to 4."""
        config = self._config
        if not config.token:
            raise JoinRefused(_no_token(known))
        if not config.servers:
            raise JoinRefused("name the server to join: --server https://HOST:6443")
        try:
            digest, bearer = bootstraptokens.parse_join_token(config.token)
        except ValueError as error:
            raise JoinRefused(str(error)) from None
        found = Identity(config.folder, known.name if known else config.node_name, tuple(config.servers))
        key = self._key(found)
        server = await self._authority(found, digest)
        async with self._client(found, server, bearer=bearer) as client:
            for name in self._names(found.name, key, pinned=known is not None):
                found = Identity(config.folder, name, found.servers)
                if await self._certificate(client, found, key):
                    return found
        raise JoinRefused(f"all names for this machine are in use ({found.name} at last): start it with --node-name")

    def _key(self, found: Identity) -> bytes:
        key = pki.read_secret(found.key)
        if key is None:
            key = pki.create_key()
            pki.write_secret(found.key, key)
            hit("join.key")
        return key

    async def _authority(self, found: Identity, digest: str) -> str:
        """The first server that has the token's authority, which is written down."""
        while True:
            troubles: list[str] = []
            for server in found.servers:
                try:
                    answer = await ask(server, timeout=ASK_SECONDS)
                    self._compare(server, answer, digest)
                    await self._learn_time(server, answer.authority)
                except Unreachable as error:
                    troubles.append(f"{server}: {error}")
                    continue
                if not found.ca.exists() or found.ca.read_bytes() != answer.authority:
                    found.state.unlink(missing_ok=True)  # of another cluster
                write_if_changed(found.ca, answer.authority, mode=0o644)
                hit("join.authority")
                return server
            await self._again("no server can be reached", "; ".join(troubles))

    def _compare(self, server: str, answer: Found, digest: str) -> None:
        if (actual := bootstraptokens.authority_digest(answer.authority)) != digest:
            raise JoinRefused(
                f"{server} is not of the token's cluster: its authority is {actual[:16]}..., the token's {digest[:16]}...; "
                "the token is of another cluster, or somebody is in between. Nothing was sent"
            )
        if answer.date is not None and self._clock.now() - answer.date > _ABSURD:
            here, there = rfc3339(self._clock.now()), rfc3339(answer.date)
            raise JoinRefused(f"the clock of this machine says {here}, that of {server} {there}: set the clock, then start again")

    async def _learn_time(self, server: str, authority: bytes) -> None:
        """From a connection that has been verified: a machine that woke up in 1970 knows better from here on."""
        answer = await ask(server, timeout=ASK_SECONDS, context=client_context(clock=self._clock, ca=authority))
        if answer.date is not None:
            self._clock.raise_floor(answer.date)

    def _names(self, name: str, key: bytes, *, pinned: bool) -> Sequence[str]:
        """What to be called: as wished, else with a bit of the machine's id; of the key, where cards were copied with their ids."""
        if pinned or self._config.named:
            return (name,)
        return (name, f"{name}-{self._config.machine_id[:6]}", f"{name}-{hashlib.sha256(key).hexdigest()[:6]}")

    async def _certificate(self, client: HttpClient, found: Identity, key: bytes) -> bool:
        """Whether we are this node now; False if another machine is."""
        subject = Subject(f"system:node:{found.name}", ("system:nodes",), client=True)
        wish = Wish(key=key, subject=subject, annotations={nodeidentity.MACHINE_ANNOTATION: self._config.machine_id})
        while True:
            try:
                certificate = await self._in_time(obtain(client, wish))
            except Refused as error:
                if error.reason == nodeidentity.NAME_IN_USE and not self._config.named:
                    log.warning("node name in use by another machine", extra={"node": found.name, "why": error.message})
                    return False
                raise JoinRefused(error.message) from None
            except (Unauthorized, Forbidden) as error:
                raise JoinRefused(_plain(error)) from None
            except (ServiceUnavailable, Timeout, TooManyRequests) as error:
                await self._again("the server can not be asked", error.message)
                continue
            except ApiError as error:
                raise JoinRefused(f"the server refused the signing request: {error.message}") from None
            hit("join.granted")
            identities.save(found)
            hit("join.name")
            pki.write_secret(found.client, certificate)
            hit("join.client")
            return True

    async def serve(self, found: Identity) -> Identity:
        """Step 5, as the node itself."""
        wish = Wish(key=found.key.read_bytes(), subject=serving_subject(found.name, self._config.addresses))
        for server in itertools.cycle(self._config.servers or found.servers):
            try:
                async with self._client(found, server) as client:
                    certificate = await self._in_time(obtain(client, wish))
            except Refused as error:
                raise JoinRefused(f"the certificate of this node's own API was refused: {error.message}") from None
            except (Unauthorized, Forbidden) as error:
                raise JoinRefused(f"the server does not accept this node any more: {error.message}; {REJOIN}") from None
            except ApiError as error:
                await self._again("the server can not be asked", f"{server}: {error.message}")
                continue
            found = replace(found, addresses=tuple(self._config.addresses))
            identities.save(found)
            hit("join.addresses")
            pki.write_secret(found.serving, certificate)
            hit("join.serving")
            return found
        raise JoinRefused("name the server to join: --server https://HOST:6443")

    def _client(self, found: Identity, server: str, *, bearer: str = "") -> HttpClient:
        config = HttpConfig(
            server=f"https://{parse_address(server)}",
            server_name=words.SERVER_NAME,
            ca_file=found.ca,
            cert_file=None if bearer else found.client,
            key_file=None if bearer else found.key,
            token=(lambda: bearer) if bearer else None,
            clock=self._clock,
        )
        return HttpClient(config)

    async def _in_time(self, work: Coroutine[Any, Any, bytes]) -> bytes:
        try:
            async with asyncio.timeout(max(1.0, self._deadline - self._clock.monotonic())):
                return await work
        except TimeoutError:
            raise JoinRefused("the signing request was not answered in time: see kubectl get csr, kubectl certificate approve") from None

    async def _again(self, what: str, why: str) -> None:
        """Wait a little. Raises JoinRefused when there was time enough."""
        if self._clock.monotonic() >= self._deadline:
            raise JoinRefused(f"{what}: {why}")
        log.warning(what, extra={"why": why, "seconds_left": round(self._deadline - self._clock.monotonic())})
        await asyncio.sleep(self._backoff.delay(""))


def serving_subject(node: str, addresses: Sequence[str]) -> Subject:
    """Of the node's own API: found by its name; its addresses are for people who look."""
    return Subject(f"system:node:{node}", ("system:nodes",), (node,), tuple(addresses), server=True)


def _no_token(known: Identity | None) -> str:
    if known is not None and known.serving.exists():  # it had been a node
        what = f"{known.ca} is missing or damaged: start this node once with a new token"
        return f"{what} (--token, --token-file), see edgekube token create; its key, its name and its pods stay"
    return "this machine has joined no cluster yet: give it a token (--token, --token-file), see edgekube token create"


def _plain(error: ApiError) -> str:
    if error.message in ("", "Unauthorized"):
        return 'the server does not accept the token: it is wrong, has expired or was revoked; make a new one with "edgekube token create"'
    return error.message
