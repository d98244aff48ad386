"""As much of DER as is needed to read one thing out of a certificate without the cryptography library (35 ms to import).

Certificates that come here were verified by TLS, or their key is only compared: a malformed one is refused, never trusted.
"""

import hashlib

_SEQUENCE, _VERSION = 0x30, 0xA0


def public_key_info(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of an X.509 certificate, with its own header. Raises ValueError."""
    start, _ = _inside(certificate, 0, _SEQUENCE)  # Certificate
    position, _ = _inside(certificate, start, _SEQUENCE)  # TBSCertificate
    if certificate[position : position + 1] == bytes((_VERSION,)):
        position = _end(certificate, position)
    for _ in range(5):  # serialNumber, signature, issuer, validity, subject
        position = _end(certificate, position)
    _inside(certificate, position, _SEQUENCE)
    return certificate[position : _end(certificate, position)]


def key_digest(certificate: bytes) -> str:
    """sha256 of the SubjectPublicKeyInfo, in hex: who the holder is, whatever the certificate says. Raises ValueError."""
    return hashlib.sha256(public_key_info(certificate)).hexdigest()


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
