"""Service account tokens: the claims in them, signing (ES256) and checking them, and the keys others may check them with.

Claims and their meaning are upstream's (pkg/serviceaccount/claims.go). A signature is checked once per token; whether the service account,
pod, secret or node that a token is bound to still exists is asked at every use (see authn.py).
"""

import base64
import hashlib
import importlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekube.api.item import Item

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PRIVATE = "kubernetes.io"
EXTENDED_SECONDS = 365 * 24 * 3600  # tokens for pods outlive their announced hour, so that old clients without reloading go on working
WARN_AFTER_SECONDS = 3607  # the lifetime that the admission plugin asks for, and by which such tokens are known


class BadToken(ValueError):
    """Not one of our tokens, or not any more. The text is for the log, never for the client."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says."""

    namespace: str
    name: str
    uid: str
    audiences: tuple[str, ...]
    issued: float
    not_before: float
    expires: float
    jti: str = ""
    pod: tuple[str, str] | None = None  # name, uid
    secret: tuple[str, str] | None = None
    node: tuple[str, str] | None = None
    warn_after: float = 0


def issuer_of(cluster_domain: str) -> str:
    """Who our tokens say made them; also the audience of the API itself."""
    return f"https://kubernetes.default.svc.{cluster_domain}"


def plan_claims(
    *,
    account: Item,
    audiences: Sequence[str],
    seconds: int,
    now: float,
    jti: str,
    bound_kind: str = "",
    bound: Item | None = None,
    node: tuple[str, str] | None = None,
    warn_after: int = 0,
) -> Claims:
    """The claims of a new token for a service account, bound to `bound` if given. `node` is that of a bound pod."""
    reference = None if bound is None else (bound.key.name, bound.uid)
    return Claims(
        namespace=account.key.namespace,
        name=account.key.name,
        uid=account.uid,
        audiences=tuple(audiences),
        issued=int(now),
        not_before=int(now),
        expires=int(now) + seconds,
        jti=jti,
        pod=reference if bound_kind == "Pod" else None,
        secret=reference if bound_kind == "Secret" else None,
        node=reference if bound_kind == "Node" else node,
        warn_after=int(now) + warn_after if warn_after else 0,
    )


class TokenSigner:
    """The key pair of the cluster's service account tokens. The key is read when first needed."""

    def __init__(self, key_file: Path, *, issuer: str) -> None:
        self.issuer = issuer
        self._key_file = key_file
        self._key: EllipticCurvePrivateKey | None = None
        self._kid = ""

    def load(self) -> None:
        """Read the key. Imports the cryptography libraries (tens of milliseconds): call it in a thread before the first use."""
        if self._key is None:
            from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

            from edgekube.lib import pki

            key = pki.load_key(self._key_file.read_bytes())
            public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self._kid = base64.urlsafe_b64encode(hashlib.sha256(public).digest()).rstrip(b"=").decode()
            importlib.import_module("jwt")
            self._key = key

    @property
    def loaded(self) -> bool:
        return self._key is not None

    def sign(self, claims: Claims) -> str:
        """The token that says `claims`."""
        import jwt

        self.load()
        return jwt.encode(self._payload(claims), self._private(), algorithm="ES256", headers={"kid": self._kid})

    def verify(self, token: str) -> Claims:
        """What a token of ours says; times and references are not judged here. Raises BadToken."""
        import jwt

        self.load()
        options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False, "require": ["exp", "sub"]}
        try:
            payload = jwt.decode(token, self._private().public_key(), algorithms=["ES256"], issuer=self.issuer, options=options)
        except jwt.InvalidTokenError as error:
            raise BadToken(str(error)) from error
        return _claims(payload)

    def jwks(self) -> bytes:
        """The public key as a JSON Web Key Set (/openid/v1/jwks)."""
        self.load()
        numbers = self._private().public_key().public_numbers()
        x, y = (base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode() for number in (numbers.x, numbers.y))
        key = {"use": "sig", "kty": "EC", "kid": self._kid, "crv": "P-256", "alg": "ES256", "x": x, "y": y}
        return json.dumps({"keys": [key]}, separators=(",", ":")).encode()

    def discovery(self, jwks_uri: str) -> bytes:
        """The OpenID provider's description (/.well-known/openid-configuration)."""
        text = {
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        return json.dumps(text, separators=(",", ":")).encode()

    def _private(self) -> "EllipticCurvePrivateKey":
        if self._key is None:
            raise RuntimeError("the signing key was not loaded")
        return self._key

    def _payload(self, claims: Claims) -> dict[str, Any]:
        private: dict[str, Any] = {
            "namespace": claims.namespace,
            "serviceaccount": {"name": claims.name, "uid": claims.uid},
        }
        for title, reference in (("node", claims.node), ("pod", claims.pod), ("secret", claims.secret)):
            if reference is not None:
                private[title] = {"name": reference[0], "uid": reference[1]} if reference[1] else {"name": reference[0]}
        if claims.warn_after:
            private["warnafter"] = int(claims.warn_after)
        return {
            "aud": list(claims.audiences),
            "exp": int(claims.expires),
            "iat": int(claims.issued),
            "iss": self.issuer,
            "jti": claims.jti,
            PRIVATE: private,
            "nbf": int(claims.not_before),
            "sub": f"system:serviceaccount:{claims.namespace}:{claims.name}",
        }


def new_jti() -> str:
    """A random UUID, as upstream's ids of tokens look."""
    raw = bytearray(secrets.token_bytes(16))
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _claims(payload: Mapping[str, Any]) -> Claims:
    try:
        private = payload[PRIVATE]
        account, audience = private["serviceaccount"], payload.get("aud") or []
        claims = Claims(
            namespace=str(private["namespace"]),
            name=str(account["name"]),
            uid=str(account["uid"]),
            audiences=(audience,) if isinstance(audience, str) else tuple(audience),
            issued=float(payload.get("iat", 0)),
            not_before=float(payload.get("nbf", 0)),
            expires=float(payload["exp"]),
            jti=str(payload.get("jti", "")),
            pod=_reference(private, "pod"),
            secret=_reference(private, "secret"),
            node=_reference(private, "node"),
            warn_after=float(private.get("warnafter", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadToken(f"claims are not those of a service account token: {error}") from error
    if payload.get("sub") != f"system:serviceaccount:{claims.namespace}:{claims.name}":
        raise BadToken("subject and service account differ")
    return claims


def _reference(private: Mapping[str, Any], title: str) -> tuple[str, str] | None:
    found = private.get(title)
    return None if found is None else (str(found["name"]), str(found.get("uid", "")))
