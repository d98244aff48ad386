"""Who may ask the node what: upstream's mapping of requests to questions about `nodes/<subresource>`, and two answers to them.

`/stats` is nodes/stats, `/metrics` nodes/metrics, `/logs` nodes/log, `/healthz` nodes/healthz, `/pods` nodes/pods; the last two also pass
with nodes/proxy, which is what everything else needs.
"""

from collections.abc import Sequence
from typing import Protocol

from edgekube.kubelet.server.http import Caller

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_FINE = (("/healthz", "healthz"), ("/pods", "pods"), ("/runningpods", "pods"), ("/configz", "configz"))
_COARSE = (("/stats", "stats"), ("/metrics", "metrics"), ("/logs", "log"), ("/checkpoint", "checkpoint"))


class Gate(Protocol):
    """Authentication by token and authorization. Certificates were verified by TLS before."""

    async def authenticate(self, token: str) -> Caller | None:
        """Whose bearer token it is; None if nobody's."""

    async def allows(self, caller: Caller, verb: str, subresource: str, path: str) -> bool:
        """Whether `caller` may `verb` nodes/`subresource` of this node."""


class CertificateGate:
    """No tokens; the named users and groups may do everything, nobody else anything."""

    def __init__(self, *, users: Sequence[str] = (), groups: Sequence[str] = ("system:masters",)) -> None:
        self._users, self._groups = frozenset(users), frozenset(groups)

    async def authenticate(self, token: str) -> Caller | None:
        return None

    async def allows(self, caller: Caller, verb: str, subresource: str, path: str) -> bool:
        return caller.name in self._users or not self._groups.isdisjoint(caller.groups)


def question(method: str, path: str) -> tuple[str, Sequence[str]]:
    """Verb, and the subresources of which one must be allowed."""
    verb = _VERBS.get(method, "")
    for prefix, subresource in _COARSE:
        if path == prefix or path.startswith(f"{prefix}/"):
            return verb, (subresource,)
    for prefix, subresource in _FINE:
        if path == prefix or path.startswith(f"{prefix}/"):
            return verb, (subresource, "proxy")
    return verb, ("proxy",)
