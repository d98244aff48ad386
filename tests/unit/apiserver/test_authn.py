"""Certificates, service account tokens, and all the ways in which a token stops being good."""

import base64
import ssl
from pathlib import Path

import pytest

from edgekube.api import bootstraptokens, catalog, nodeidentity
from edgekube.apiserver.authn import Authenticator, websocket_bearer
from edgekube.apiserver.identity import PeerCertificate
from edgekube.apiserver.tokens import Claims, TokenSigner, issuer_of, new_jti, plan_claims
from edgekube.errors import Unauthorized
from edgekube.lib import pki
from edgekube.lib.clock import FakeClock, rfc3339
from edgekube.lib.der import key_digest
from tests.unit.apiserver.world import World

ISSUER = issuer_of("cluster.local")


class Scene:
    def __init__(self, folder: Path) -> None:
        key = folder / "sa.key"
        pki.write_secret(key, pki.create_key())
        self.world, self.clock = World(), FakeClock()
        self.signer = TokenSigner(key, issuer=ISSUER)
        self.authn = Authenticator(signer=self.signer, objects=self.world.objects, clock=self.clock)

    async def token(self, *, seconds: int = 3600, audiences: tuple[str, ...] = (ISSUER,), bound_to: str = "") -> str:
        account = await self.world.put(catalog.SERVICE_ACCOUNT, "robot", "a", uid="u1")
        kinds = {"Pod": catalog.POD, "Secret": catalog.SECRET, "Node": catalog.NODE}
        bound = None
        if bound_to:
            kind = kinds[bound_to]
            more = {"spec": {"containers": []}} if bound_to == "Pod" else {}
            bound = await self.world.put(kind, "thing", "a" if kind.namespaced else "", uid="u2", **more)
        claims = plan_claims(
            account=account, audiences=audiences, seconds=seconds, now=self.clock.now().timestamp(), jti=new_jti(), bound_kind=bound_to,
            bound=bound, node=("pi", "u3") if bound_to == "Pod" else None,
        )  # fmt: skip
        return self.signer.sign(claims)

    async def refused(self, token: str) -> bool:
        try:
            await self.authn.authenticate(f"Bearer {token}", None)
        except Unauthorized:
            return True
        return False


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_no_credentials_is_nobody(scene: Scene) -> None:
    assert await scene.authn.authenticate("", None) is None
    assert await scene.authn.authenticate("Basic abc", None) is None
    assert await scene.authn.authenticate("Bearer ", None) is None


async def test_certificate_names_user_and_groups(scene: Scene) -> None:
    user = await scene.authn.authenticate("", PeerCertificate("ann", ["devs"], b"der"))
    assert user is not None
    assert (user.name, user.groups) == ("ann", ("devs", "system:authenticated"))
    assert user.extra["authentication.kubernetes.io/credential-id"][0].startswith("X509SHA256=")
    with pytest.raises(Unauthorized):
        await scene.authn.authenticate("", PeerCertificate("", ["devs"]))


async def test_token_names_the_service_account_and_its_pod(scene: Scene) -> None:
    user = await scene.authn.authenticate(f"bearer {await scene.token(bound_to='Pod')}", None)
    assert user is not None
    assert user.name == "system:serviceaccount:a:robot"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated")
    assert user.uid == "u1"
    extra = {key.removeprefix("authentication.kubernetes.io/"): values for key, values in user.extra.items()}
    assert extra["pod-name"] == ("thing",)
    assert extra["pod-uid"] == ("u2",)
    assert extra["node-name"] == ("pi",)
    assert extra["credential-id"][0].startswith("JTI=")


async def test_expired(scene: Scene) -> None:
    token = await scene.token(seconds=600)
    assert not await scene.refused(token)
    scene.clock.advance(599)
    assert not await scene.refused(token)
    scene.clock.advance(2)
    assert await scene.refused(token)


async def test_other_audience_and_other_key_and_garbage(scene: Scene, tmp_path: Path) -> None:
    assert await scene.refused(await scene.token(audiences=("vault",)))
    key = tmp_path / "other.key"
    pki.write_secret(key, pki.create_key())
    forged = TokenSigner(key, issuer=ISSUER).sign(Claims("a", "robot", "u1", (ISSUER,), 0, 0, 9e9))
    assert await scene.refused(forged)
    good = await scene.token()
    head, payload, signature = good.split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for bad in ("x", f"{head}.{payload}.", f"{unsigned}.{payload}.", f"{head}.{payload}.{signature[::-1]}"):
        assert await scene.refused(bad)


@pytest.mark.parametrize("bound_to", ["Pod", "Secret", "Node"])
async def test_token_ends_with_what_it_is_bound_to(scene: Scene, bound_to: str) -> None:
    token = await scene.token(bound_to=bound_to)
    assert not await scene.refused(token)
    kind = {"Pod": catalog.POD, "Secret": catalog.SECRET, "Node": catalog.NODE}[bound_to]
    await scene.world.drop(kind, "thing", "a" if kind.namespaced else "")
    assert await scene.refused(token)
    more = {"spec": {"containers": []}} if bound_to == "Pod" else {}
    await scene.world.put(kind, "thing", "a" if kind.namespaced else "", uid="another", **more)
    assert await scene.refused(token), "a namesake is not it"


