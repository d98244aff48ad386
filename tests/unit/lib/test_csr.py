"""Signing requests: read, refused when forged, signed with what was asked and no more."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from edgekube.lib import csr, der, pki
from edgekube.lib.pki import Subject

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NODE = Subject("system:node:pi", ("system:nodes",), ("pi",), ("192.0.2.1", "2001:db8::1"), server=True)


def test_a_request_says_who_asks_for_what() -> None:
    key = pki.create_key()
    found = csr.parse(csr.make(key, NODE))
    assert (found.common_name, found.organizations) == ("system:node:pi", ("system:nodes",))
    assert (found.names, found.addresses) == (("pi",), ("192.0.2.1", "2001:db8::1"))
    certificate = pki.sign(pki.create_authority("ca", NOW), NODE, pki.load_key(key).public_key(), NOW)
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    info = pki.load_key(key).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    raw = pki.load_certificate(certificate).public_bytes(Encoding.DER)
    assert der.public_key_info(raw) == info
    assert der.key_digest(raw) == found.key_digest == hashlib.sha256(info).hexdigest()


@pytest.mark.parametrize("name", ["kubernetes.default.svc", "KUBERNETES.default.SVC", "*.default.svc", "kubernetes.default.svc."])
def test_a_name_that_would_be_taken_for_one_that_is_left_out_is_left_out_too(name: str) -> None:
    asked = csr.make(pki.create_key(), Subject("system:node:pi", ("system:nodes",), ("pi", name), ("192.0.2.1",), server=True))
    authority, reserved = pki.create_authority("ca", NOW), frozenset(("kubernetes.default.svc", "192.0.2.1"))
    made = csr.issue(authority, csr.parse(asked), ["server auth"], now=NOW, life=timedelta(hours=1), without=reserved)
    assert pki.names_of(made) == {"pi"}


def test_of_two_common_names_the_one_that_is_judged_is_the_one_that_counts() -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    from edgekube.apiserver.connection import common_name

    key = pki.create_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text) for text in ("admin", "system:node:pi")])
    pem = x509.CertificateSigningRequestBuilder().subject_name(name).sign(pki.load_key(key), SHA256()).public_bytes(Encoding.PEM)
    subject = ((("commonName", "admin"),), (("commonName", "system:node:pi"),))
    assert csr.parse(pem).common_name == common_name(subject) == "system:node:pi"


def test_a_request_signed_by_another_key_is_refused() -> None:
    import base64

    pem = csr.make(pki.create_key(), NODE)
    body = bytearray(base64.b64decode(b"".join(pem.splitlines()[1:-1])))
    body[-1] ^= 1
    forged = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(bytes(body)) + b"-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(ValueError, match=r"signature|parsing|ASN"):
        csr.parse(forged)


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_request_is_refused_in_upstreams_words(text: bytes) -> None:
    with pytest.raises(ValueError, match="PEM block type must be CERTIFICATE REQUEST"):
        csr.parse(text)


def test_a_block_that_is_no_request_is_refused() -> None:
    with pytest.raises(ValueError):
        csr.parse(b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")


@pytest.mark.parametrize(("now", "issued"), [(NOW, NOW), (datetime(1970, 1, 2, tzinfo=UTC), pki.CLOCK_FLOOR)])
def test_a_certificate_says_itself_when_to_renew_it(now: datetime, issued: datetime) -> None:
    authority = pki.create_authority("ca", NOW)
    life = timedelta(seconds=600)
    made = csr.issue(authority, csr.parse(csr.make(pki.create_key(), NODE)), ["digital signature", "server auth"], now=now, life=life)
    dates = pki.dates_of(made)
    assert (dates.issued, dates.not_before, dates.not_after) == (issued, issued - life, issued + life)
    assert pki.renewal_of(dates) == issued + timedelta(seconds=400)
    loaded = pki.load_certificate(made)
    from cryptography import x509

    assert not loaded.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["pi"]
    loaded.verify_directly_issued_by(pki.load_certificate(authority))


def test_no_certificate_outlives_the_authority() -> None:
    authority = pki.create_authority("ca", NOW)
    end = pki.load_certificate(authority).not_valid_after_utc
    made = csr.issue(authority, csr.parse(csr.make(pki.create_key(), NODE)), ["client auth"], now=end - timedelta(days=1), life=pki.LEAF_LIFE)
    assert pki.dates_of(made).not_after == end


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x82\xff\xff", b"\x30\x84\xff\xff\xff\xff\x00", b"\x30\x03\x30\x01\x02", bytes(40)])
def test_what_is_no_certificate_has_no_key(data: bytes) -> None:
    with pytest.raises(ValueError):
        der.key_digest(data)


def test_damaged_certificates_have_a_key_or_a_reason_and_nothing_else() -> None:
    import random

    from cryptography.hazmat.primitives.serialization import Encoding

    made = pki.certificate_pem(pki.create_authority("ca", NOW))
    good = pki.load_certificate(made).public_bytes(Encoding.DER)
    dice = random.Random(7)
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        cut = bytes(data[: dice.randint(0, len(data))]) if dice.random() < 0.3 else bytes(data)
        try:
            assert len(der.key_digest(cut)) == 64
        except ValueError:
            continue
