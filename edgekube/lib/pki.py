"""Certificates of our own authority: make, judge, renew. Keys are EC P-256.

A private key and its certificate live in one PEM file, written atomically with mode 0600: a crash can never leave a pair that does not
match. Validity reaches far into the past (hosts without a battery clock boot in the past) and counts from a floor (a certificate made
while the clock still said 1970 would be dead the moment NTP answers). `cryptography` is imported only where a key is really used.
"""

import hashlib
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from edgekube.lib.clock import BUILD_DATE
from edgekube.lib.files import write_atomic

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
CLOCK_FLOOR = BUILD_DATE


@dataclass(frozen=True, slots=True)
class Subject:
    """What a certificate says: who (CN and O) and, for servers, under which names and addresses."""

    common_name: str
    organizations: Sequence[str] = ()
    names: Sequence[str] = ()
    addresses: Sequence[str] = ()
    server: bool = False
    client: bool = False

    def fingerprint(self) -> str:
        """Changes when a certificate for this subject must look different."""
        parts = (self.common_name, *sorted(self.organizations), "|", *sorted(self.names), "|", *sorted(self.addresses))
        return hashlib.sha256(f"{parts}{self.server}{self.client}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Validity:
    """When a certificate was issued and when it holds."""

    issued: datetime
    not_before: datetime
    not_after: datetime


def needs_renewal(validity: Validity, now: datetime) -> bool:
    """Due once two thirds of its life are over, or when the clock stands outside of it."""
    return now >= renewal_of(validity) or now < validity.not_before


def create_authority(name: str, now: datetime, *, key_pem: bytes = b"") -> bytes:
    """A self-signed authority as PEM, key first. With `key_pem` an old key gets a fresh certificate."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    key = load_key(key_pem) if key_pem else _new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = _usage(sign_certificates=True)
    builder = _builder(now, AUTHORITY_LIFE).subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return _key_pem(key) + _sign(builder, key)


def issue(authority_pem: bytes, subject: Subject, now: datetime, *, life: timedelta = LEAF_LIFE) -> bytes:
    """A new key and a certificate for `subject`, as PEM, key first."""
    key = _new_key()
    return _key_pem(key) + sign(authority_pem, subject, key.public_key(), now, life=life)


def sign(
    authority_pem: bytes, subject: Subject, public_key: "CertificatePublicKeyTypes", now: datetime, *, life: timedelta = LEAF_LIFE
) -> bytes:
    """A certificate for a key that somebody else holds (a signing request), as PEM."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    authority_key, authority = load_key(authority_pem), load_certificate(authority_pem)
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in subject.organizations]
    name = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name)])
    purposes = [
        oid for oid, on in ((ExtendedKeyUsageOID.SERVER_AUTH, subject.server), (ExtendedKeyUsageOID.CLIENT_AUTH, subject.client)) if on
    ]
    builder = _builder(now, life).subject_name(name).issuer_name(authority.subject).public_key(public_key)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(sign_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = builder.add_extension(issuer_id, critical=False)
    others: list[x509.GeneralName] = [x509.DNSName(entry) for entry in subject.names]
    others += [x509.IPAddress(ipaddress.ip_address(entry)) for entry in subject.addresses]
    if others:
        builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
    return _sign(builder, authority_key)


def load_key(pem: bytes) -> "EllipticCurvePrivateKey":
    """The private key of a PEM file. Raises ValueError if there is none, or one of another kind."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")
    return key


def load_certificate(pem: bytes) -> "x509.Certificate":
    """The first certificate of a PEM file. Raises ValueError if there is none."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate_pem(pem))


def validity_of(pem: bytes, *, life: timedelta = LEAF_LIFE) -> Validity:
    """When the certificate in `pem` holds. Raises ValueError."""
    certificate = load_certificate(pem)
    not_after = certificate.not_valid_after_utc
    return Validity(not_after - life, certificate.not_valid_before_utc, not_after)


def dates_of(pem: bytes) -> Validity:
    """When a certificate that was made from a signing request (lib.csr.issue) was issued and holds: it was issued in the middle of the
    time it holds. So whoever holds it knows when to renew it, whatever life it was given. Raises ValueError."""
    certificate = load_certificate(pem)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Validity(first + (last - first) / 2, first, last)


def names_of(pem: bytes) -> frozenset[str]:
    """Every name and address that a serving certificate stands for. Raises ValueError."""
    from cryptography import x509

    try:
        found = load_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset((*found.get_values_for_type(x509.DNSName), *(str(one) for one in found.get_values_for_type(x509.IPAddress))))


def renewal_of(validity: Validity) -> datetime:
    """When two thirds of the life are over."""
    return validity.issued + (validity.not_after - validity.issued) * 2 / 3


def certificate_pem(pem: bytes) -> bytes:
    """Only the certificates of a combined file: what may be shown to others."""
    start = pem.find(b"-----BEGIN CERTIFICATE-----")
    if start < 0:
        raise ValueError("no certificate")
    return pem[start:]


def key_pem(pem: bytes) -> bytes:
    """Only the private key of a combined file."""
    end = pem.find(b"-----BEGIN CERTIFICATE-----")
    return pem if end < 0 else pem[:end]


def create_key() -> bytes:
    """A new private key as PEM."""
    return _key_pem(_new_key())


def write_secret(path: Path, data: bytes) -> None:
    """Write a key so that nobody else reads it, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, data, mode=0o600)


def read_secret(path: Path) -> bytes | None:
    """The file's bytes, or None if there is no such file. A mode that lets others read is put right."""
    try:
        data = path.read_bytes()
        if path.stat().st_mode & 0o077:
            os.chmod(path, 0o600)
    except FileNotFoundError:
        return None
    return data


def _new_key() -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: "EllipticCurvePrivateKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _sign(builder: "x509.CertificateBuilder", key: "EllipticCurvePrivateKey") -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def _builder(now: datetime, life: timedelta) -> "x509.CertificateBuilder":
    from cryptography import x509

    first, last = min(now, CLOCK_FLOOR) - life, max(now, CLOCK_FLOOR) + life
    return x509.CertificateBuilder().serial_number(x509.random_serial_number()).not_valid_before(first).not_valid_after(last)


def _usage(*, sign_certificates: bool) -> "x509.KeyUsage":
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
