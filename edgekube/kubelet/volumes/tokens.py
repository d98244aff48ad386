"""Service account tokens for pods, bound to the pod and renewed before they end.

Reads and writes nothing but TokenRequests. A token is renewed at 80 % of its life or after 24 h, whichever is first (upstream:
pkg/kubelet/token/token_manager.go). `next_due` tells a pod's worker when to look again.
"""

import random
from dataclasses import dataclass

from edgekube.api.catalog import SERVICE_ACCOUNT
from edgekube.api.types import Obj
from edgekube.client.protocol import Client
from edgekube.errors import ApiError
from edgekube.lib.clock import Clock, parse_rfc3339

DAY = 24 * 3600.0
JITTER = 10.0


@dataclass(slots=True)
class _Token:
    value: str
    renew: float  # monotonic
    ends: float


class Tokens:
    """Cached per pod uid, audience and life."""

    def __init__(self, *, client: Client, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._known: dict[str, dict[tuple[str, int], _Token]] = {}

    async def get(self, pod: Obj, audience: str, seconds: int) -> str:
        """A valid token. While the API is away an old one serves until it ends. Raises ApiError."""
        known = self._known.setdefault(pod["metadata"]["uid"], {})
        found, now = known.get((audience, seconds)), self._clock.monotonic()
        if found is not None and now < found.renew:
            return found.value
        try:
            fresh = await self._request(pod, audience, seconds)
        except ApiError:
            if found is not None and now < found.ends:
                found.renew = now + JITTER
                return found.value
            raise
        known[audience, seconds] = fresh
        return fresh.value

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
        now = self._clock.monotonic()
        life = (parse_rfc3339(status["expirationTimestamp"]) - self._clock.now()).total_seconds()
        renew = min(life * 0.8, DAY) - random.random() * min(JITTER, life * 0.1)
        return _Token(status["token"], now + max(renew, 1.0), now + life)

    def next_due(self, uid: str) -> float | None:
        """Monotonic time of the pod's next renewal."""
        return min((one.renew for one in self._known.get(uid, {}).values()), default=None)

    def forget(self, uid: str) -> None:
        self._known.pop(uid, None)