async def test_token_ends_with_its_service_account(scene: Scene) -> None:
    token = await scene.token()
    await scene.world.drop(catalog.SERVICE_ACCOUNT, "robot", "a")
    assert await scene.refused(token)
    await scene.world.put(catalog.SERVICE_ACCOUNT, "robot", "a", uid="u9")
    assert await scene.refused(token)


async def test_a_pod_that_ends_has_a_minute_more(scene: Scene) -> None:
    token = await scene.token(bound_to="Pod")
    metadata = {"deletionTimestamp": rfc3339(scene.clock.now())}
    await scene.world.put(catalog.POD, "thing", "a", uid="u2", metadata=metadata, spec={"containers": []})
    assert not await scene.refused(token)
    scene.clock.advance(61)
    assert await scene.refused(token)


async def test_other_keys_can_be_checked_with_the_published_set(scene: Scene) -> None:
    import jwt

    token = await scene.token()
    keys = jwt.PyJWKSet.from_json(scene.signer.jwks().decode())
    kid = jwt.get_unverified_header(token)["kid"]
    claims = jwt.decode(token, keys[kid].key, algorithms=["ES256"], audience=ISSUER, issuer=ISSUER, options={"verify_exp": False})
    assert claims["kubernetes.io"]["serviceaccount"] == {"name": "robot", "uid": "u1"}
    assert set(claims) == {"aud", "exp", "iat", "iss", "jti", "kubernetes.io", "nbf", "sub"}


def test_websocket_sub_protocol_carries_a_token() -> None:
    encoded = base64.urlsafe_b64encode(b"secret-token").rstrip(b"=").decode()
    headers = {"sec-websocket-protocol": f"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{encoded}"}
    assert websocket_bearer(headers) == "Bearer secret-token"
    assert websocket_bearer({}) == ""
    with pytest.raises(Unauthorized):
        websocket_bearer({"sec-websocket-protocol": "base64url.bearer.authorization.k8s.io.\x80"})


async def _join_token(scene: Scene, **options) -> str:
    bearer = bootstraptokens.new_bearer()
    secret = bootstraptokens.secret_of(bearer, now=scene.clock.now(), **options)
    await scene.world.put(catalog.SECRET, secret["metadata"]["name"], "kube-system", type=secret["type"], data=secret["data"])
    return bearer


async def test_a_join_token_holds_until_its_end_and_a_clock_that_falls_back_does_not_end_it(scene: Scene) -> None:
    bearer = await _join_token(scene)
    user = await scene.authn.authenticate(f"Bearer {bearer}", None)
    assert user is not None
    assert user.name == f"system:bootstrap:{bearer[:6]}"
    scene.clock.jump(-10 * 24 * 3600)
    assert not await scene.refused(bearer)
    scene.clock.jump(10 * 24 * 3600)
    scene.clock.advance(24 * 3600 - 1)
    assert not await scene.refused(bearer)
    scene.clock.advance(1)
    with pytest.raises(Unauthorized, match="expired at"):
        await scene.authn.authenticate(f"Bearer {bearer}", None)
    await scene.world.drop(catalog.SECRET, bootstraptokens.PREFIX + bearer[:6], "kube-system")
    with pytest.raises(Unauthorized, match="is unknown here"):
        await scene.authn.authenticate(f"Bearer {bearer}", None)


async def test_a_nodes_certificate_counts_only_with_its_pin(scene: Scene) -> None:
    authority, key = pki.create_authority("ca", scene.clock.now()), pki.create_key()
    made = pki.sign(authority, pki.Subject("system:node:pi", ("system:nodes",), client=True), pki.load_key(key).public_key(), scene.clock.now())
    der = ssl.PEM_cert_to_DER_cert(made.decode())
    shown = PeerCertificate("system:node:pi", ("system:nodes",), der)
    with pytest.raises(Unauthorized, match="is not known here"):
        await scene.authn.authenticate("", shown)
    secret = nodeidentity.pinned("pi", key_digest(der), scene.clock.now(), None)
    await scene.world.put(catalog.SECRET, "pi.node-identity", "kube-system", type=secret["type"], data=secret["data"])
    assert (await scene.authn.authenticate("", shown)).name == "system:node:pi"
    with pytest.raises(Unauthorized):  # of the group, but nobody's name
        await scene.authn.authenticate("", PeerCertificate("pie", ("system:nodes",), der))
    with pytest.raises(Unauthorized, match="cannot be read"):
        await scene.authn.authenticate("", PeerCertificate("system:node:pi", ("system:nodes",), b"nonsense"))
    # A Secret of another type or place is no pin.
    await scene.world.put(catalog.SECRET, "other.node-identity", "kube-system", type="Opaque", data=secret["data"])
    await scene.world.put(catalog.SECRET, "other.node-identity", "default", type=secret["type"], data=secret["data"])
    assert scene.authn.identities.pin("other") is None
    gone = nodeidentity.revoked(secret)
    await scene.world.put(catalog.SECRET, "pi.node-identity", "kube-system", type=secret["type"], data=gone["data"])
    with pytest.raises(Unauthorized, match="was revoked"):
        await scene.authn.authenticate("", shown)
