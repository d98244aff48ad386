"""As much of DER as is needed to read one thing out of a certificate without the cryptography library (35 ms to import).

Certificates that come here were verified by TLS, or their key is only compared: a malformed one is refused, never trusted.
"""

import hashlib
from datetime import UTC, datetime

_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


def public_key_info(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of an X.509 certificate, with its own header. Raises ValueError."""
    position = _field(certificate, 5)  # after serialNumber, signature, issuer, validity, subject
    _inside(certificate, position, _SEQUENCE)
    return certificate[position : _end(certificate, position)]


def key_digest(certificate: bytes) -> str:
    """sha256 of the SubjectPublicKeyInfo, in hex: who the holder is, whatever the certificate says. Raises ValueError."""
    return hashlib.sha256(public_key_info(certificate)).hexdigest()


def dates(certificate: bytes) -> tuple[datetime, datetime]:
    """From when until when a certificate holds. Raises ValueError."""
    first, _ = _inside(certificate, _field(certificate, 3), _SEQUENCE)  # after serialNumber, signature, issuer
    return _time(certificate, first), _time(certificate, _end(certificate, first))


def _time(data: bytes, position: int) -> datetime:
    """UTCTime (two digits of the year: 1950 to 2049) or GeneralizedTime."""
    start, end = _content(data, position)
    text = data[start:end].decode("ascii")
    if data[position] == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _field(certificate: bytes, number: int) -> int:
    """Where a field of the TBSCertificate starts; serialNumber is 0."""
    start, _ = _inside(certificate, 0, _SEQUENCE)  # Certificate
    position, _ = _inside(certificate, start, _SEQUENCE)  # TBSCertificate
    if certificate[position : position + 1] == bytes((_VERSION,)):
        position = _end(certificate, position)
    for _ in range(number):
        position = _end(certificate, position)
    return position


def _inside(data: bytes, position: int, tag: int) -> tuple[int, int]:
    if position >= len(data) or data[position] != tag:
        raise ValueError("not a certificate")
    return _content(data, position)


def _end(data: bytes, position: int) -> int:
    return _content(data, position)[1]


def _content(data: bytes, position: int) -> tuple[int, int]:
    """Where the content of the element at `position` starts and ends."""
    if position + 2 > len(data):
        raise ValueError("the certificate is cut off")
    length, start = data[position + 1], position + 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or start + size > len(data):
            raise ValueError("the certificate has a length that cannot be")
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    if start + length > len(data):
        raise ValueError("the certificate is cut off")
    return start, start + length
