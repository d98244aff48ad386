"""Who asks: client certificates of our authority, service account tokens and join tokens.

A certificate's CN is the user and its O values are the groups; one of a node counts only with the key that its node is pinned to
(identities.py). A service account token's signature is checked once and remembered by digest (bounded); each use then only looks up, in
memory, that it has not expired and that its service account and the object it is bound to still exist.
The dates of certificates are judged here too, by our own clock (see lib.tlsclock), and a token by how long ago it was issued: a clock that
jumps while we run ends no token.
Credentials that are wrong are refused; no credentials at all is None, and the chain lets such requests see ANONYMOUS_PATHS only.
"""

import asyncio
import base64
import binascii
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from edgekube.api import bootstraptokens, catalog, signers
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.apiserver.identities import NodeIdentities
from edgekube.apiserver.identity import PeerCertificate, User
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.tokens import BadToken, Claims, TokenSigner
from edgekube.errors import Unauthorized
from edgekube.lib import der
from edgekube.lib.clock import Clock, parse_rfc3339, rfc3339
from edgekube.lib.tlsclock import LEEWAY

log = logging.getLogger(__name__)

ANONYMOUS_PATHS = frozenset(("/healthz", "/livez", "/readyz", "/version", "/version/"))
AUTHENTICATED = "system:authenticated"
WEBSOCKET_BEARER = "base64url.bearer.authorization.k8s.io."
_CACHE_LIMIT = 4096
_DELETION_LEEWAY = 60.0
_LEEWAY = LEEWAY.total_seconds()
_EXTRA = "authentication.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class _Known:
    """Who a certificate is; `node` and `key` are set for nodes."""

    user: User
    node: str = ""
    key: str = ""


