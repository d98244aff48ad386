"""Who may use the node's own API: tokens and permissions are asked of the API server, answers are remembered for ten seconds.

As upstream's kubelet with webhook authentication and authorization. Callers in system:masters (the API server itself) need no question:
exec and logs must work while the API server is busy with them.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from edgekube.client.protocol import Client
from edgekube.errors import ApiError
from edgekube.kubelet.server.http import Caller
from edgekube.lib.clock import Clock

_KEEP_SECONDS = 10.0
_ENTRIES = 1000
_MASTERS = "system:masters"


class DelegatedGate:
    """Satisfies kubelet.server.gate.Gate."""

    def __init__(self, *, client: Client, node_name: str, clock: Clock) -> None:
        self._client, self._node, self._clock = client, node_name, clock
        self._known: dict[tuple[Any, ...], tuple[float, Any]] = {}

    async def authenticate(self, token: str) -> Caller | None:
        """Through a TokenReview; None for a token that is nobody's."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        status = await self._ask(("token", hashlib.sha256(token.encode()).digest()), "/apis/authentication.k8s.io/v1/tokenreviews", body)
        user = status.get("user") or {}
        return Caller(user["username"], tuple(user.get("groups") or ())) if status.get("authenticated") else None

    async def allows(self, caller: Caller, verb: str, subresource: str, path: str) -> bool:
        """Through a SubjectAccessReview for nodes/`subresource` of this node."""
        if _MASTERS in caller.groups:
            return True
        attributes = {"verb": verb, "resource": "nodes", "subresource": subresource, "name": self._node, "version": "v1"}
        spec = {"user": caller.name, "groups": list(caller.groups), "resourceAttributes": attributes}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        question = ("access", caller.name, tuple(caller.groups), verb, subresource)
        status = await self._ask(question, "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        return bool(status.get("allowed"))

    async def _ask(self, question: tuple[Any, ...], path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        now = self._clock.monotonic()
        known = self._known.get(question)
        if known is not None and known[0] > now:
            found: Mapping[str, Any] = known[1]
            return found
        try:
            answer = json.loads(await self._client.raw("POST", path, body=json.dumps(body).encode()))
        except ApiError:
            return {}
        status: Mapping[str, Any] = answer.get("status") or {}
        if len(self._known) >= _ENTRIES:
            self._known.clear()
        self._known[question] = (now + _KEEP_SECONDS, status)
        return status
