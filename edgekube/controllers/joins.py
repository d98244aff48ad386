"""Letting a machine in under a node's name: what is known about it, the decision (api/nodeidentity.plan_join), and the two writes of it.

Reads pins, nodes and join tokens as they are now; writes tokens (who was let in) and pins. Called by one worker at a time.
"""

import logging

from edgekube.api import bootstraptokens, nodeidentity, signers
from edgekube.api.bootstraptokens import BootstrapToken
from edgekube.api.catalog import LEASE, NODE, SECRET
from edgekube.api.nodeidentity import NAME_IN_USE, WAIT, Join, Pin, Verdict, plan_join
from edgekube.api.types import Key, Obj
from edgekube.client.cache import Cache
from edgekube.client.protocol import Client
from edgekube.client.recorder import WARNING, Recorder, reference
from edgekube.controllers.csrplans import Asked
from edgekube.errors import NotFound
from edgekube.lib.clock import Clock
from edgekube.lib.failpoint import hit

log = logging.getLogger(__name__)

_LEASES = "kube-node-lease"


class Joins:
    """`own_node` is the node of the server itself, which nobody joins as; nor as any other name of the server."""

    def __init__(self, *, client: Client, cache: Cache, clock: Clock, events: Recorder, own_node: str, listen_seconds: float) -> None:
        self._client, self._cache, self._clock, self._events, self._own = client, cache, clock, events, own_node
        self._listen_seconds = listen_seconds
        self._seen: set[str] = set()
        self._listening: dict[str, tuple[int, float]] = {}  # request -> (revision of the name's Lease when it came, until when we listen)

    def seen(self, node: str) -> None:
        """There is a Node of that name: should it go, its name is free."""
        self._seen.add(node)

    def forget(self, request: str) -> None:
        """The request is gone."""
        self._listening.pop(request, None)

    async def admit(self, asked: Asked, *, itself: bool, reserved: frozenset[str]) -> Verdict:
        """Decide (`reserved`: names of the server). If the answer is yes, the token has counted the machine, and the name is pinned to its
        key."""
        node, key = signers.node_of(asked.request.common_name), asked.request.key_digest
        by_token = asked.user.startswith(bootstraptokens.USER_PREFIX)
        secret = await self._token(asked.user.removeprefix(bootstraptokens.USER_PREFIX)) if by_token else None
        token = bootstraptokens.read(secret) if secret is not None else None
        found = await self._node(node)
        pinned = await self._pinned(node)
        pins = self._pins() | ({} if pinned is None else {node: nodeidentity.read(pinned)})
        join = Join(
            node=node,
            key=key,
            now=self._clock.span()[0],
            machine=asked.machine,
            answers=self._answers(asked.name, node),
            itself=itself,
            token=token,
            by_token=by_token,
            pin=pins.get(node),
            owner=next((one for one, pin in pins.items() if one != node and pin.key == key and self._cache.get(NODE, Key("", one))), ""),
            key_revoked=any(key in pin.revoked_keys for pin in pins.values()),
            found=found,
            seen=node in self._seen,
            server=node == self._own or node in reserved,
        )
        verdict = plan_join(join)
        if verdict.reason == WAIT:
            return verdict
        self._listening.pop(asked.name, None)
        if verdict.reason:
            log.info("join refused", extra={"node": node, "reason": verdict.reason, "key": key[:12]})
            if verdict.reason == NAME_IN_USE and found is not None:
                text = f"another machine asked for a certificate as {node}, which is this node's name; it is told to take another"
                self._events.event(reference(found, NODE), WARNING, NAME_IN_USE, text)
            return verdict
        if secret is not None and token is not None:
            await self._count(secret, token, node, key)
        await self.pin(node, key)
        return verdict

    def _answers(self, request: str, node: str) -> bool | None:
        """Whether the node of that name renewed its Lease since the request came; None while we still listen."""
        lease = self._cache.get(LEASE, Key(_LEASES, node))
        revision, now = 0 if lease is None else lease.revision, self._clock.monotonic()
        first, until = self._listening.setdefault(request, (revision, now + self._listen_seconds))
        return True if revision != first else None if now < until else False

    async def holds(self, node: str, key: str) -> bool:
        """Whether the name belongs to this key now."""
        secret = await self._pinned(node)
        return secret is not None and nodeidentity.read(secret).trusts(key)

    async def pin(self, node: str, key: str) -> None:
        """The name belongs to this key from now on; whoever had it is refused."""
        secret = await self._pinned(node)
        if secret is not None and nodeidentity.read(secret).key == key:
            return
        wanted = nodeidentity.pinned(node, key, self._clock.now(), secret)
        if secret is None:
            await self._client.create(SECRET, wanted, nodeidentity.NAMESPACE)
        else:
            await self._client.update(SECRET, wanted)
        self._seen.discard(node)
        log.info("node pinned", extra={"node": node, "key": key[:12], "replaced": secret is not None})
        hit("join.pinned")

    async def _count(self, secret: Obj, token: BootstrapToken, node: str, key: str) -> None:
        """Compare and swap: the Secret is written as it was judged, or not at all (Conflict: the runner tries again)."""
        if token.uses and not token.claimed(node, key):
            await self._client.update(SECRET, bootstraptokens.with_claim(secret, node, key))
            hit("join.counted")

    async def _token(self, token_id: str) -> Obj | None:
        try:
            return await self._client.get(SECRET, bootstraptokens.PREFIX + token_id, bootstraptokens.NAMESPACE)
        except NotFound:
            return None

    async def _pinned(self, node: str) -> Obj | None:
        try:
            return await self._client.get(SECRET, nodeidentity.secret_name(node), nodeidentity.NAMESPACE)
        except NotFound:
            return None

    async def _node(self, name: str) -> Obj | None:
        try:
            return await self._client.get(NODE, name)
        except NotFound:
            return None

    def _pins(self) -> dict[str, Pin]:
        """Those of all nodes, from the cache: only that of the name asked for must be the newest."""
        items = [item for item in self._cache.list(SECRET, nodeidentity.NAMESPACE) if nodeidentity.is_pin(item)]
        return {pin.node: pin for pin in (nodeidentity.read(item.decode()) for item in items)}