class Authenticator:
    """Satisfies identity.Authenticator."""

    def __init__(self, *, signer: TokenSigner, objects: Objects, clock: Clock, identities: NodeIdentities | None = None) -> None:
        self._signer, self._objects, self._clock = signer, objects, clock
        self.identities = identities or NodeIdentities(objects)
        self._certificates: OrderedDict[tuple[str, tuple[str, ...], bytes], _Known] = OrderedDict()
        self._tokens: OrderedDict[bytes, tuple[Claims, User]] = OrderedDict()

    async def authenticate(self, authorization: str, certificate: PeerCertificate | None) -> User | None:
        """The user of a verified certificate, else of a bearer token, else None. Raises Unauthorized."""
        if certificate is not None:
            return self._by_certificate(certificate)
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return None
        if bootstraptokens.looks_like(token):
            return self._by_join_token(token)
        try:
            _, user = await self.check_token(token, (self._signer.issuer,))
        except BadToken as error:
            log.debug("token refused", extra={"why": str(error)})
            raise Unauthorized from error
        return user

    async def check_token(self, token: str, audiences: Sequence[str]) -> tuple[Claims, User]:
        """Whose token it is, if it is good for one of `audiences` now. Raises BadToken."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._tokens.get(digest)
        if known is None:
            if not self._signer.loaded:
                await asyncio.to_thread(self._signer.load)
            claims = self._signer.verify(token)
            known = (claims, _user(claims))
            self._tokens[digest] = known
            if len(self._tokens) > _CACHE_LIMIT:
                self._tokens.popitem(last=False)
        self._judge(known[0], audiences)
        return known

    def _by_certificate(self, certificate: PeerCertificate) -> User:
        earliest, latest = (moment.timestamp() for moment in self._clock.span())
        if earliest > certificate.not_after + _LEEWAY or latest < certificate.not_before - _LEEWAY:
            until = rfc3339(datetime.fromtimestamp(certificate.not_after, UTC))
            log.info("client certificate out of date", extra={"user": certificate.common_name, "until": until})
            raise Unauthorized(f"the certificate of {certificate.common_name} does not hold now: its last moment is {until}")
        key = (certificate.common_name, tuple(certificate.organizations), certificate.der)
        known = self._certificates.get(key)
        if known is None:
            if not certificate.common_name:
                raise Unauthorized
            known = self._certificates[key] = _known(certificate)
            if len(self._certificates) > _CACHE_LIMIT:
                self._certificates.popitem(last=False)
        if known.node and (problem := self.identities.problem(known.node, known.key)):
            raise Unauthorized(problem)
        return known.user

    def _by_join_token(self, bearer: str) -> User:
        """upstream: plugin/pkg/auth/authenticator/token/bootstrap."""
        parts = bootstraptokens.split(bearer)
        if parts is None:
            raise Unauthorized(bootstraptokens.MALFORMED)
        item = self._objects.get(catalog.SECRET, bootstraptokens.PREFIX + parts[0], bootstraptokens.NAMESPACE)
        token = None if item is None or item.deleting else bootstraptokens.read(item.decode())
        refusal = bootstraptokens.refusal(*parts, token, self._clock.span()[0])
        if refusal or token is None:
            log.info("join token refused", extra={"token": parts[0], "why": refusal})
            raise Unauthorized(refusal)
        return User(bootstraptokens.USER_PREFIX + token.id, (*token.groups, AUTHENTICATED))

    def _judge(self, claims: Claims, audiences: Sequence[str]) -> None:
        now = self._clock.now().timestamp()
        if self._age(claims.issued) >= claims.expires - claims.issued:
            raise BadToken("expired")
        if self._age(claims.not_before) < -_DELETION_LEEWAY:
            raise BadToken("not valid yet")
        if not set(audiences) & set(claims.audiences):
            raise BadToken("meant for another audience")
        self._alive(catalog.SERVICE_ACCOUNT, claims.namespace, (claims.name, claims.uid), now)
        if claims.secret is not None:
            self._alive(catalog.SECRET, claims.namespace, claims.secret, now)
        if claims.pod is not None:
            self._alive(catalog.POD, claims.namespace, claims.pod, now)
        elif claims.node is not None:
            self._alive(catalog.NODE, "", claims.node, now)

    def _age(self, moment: float) -> float:
        return self._clock.age(datetime.fromtimestamp(moment, UTC))

    def _alive(self, kind: Kind, namespace: str, reference: tuple[str, str], now: float) -> None:
        name, uid = reference
        item = self._objects.get(kind, name, namespace)
        if item is None or item.uid != uid:
            raise BadToken(f"its {kind.singular} is gone")
        if item.deleting and now >= _deletion_time(item) + _DELETION_LEEWAY:
            raise BadToken(f"its {kind.singular} was deleted")


def websocket_bearer(headers: Mapping[str, str]) -> str:
    """The Authorization value that a browser hid in its WebSocket sub-protocols, or "". Raises Unauthorized if it is malformed."""
    for protocol in headers.get("sec-websocket-protocol", "").replace("\n", ",").split(","):
        text = protocol.strip()
        if text.startswith(WEBSOCKET_BEARER):
            encoded = text.removeprefix(WEBSOCKET_BEARER)
            try:
                return "Bearer " + base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except (binascii.Error, ValueError) as error:
                raise Unauthorized from error
    return ""


def service_account_user(namespace: str, name: str, *, uid: str = "", extra: Mapping[str, Sequence[str]] | None = None) -> User:
    """The user that a service account is: for tokens, and for the in-process parts that act as one."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid=uid, extra=extra or {})


def _known(certificate: PeerCertificate) -> _Known:
    """Raises Unauthorized for a node's certificate whose key cannot be read."""
    groups = tuple(dict.fromkeys((*certificate.organizations, AUTHENTICATED)))
    extra = {f"{_EXTRA}credential-id": (f"X509SHA256={hashlib.sha256(certificate.der).hexdigest()}",)} if certificate.der else {}
    user = User(certificate.common_name, groups, extra=extra)
    node = signers.node_of(certificate.common_name)
    if not node and signers.NODES not in certificate.organizations:
        return _Known(user)
    try:
        return _Known(user, node or certificate.common_name, der.key_digest(certificate.der))
    except ValueError as error:
        raise Unauthorized(f"the certificate of {certificate.common_name} cannot be read: {error}") from error


def _user(claims: Claims) -> User:
    extra: dict[str, tuple[str, ...]] = {}
    if claims.jti:
        extra[f"{_EXTRA}credential-id"] = (f"JTI={claims.jti}",)
    for title, reference in (("node", claims.node), ("pod", claims.pod)):
        if reference is not None:
            extra[f"{_EXTRA}{title}-name"] = (reference[0],)
            if reference[1]:
                extra[f"{_EXTRA}{title}-uid"] = (reference[1],)
    return service_account_user(claims.namespace, claims.name, uid=claims.uid, extra=extra)


def _deletion_time(item: Item) -> float:
    return parse_rfc3339(item.decode()["metadata"]["deletionTimestamp"]).timestamp()
