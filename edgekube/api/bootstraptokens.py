"""Join tokens: upstream's bootstrap tokens (Secrets `kube-system/bootstrap-token-ID`) with two things of our own. Pure.

    EK1<sha256 of the authority's certificate (DER), hex>::<id>.<secret>      what a person copies to the machine that joins
    <id>.<secret>                                                             what the machine shows to the server, as a bearer token

Ours are `uses` (how many machines it is good for; who they were is kept in `used-by`) and `node-name` (good for this node only, which it
may replace). Other tools that know bootstrap tokens ignore both.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from edgekube.api.item import Item
from edgekube.api.types import Obj
from edgekube.lib.clock import parse_rfc3339, rfc3339

NAMESPACE = "kube-system"
TYPE = "bootstrap.kubernetes.io/token"
PREFIX = "bootstrap-token-"
USER_PREFIX = "system:bootstrap:"
GROUP = "system:bootstrappers"
NODE_GROUP = "system:bootstrappers:edgekube:default-node-token"
USAGES = ("signing", "authentication")
DEFAULT_LIFE = timedelta(hours=24)

_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_JOIN_TOKEN = re.compile(r"EK1([0-9a-f]{64})::([a-z0-9]{6})\.([a-z0-9]{16})")
_EXTRA_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"

MALFORMED = "the join token is malformed: it must look like EK1<64 hex digits>::<6 characters>.<16 characters>, copied whole"


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """What a Secret says. `uses` is 0 for any number. `used_by` has "NODE KEY" for each machine that was let in."""

    id: str
    secret: str
    expires: datetime | None
    authentication: bool
    signing: bool
    groups: Sequence[str]
    description: str = ""
    uses: int = 0
    used_by: Sequence[str] = ()
    node: str = ""

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires

    @property
    def left(self) -> int | None:
        """How many more machines it lets in; None: any number."""
        return max(0, self.uses - len(self.used_by)) if self.uses else None

    def claimed(self, node: str, key: str) -> bool:
        """Whether this machine has been let in under this name already: trying again costs nothing."""
        return claim(node, key) in self.used_by


def claim(node: str, key: str) -> str:
    return f"{node} {key}"


def split(bearer: str) -> tuple[str, str] | None:
    """(id, secret) of what a machine shows, None if it is nothing of ours."""
    found = _TOKEN.fullmatch(bearer)
    return None if found is None else (found[1], found[2])


def looks_like(bearer: str) -> bool:
    """Whether somebody meant this as a join token. Other bearer tokens are JWTs: two dots."""
    return bearer.startswith("EK1") or "::" in bearer or bearer.count(".") == 1


def parse_join_token(text: str) -> tuple[str, str]:
    """(sha256 of the authority, bearer token) of what a person was given. Raises ValueError with the line to show."""
    found = _JOIN_TOKEN.fullmatch(text.strip())
    if found is None:
        raise ValueError(MALFORMED)
    return found[1], f"{found[2]}.{found[3]}"


def join_token(authority_pem: bytes, bearer: str) -> str:
    """What a person is given."""
    return f"EK1{authority_digest(authority_pem)}::{bearer}"


def authority_digest(authority_pem: bytes) -> str:
    """sha256 of the first certificate's DER. Raises ValueError."""
    found = re.search(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", authority_pem, re.DOTALL)
    if found is None:
        raise ValueError("no certificate")
    try:
        return hashlib.sha256(base64.b64decode(found[1])).hexdigest()
    except binascii.Error as error:
        raise ValueError(f"the certificate is damaged: {error}") from error


def new_bearer() -> str:
    """id.secret, at random."""
    return ".".join("".join(secrets.choice(_ALPHABET) for _ in range(count)) for count in (6, 16))


def secret_of(
    bearer: str,
    *,
    now: datetime,
    life: timedelta | None = DEFAULT_LIFE,
    usages: Sequence[str] = USAGES,
    uses: int = 0,
    node: str = "",
    description: str = "",
) -> Obj:
    """The Secret that makes a token good. `life` None: for ever."""
    token_id, _, secret = bearer.partition(".")
    data = {"token-id": token_id, "token-secret": secret, "auth-extra-groups": NODE_GROUP}
    data |= {f"usage-bootstrap-{usage}": "true" for usage in usages}
    if life is not None:
        data["expiration"] = rfc3339(now + life)
    for name, value in (("description", description), ("uses", str(uses) if uses else ""), ("node-name", node)):
        if value:
            data[name] = value
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": PREFIX + token_id, "namespace": NAMESPACE},
        "type": TYPE,
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }


def with_claim(secret: Obj, node: str, key: str) -> Obj:
    """The same Secret with one machine more; to be written with its resourceVersion."""
    used = read_text(secret.get("data") or {}, "used-by")
    lines = [*filter(None, used.split("\n")), claim(node, key)]
    return secret | {"data": (secret.get("data") or {}) | {"used-by": base64.b64encode("\n".join(lines).encode()).decode()}}


def is_token(item: Item) -> bool:
    return item.fields.get("type") == TYPE and item.key.namespace == NAMESPACE and item.key.name.startswith(PREFIX)


def read(secret: Obj) -> BootstrapToken | None:
    """What a Secret says; None if it is no token, or one that nobody can use."""
    data = secret.get("data") or {}
    token_id, hidden = read_text(data, "token-id"), read_text(data, "token-secret")
    about = secret.get("metadata") or {}
    if secret.get("type") != TYPE or about.get("name") != PREFIX + token_id or split(f"{token_id}.{hidden}") is None:
        return None
    groups = [group.strip() for group in read_text(data, "auth-extra-groups").split(",") if group.strip()]
    if not all(_EXTRA_GROUP.fullmatch(group) for group in groups):
        return None
    uses = read_text(data, "uses")
    try:
        expiration = read_text(data, "expiration")
        expires = parse_rfc3339(expiration) if expiration else None
    except ValueError:
        return None  # upstream: a time that cannot be read has passed
    return BootstrapToken(
        id=token_id,
        secret=hidden,
        expires=expires,
        authentication=read_text(data, "usage-bootstrap-authentication") == "true",
        signing=read_text(data, "usage-bootstrap-signing") == "true",
        groups=tuple(dict.fromkeys((GROUP, *groups))),
        description=read_text(data, "description"),
        uses=int(uses) if uses.isascii() and uses.isdigit() else 0,
        used_by=tuple(filter(None, read_text(data, "used-by").split("\n"))),
        node=read_text(data, "node-name"),
    )


def refusal(token_id: str, secret: str, token: BootstrapToken | None, now: datetime) -> str:
    """Why a token does not let in; "" if it does. Only who knows the secret learns more than that it is wrong: see the threat model in
    edgekube.agent, claim 8."""
    if token is None:
        return f'join token {token_id} is unknown here: it was never made, or was revoked; make one with "edgekube token create"'
    if not hmac.compare_digest(token.secret.encode(), secret.encode()):
        return f"join token {token_id}: its secret is wrong"
    if token.expired(now) and token.expires is not None:
        return f'join token {token_id} expired at {rfc3339(token.expires)}; make a new one with "edgekube token create"'
    if not token.authentication:
        return f"join token {token_id} is not for joining: its usages do not include authentication"
    return ""


def read_text(data: Mapping[str, str], name: str) -> str:
    """A value of a Secret as text; "" if it is not there or no text."""
    try:
        return base64.b64decode(data.get(name) or "").decode()
    except (binascii.Error, ValueError):
        return ""
