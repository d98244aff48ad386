"""Join tokens: text, Secret and back; what is refused, in which words."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from edgekube.api import bootstraptokens as tokens
from edgekube.lib import pki

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BEARER = "abcdef.0123456789abcdef"


def test_a_join_token_names_the_authority_and_the_bearer():
    authority = pki.create_authority("ca", NOW)
    text = tokens.join_token(pki.certificate_pem(authority), BEARER)
    digest, bearer = tokens.parse_join_token(text + "\n")
    assert (digest, bearer) == (tokens.authority_digest(authority), BEARER)
    from cryptography.hazmat.primitives.hashes import SHA256

    assert digest == pki.load_certificate(authority).fingerprint(SHA256()).hex()


@pytest.mark.parametrize("text", ["", BEARER, "EK1::" + BEARER, "EK1" + "0" * 64 + ":" + BEARER, "EK1" + "g" * 64 + "::" + BEARER])
def test_what_is_no_join_token(text):
    with pytest.raises(ValueError, match="the join token is malformed"):
        tokens.parse_join_token(text)


def test_a_secret_says_what_it_was_made_with_in_upstreams_form():
    secret = tokens.secret_of(BEARER, now=NOW, uses=3, node="pi", description="attic")
    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == ("bootstrap-token-abcdef", "kube-system")
    plain = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert plain["auth-extra-groups"] == "system:bootstrappers:edgekube:default-node-token"
    assert (plain["usage-bootstrap-authentication"], plain["expiration"]) == ("true", "2026-11-21T12:00:00Z")
    token = tokens.read(secret)
    assert (token.uses, token.left, token.node, token.description) == (3, 3, "pi", "attic")
    assert token.groups == ("system:bootstrappers", "system:bootstrappers:edgekube:default-node-token")
    again = tokens.read(tokens.with_claim(tokens.with_claim(secret, "a", "k1"), "b", "k2"))
    assert (again.left, again.claimed("a", "k1"), again.claimed("a", "k2")) == (1, True, False)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "Opaque"},
        {"metadata": {"name": "bootstrap-token-zzzzzz"}},
        {"data": {"token-id": "YWJjZGVm"}},
        {"data": {"auth-extra-groups": base64.b64encode(b"system:masters").decode()}},
        {"data": {"expiration": base64.b64encode(b"soon").decode()}},
    ],
)
def test_secrets_that_are_no_tokens(change):
    secret = tokens.secret_of(BEARER, now=NOW)
    if "data" in change and len(change["data"]) == 1 and "token-id" not in change["data"]:
        change = {"data": secret["data"] | change["data"]}
    assert tokens.read(secret | change) is None


@pytest.mark.parametrize(
    ("secret", "options", "now", "line"),
    [
        ("0123456789abcdef", {}, NOW, ""),
        ("0123456789abcdeX", {}, NOW, "join token abcdef: its secret is wrong"),
        ("0123456789abcdeX", {"life": timedelta(seconds=1)}, NOW + timedelta(1), "join token abcdef: its secret is wrong"),
        (
            "0123456789abcdef",
            {"life": timedelta(seconds=1)},
            NOW + timedelta(1),
            'join token abcdef expired at 2026-11-20T12:00:01Z; make a new one with "edgekube token create"',
        ),
        (
            "0123456789abcdef",
            {"usages": ("signing",)},
            NOW,
            "join token abcdef is not for joining: its usages do not include authentication",
        ),
        ("0123456789abcdef", {"life": None}, NOW + timedelta(days=9999), ""),
    ],
)
def test_refusals(secret, options, now, line):
    token = tokens.read(tokens.secret_of(BEARER, now=NOW, **options))
    assert tokens.refusal("abcdef", secret, token, now) == line


def test_random_tokens_have_the_form_of_tokens():
    assert len({tokens.new_bearer() for _ in range(50)}) == 50
    assert all(tokens.split(tokens.new_bearer()) for _ in range(50))
