"""Certificates for this node: a CertificateSigningRequest through the API, and the wait until it is granted, denied or signed.

The request's name is made of what it asks for (key, subject, signer), so that asking again after a crash finds the request that is there.
One that was denied is not asked about again: a new one is made under another name.
"""

import asyncio
import base64
import hashlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgekube.api.catalog import CERTIFICATE_SIGNING_REQUEST as REQUEST
from edgekube.api.types import Obj
from edgekube.client.protocol import Client
from edgekube.errors import AlreadyExists, Expired, ServiceUnavailable, Timeout
from edgekube.lib import csr
from edgekube.lib.pki import Subject

log = logging.getLogger(__name__)

CLIENT_SIGNER, SERVING_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"
_SLOW = 10.0  # seconds without an answer until somebody is told that we wait


class Refused(Exception):
    """The request was denied, or could not be signed. `reason` is that of the condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One certificate."""

    key: bytes  # PEM
    subject: Subject
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def signer(self) -> str:
        return SERVING_SIGNER if self.subject.server else CLIENT_SIGNER

    @property
    def usages(self) -> Sequence[str]:
        return ("digital signature", "server auth" if self.subject.server else "client auth")


async def obtain(client: Client, wish: Wish, *, again: bool = False) -> bytes:
    """The certificate as PEM, as soon as there is one; `again`: a new one, whatever was signed before. Raises Refused, ApiError."""
    obj = await _request(client, wish, again)
    name, told = obj["metadata"]["name"], False
    while True:
        try:
            async with asyncio.timeout(None if told else _SLOW):
                return await _granted(client, name, int(obj["metadata"]["resourceVersion"]))
        except TimeoutError:
            told = True
            log.warning("waiting for somebody to approve the signing request", extra={"fix": f"kubectl certificate approve {name}"})
        except (Expired, ServiceUnavailable, Timeout):
            await asyncio.sleep(1)
        obj = await client.get(REQUEST, name)
        if found := _outcome(obj):
            return found


async def _request(client: Client, wish: Wish, again: bool) -> Obj:
    """The request, made now or by an earlier attempt."""
    body = await asyncio.to_thread(csr.make, wish.key, wish.subject)
    key = (await asyncio.to_thread(csr.parse, body)).key_digest
    digest = hashlib.sha256(f"{key} {wish.subject.fingerprint()} {wish.signer}".encode()).digest()
    name = "node-csr-" + base64.b32encode(digest).decode().lower()[:40]
    obj: Obj = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name, "annotations": dict(wish.annotations)},
        "spec": {"request": base64.b64encode(body).decode(), "signerName": wish.signer, "usages": list(wish.usages)},
    }
    if not again:
        try:
            return await client.create(REQUEST, obj)
        except AlreadyExists:
            found = await client.get(REQUEST, name)
        if _asks_for(found, key, wish.signer) and not _conditions(found) & {"Denied", "Failed"}:
            return found
    obj["metadata"]["name"] = f"{name}-{secrets.token_hex(4)}"
    return await client.create(REQUEST, obj)


def _asks_for(obj: Obj, key: str, signer: str) -> bool:
    """Somebody else may have guessed the name."""
    try:
        asked = csr.parse(base64.b64decode(obj["spec"]["request"]))
    except ValueError:
        return False
    return obj["spec"].get("signerName") == signer and asked.key_digest == key


async def _granted(client: Client, name: str, revision: int) -> bytes:
    async with client.watch(REQUEST, revision=revision, fields=f"metadata.name={name}") as changes:
        first = await client.get(REQUEST, name)
        if found := _outcome(first):
            return found
        async for batch in changes:
            for change in batch:
                if change.item.raw and (found := _outcome(change.item.decode())):
                    return found
    raise Expired("the watch has ended")


def _outcome(obj: Obj) -> bytes:
    """The certificate, or nothing yet. Raises Refused."""
    status = obj.get("status") or {}
    if status.get("certificate"):
        return base64.b64decode(status["certificate"])
    for condition in status.get("conditions") or ():
        if condition.get("type") in ("Denied", "Failed"):
            message = condition.get("message") or f"the signing request {obj['metadata']['name']} was {condition['type'].lower()}"
            raise Refused(condition.get("reason", ""), message)
    return b""


def _conditions(obj: Obj) -> set[str]:
    return {one.get("type", "") for one in (obj.get("status") or {}).get("conditions") or ()}
