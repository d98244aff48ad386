"""Signing requests (PKCS #10): read and check one, make one, and sign one with our authority.

`parse` remembers the last few: one request is looked at by validation, admission, approval and signing. Like lib.pki this imports
`cryptography` only when it is used.
"""

import functools
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from edgekube.lib import pki
from edgekube.lib.pki import Subject

if TYPE_CHECKING:
    from cryptography import x509

_BLOCK = re.compile(rb"-----BEGIN ([^-\n]+)-----\s*(.*?)-----END \1-----", re.DOTALL)
_KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_PURPOSES = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}
USAGES = tuple(sorted((*_KEY_USAGES, *_PURPOSES)))
"""Every usage a request may name (certificates.k8s.io KeyUsage)."""


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """What a request asks for. Its signature has been checked: who made it holds the key."""

    common_name: str
    organizations: Sequence[str]
    names: Sequence[str]
    addresses: Sequence[str]
    emails: Sequence[str]
    uris: Sequence[str]
    key_digest: str  # sha256 of the SubjectPublicKeyInfo, as lib.der.key_digest gives of a certificate
    raw: Any  # x509.CertificateSigningRequest


@functools.lru_cache(maxsize=32)
def parse(pem: bytes) -> SigningRequest:
    """Read the first block. Raises ValueError, also when the signature is wrong."""
    block = _BLOCK.search(pem)
    if block is None or block[1] != b"CERTIFICATE REQUEST":
        raise ValueError("PEM block type must be CERTIFICATE REQUEST")
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509.oid import NameOID

    try:
        found = x509.load_pem_x509_csr(block[0])
        public = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        valid = found.is_signature_valid
        alternative = _alternative(found)
    except (UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, TypeError) as error:
        raise ValueError(str(error)) from error
    if not valid:
        raise ValueError("the signature of the request does not fit its key")
    common = [str(one.value) for one in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return SigningRequest(
        common_name=common[-1] if common else "",
        organizations=tuple(str(one.value) for one in found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
        names=tuple(alternative.get_values_for_type(x509.DNSName)),
        addresses=tuple(str(one) for one in alternative.get_values_for_type(x509.IPAddress)),
        emails=tuple(alternative.get_values_for_type(x509.RFC822Name)),
        uris=tuple(alternative.get_values_for_type(x509.UniformResourceIdentifier)),
        key_digest=hashlib.sha256(public).hexdigest(),
        raw=found,
    )


def _alternative(found: "x509.CertificateSigningRequest") -> "x509.SubjectAlternativeName":
    from cryptography import x509

    try:
        return found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def make(key_pem: bytes, subject: Subject) -> bytes:
    """A request of the holder of a key, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in subject.organizations]
    name = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    others: list[x509.GeneralName] = [x509.DNSName(entry) for entry in subject.names]
    others += [x509.IPAddress(ipaddress.ip_address(entry)) for entry in subject.addresses]
    if others:
        builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
    return builder.sign(pki.load_key(key_pem), SHA256()).public_bytes(Encoding.PEM)


def issue(
    authority_pem: bytes,
    request: SigningRequest,
    usages: Sequence[str],
    *,
    now: datetime,
    life: timedelta,
    without: frozenset[str] = frozenset(),
) -> bytes:
    """A certificate for what was asked: subject and alternative names as requested (`without` some), nothing else; never an authority.

    It holds from a whole life before it was issued (hosts whose clock is behind) to a whole life after: so the certificate itself says
    when it was issued (pki.dates_of). A clock that stands before the release counts as the release.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    key, authority = pki.load_key(authority_pem), pki.load_certificate(authority_pem)
    issued = max(now, pki.CLOCK_FLOOR).replace(microsecond=0).astimezone(UTC)
    last = min(issued + life, authority.not_valid_after_utc)
    builder = x509.CertificateBuilder().serial_number(x509.random_serial_number()).subject_name(request.raw.subject)
    builder = builder.issuer_name(authority.subject).public_key(request.raw.public_key())
    builder = builder.not_valid_before(issued - (last - issued)).not_valid_after(last)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    wanted = {_KEY_USAGES[usage] for usage in usages if usage in _KEY_USAGES}
    if wanted:
        builder = builder.add_extension(_key_usage(wanted), critical=True)
    purposes = sorted({_PURPOSES[usage] for usage in usages if usage in _PURPOSES})
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(one) for one in purposes]), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    alternative = [one for one in _alternative(request.raw) if not _stands_for(str(one.value), without)]
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def _stands_for(name: str, others: Iterable[str]) -> bool:
    """Whether who checks a host name takes `name` for one of `others`: case does not count, and a star is any first label."""
    name = name.lower().rstrip(".")
    for other in (one.lower() for one in others):
        if name == other or (name.startswith("*") and name.partition(".")[2] == other.partition(".")[2]):
            return True
    return False


def _key_usage(wanted: set[str]) -> "x509.KeyUsage":
    from cryptography import x509

    flags = {name: name in wanted for name in set(_KEY_USAGES.values())}
    if not flags["key_agreement"]:
        flags |= {"encipher_only": False, "decipher_only": False}  # without key agreement they mean nothing, and cannot be written
    return x509.KeyUsage(**flags)
