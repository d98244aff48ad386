"""Service account tokens for pods, bound to the pod and renewed before they end.

Writes TokenRequests and, so that a node can start its pods without a server, notes (encrypted where it has a disk for them). A token is
renewed at 80 % of its life or after 24 h, whichever is first (upstream: pkg/kubelet/token/token_manager.go). While the API can not be
reached an old one serves, even one that has ended: nobody judges it before the API is back, and then it is renewed. `next_due` tells a
pod's worker when to look again.
"""

import random
from dataclasses import dataclass
from datetime import timedelta

import orjson

from edgekube.api.catalog import SERVICE_ACCOUNT
from edgekube.api.types import Obj
from edgekube.client.notes import NoNotes, Notes
from edgekube.client.protocol import Client
from edgekube.errors import ApiError, ServiceUnavailable, Timeout
from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import Clock, parse_rfc3339, rfc3339

DAY = 24 * 3600.0
JITTER = 10.0


@dataclass(slots=True)
class _Token:
    value: str
    renew: float  # monotonic
    ends: float


class Tokens:
    """Cached per pod uid, audience and life."""

    def __init__(self, *, client: Client, clock: Clock, notes: Notes | None = None) -> None:
        self._client, self._clock, self._notes = client, clock, notes or NoNotes()
        self._backoff = Backoff(base=JITTER, cap=300.0, jitter=0.5)
        self._known: dict[str, dict[tuple[str, int], _Token]] = {}

    async def get(self, pod: Obj, audience: str, seconds: int) -> str:
        """A valid token. While the API is away an old one serves; while it refuses, until it ends. Raises ApiError."""
        uid = pod["metadata"]["uid"]
        known = self._known.setdefault(uid, {})
        found, now = known.get((audience, seconds)) or self._noted(uid, audience, seconds), self._clock.monotonic()
        if found is not None:
            known[audience, seconds] = found
            if now < found.renew:
                return found.value
        try:
            fresh = await self._request(pod, audience, seconds)
        except ApiError as error:
            if found is not None and (now < found.ends or isinstance(error, ServiceUnavailable | Timeout)):
                found.renew = now + self._backoff.delay((uid, audience, seconds))
                return found.value
            raise
        self._backoff.forget((uid, audience, seconds))
        known[audience, seconds] = fresh
        return fresh.value

    def _noted(self, uid: str, audience: str, seconds: int) -> _Token | None:
        """From before a restart, by the wall clock: one that is wrong makes it be renewed sooner or later than is best."""
        note = self._notes.note(_name(uid, audience, seconds))
        if note is None:
            return None
        saved = orjson.loads(note)
        now, wall = self._clock.monotonic(), self._clock.now()
        left = {name: (parse_rfc3339(saved[name]) - wall).total_seconds() for name in ("renew", "ends")}
        return _Token(saved["token"], now + min(left["renew"], DAY), now + left["ends"])

    async def _request(self, pod: Obj, audience: str, seconds: int) -> _Token:
        metadata = pod["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        body: Obj = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience] if audience else [], "expirationSeconds": seconds, "boundObjectRef": bound},
        }
        account = pod["spec"].get("serviceAccountName") or "default"
        answer = await self._client.create(SERVICE_ACCOUNT, body, metadata["namespace"], subresource="token", name=account)
        status = answer["status"]
        now, wall = self._clock.monotonic(), self._clock.now()
        life = (parse_rfc3339(status["expirationTimestamp"]) - wall).total_seconds()
        renew = min(life * 0.8, DAY) - random.random() * min(JITTER, life * 0.1)
        saved = {"token": status["token"], "renew": rfc3339(wall + timedelta(seconds=renew)), "ends": status["expirationTimestamp"]}
        self._notes.set_note(_name(metadata["uid"], audience, seconds), orjson.dumps(saved))
        return _Token(status["token"], now + max(renew, 1.0), now + life)

    def next_due(self, uid: str) -> float | None:
        """Monotonic time of the pod's next renewal."""
        return min((one.renew for one in self._known.get(uid, {}).values()), default=None)

    def forget(self, uid: str) -> None:
        for audience, seconds in self._known.pop(uid, {}):
            self._notes.set_note(_name(uid, audience, seconds), None)
            self._backoff.forget((uid, audience, seconds))


def _name(uid: str, audience: str, seconds: int) -> str:
    return f"pod/{uid}/token/{seconds}/{audience}"
