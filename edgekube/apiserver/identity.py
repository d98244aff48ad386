"""Who asks, for what, and whether they may: the words that authentication, authorization, admission and handlers share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated identity (authentication.k8s.io/v1 UserInfo)."""

    name: str
    groups: Sequence[str] = ()
    uid: str = ""
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
NODES = "system:nodes"
_NODE = "system:node:"


def node_of(user: User) -> str | None:
    """The name of the node that `user` is; "" for a member of system:nodes whose name says none; None for everybody else."""
    if NODES not in user.groups:
        return None
    return user.name.removeprefix(_NODE) if user.name.startswith(_NODE) else ""


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What the TLS layer verified against our CA, but for the dates: subject CN, its O values, the DER bytes, and from when until when
    it holds (epoch seconds)."""

    common_name: str
    organizations: Sequence[str]
    der: bytes = b""
    not_before: float = float("-inf")
    not_after: float = float("inf")


@dataclass(frozen=True, slots=True)
class Attributes:
    """One question to an authorizer. Resource requests set `resource`; others only `path`.

    `fields` is the field selector of a list or watch as the client wrote it; one that names a single object also sets `name`.
    """

    user: User
    verb: str
    resource: str = ""
    subresource: str = ""
    group: str = ""
    version: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    fields: str = ""


class Decision(NamedTuple):
    allowed: bool
    reason: str = ""


class Authenticator(Protocol):
    async def authenticate(self, authorization: str, certificate: PeerCertificate | None) -> User | None:
        """None: no credentials were given (anonymous). Raises Unauthorized for credentials that are wrong.
        `authorization` is the header's value, or a WebSocket bearer sub-protocol rewritten as one."""


class Authorizer(Protocol):
    def authorize(self, attributes: Attributes) -> Decision:
        """Synchronous: rules live in memory and follow their objects' events."""
