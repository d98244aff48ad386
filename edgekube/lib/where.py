"""'Where is the server with this authority?': what is asked, answered and announced on a local network. Pure.

    magic "EKWHERE1"    kind u8    nonce 16 bytes    authority 32 bytes    port u16    length u16    addresses, comma-separated    padding

    QUESTION   asked by an agent that has lost its server, on every interface, as multicast and broadcast; padded to `SIZE`
    ANSWER     the server's, to who asked, with the nonce of the question; never longer than the question
    ANNOUNCE   the server's, to everybody, when its own addresses have changed; the nonce is zero

The authority is named by the SHA-256 of its certificate, which is public. All of it is hints: whoever is there must still prove, with TLS,
to be a server of that authority.
"""

import hashlib
import ssl
import struct
from collections.abc import Sequence
from typing import NamedTuple

MAGIC = b"EKWHERE1"
QUESTION, ANSWER, ANNOUNCE = 1, 2, 3
NONCE_BYTES = 16
SIZE = 512  # of a question: small enough for every network, large enough for any answer
GROUP4, GROUP6 = "239.255.64.43", "ff02::1"  # administratively scoped; all nodes of the link

_HEAD = struct.Struct(">8sB16s32sHH")
_ROOM = SIZE - _HEAD.size


class Message(NamedTuple):
    kind: int
    nonce: bytes
    authority: bytes
    port: int = 0
    addresses: Sequence[str] = ()


def authority_of(ca_pem: str) -> bytes:
    """How messages name an authority: the first certificate of `ca_pem`."""
    end = "-----END CERTIFICATE-----"
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(ca_pem[ca_pem.index("-----BEGIN CERTIFICATE-----") :].partition(end)[0] + end)).digest()


def question(nonce: bytes, authority: bytes) -> bytes:
    return _pack(QUESTION, nonce, authority, 0, "").ljust(SIZE, b"\0")


def answer(to: Message, port: int, addresses: Sequence[str]) -> bytes:
    return _pack(ANSWER, to.nonce, to.authority, port, _fitting(addresses))


def announcement(authority: bytes, port: int, addresses: Sequence[str]) -> bytes:
    return _pack(ANNOUNCE, bytes(NONCE_BYTES), authority, port, _fitting(addresses))


def parse(data: bytes) -> Message | None:
    """None for what is none of ours, and for a question so short that its answer would be longer."""
    if len(data) < _HEAD.size or len(data) > SIZE:
        return None
    magic, kind, nonce, authority, port, length = _HEAD.unpack_from(data)
    if magic != MAGIC or kind not in (QUESTION, ANSWER, ANNOUNCE) or (kind == QUESTION and len(data) < SIZE):
        return None
    try:
        text = data[_HEAD.size : _HEAD.size + length].decode("ascii")
    except UnicodeDecodeError:
        return None
    if len(text) != length or (kind != QUESTION and not port):
        return None
    return Message(kind, nonce, authority, port, tuple(filter(None, text.split(","))))


def _pack(kind: int, nonce: bytes, authority: bytes, port: int, text: str) -> bytes:
    return _HEAD.pack(MAGIC, kind, nonce, authority, port, len(text)) + text.encode("ascii")


def _fitting(addresses: Sequence[str]) -> str:
    """As many as there is room for, the first ones first."""
    text = ""
    for each in addresses:
        longer = f"{text},{each}" if text else each
        if len(longer) > _ROOM:
            break
        text = longer
    return text
