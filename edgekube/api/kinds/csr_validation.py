"""What a CertificateSigningRequest may say (pkg/apis/certificates/validation/validation.go)."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekube.api import problems
from edgekube.api import validate as rules
from edgekube.api.signers import LEGACY_UNKNOWN
from edgekube.api.types import Obj
from edgekube.errors import Problem
from edgekube.lib import csr, pki

DECISIONS = ("Approved", "Denied")
_FINAL = (*DECISIONS, "Failed")
_SHORTEST_SECONDS = 600
_LONGEST_DOMAIN, _LONGEST_SIGNER = 253, 571
_LONGEST_REQUEST = 64 * 1024
_CONDITIONS = "status.conditions"
_BLOCK = re.compile(rb"-----BEGIN ([^-\n]+)-----\n?(.*?)-----END \1-----", re.DOTALL)


def validate(new: Obj, old: Obj | None) -> Iterator[Problem]:
    """A new request, or an update of its metadata."""
    yield from _whole(new, old)
    if old is not None:
        yield from _kept(new, old)
        yield from _undecided(new, old)
        yield from _certificate_kept(new, old, settable=False)


def validate_status(new: Obj, old: Obj | None) -> Iterator[Problem]:
    yield from _whole(new, old)
    if old is not None:
        yield from _kept(new, old)
        yield from _undecided(new, old)
        yield from _certificate_kept(new, old, settable=True)


def validate_approval(new: Obj, old: Obj | None) -> Iterator[Problem]:
    yield from _whole(new, old)
    if old is not None:
        yield from _kept(new, old)
        yield from _certificate_kept(new, old, settable=False)


def _whole(new: Obj, old: Obj | None) -> Iterator[Problem]:
    spec = new.get("spec") or {}
    if old is None or spec != old.get("spec"):
        yield from _spec(spec)
    yield from _check_conditions((new.get("status") or {}).get("conditions") or ())
    certificate = (new.get("status") or {}).get("certificate") or ""
    if certificate and certificate != ((old or {}).get("status") or {}).get("certificate"):
        why = certificate_problem(_decoded(certificate))
        if why:
            yield problems.invalid("status.certificate", certificate, why)


def _spec(spec: Mapping[str, Any]) -> Iterator[Problem]:
    request, usages = spec.get("request") or "", spec.get("usages") or ()
    if len(request) > _LONGEST_REQUEST:  # beyond upstream: who may ask may be a stranger with a token
        yield problems.too_long("spec.request", _LONGEST_REQUEST)
        return
    try:
        csr.parse(_decoded(request))
    except ValueError as error:
        yield problems.invalid("spec.request", request, str(error))
    if not usages:
        yield problems.required("spec.usages")
    for index, usage in enumerate(usages):
        if usage not in csr.USAGES:
            yield problems.not_supported(f"spec.usages[{index}]", usage, csr.USAGES)
    for index, usage in enumerate(usages):
        if usage in usages[:index]:
            yield problems.duplicate(f"spec.usages[{index}]", usage)
    signer = spec.get("signerName") or ""
    if signer == LEGACY_UNKNOWN:
        yield problems.invalid("spec.signerName", signer, "the legacy signerName is not allowed via this API version")
    else:
        yield from signer_name("spec.signerName", signer)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST_SECONDS:
        yield problems.invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 600 seconds (10 minutes)")


def signer_name(field: str, name: str) -> Iterator[Problem]:
    """example.com/signer-name (pkg/apis/core/validation/names.go, ValidateSignerName)."""
    if not name:
        yield problems.required(field)
        return
    parts = name.split("/")
    if len(parts) != 2:
        yield problems.invalid(field, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
        return
    domain, path = parts
    if len(domain) > _LONGEST_DOMAIN:
        yield problems.too_long(field, _LONGEST_DOMAIN)
    labels = domain.split(".")
    yield from _labels(field, domain, labels, rules.label)
    if len(labels) < 2:
        yield problems.invalid(field, domain, "should be a domain with at least two segments separated by dots")
    yield from _labels(field, path, path.split("."), rules.subdomain)
    if len(name) > _LONGEST_SIGNER:
        yield problems.too_long(field, _LONGEST_SIGNER)


def _labels(field: str, whole: str, labels: Sequence[str], check: Any) -> Iterator[Problem]:
    """Only the first label that is wrong is told."""
    for label in labels:
        messages = check(label)
        if messages:
            for message in messages:
                yield problems.invalid(field, whole, f'validating label "{label}": {message}')
            return


def _check_conditions(found: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, condition in enumerate(found):
        type, status = condition.get("type") or "", condition.get("status") or ""
        allowed = ("True",) if type in _FINAL else ("False", "True", "Unknown")
        if not type:
            yield problems.required(f"{_CONDITIONS}[{index}].type")
        if not status:
            yield problems.required(f"{_CONDITIONS}[{index}].status")
        elif status not in allowed:
            yield problems.not_supported(f"{_CONDITIONS}[{index}].status", status, allowed)
        if type in seen:
            yield problems.duplicate(f"{_CONDITIONS}[{index}].type", type)
        seen.add(type)
    if seen.issuperset(DECISIONS):
        yield problems.invalid(_CONDITIONS, list(found), "Approved and Denied conditions are mutually exclusive")


def _of(obj: Obj, type: str) -> list[Any]:
    return [one for one in (obj.get("status") or {}).get("conditions") or () if one.get("type") == type]


def _kept(new: Obj, old: Obj) -> Iterator[Problem]:
    for type in _FINAL:
        if len(_of(new, type)) < len(_of(old, type)):
            yield problems.forbidden(_CONDITIONS, f'updates may not remove a condition of type "{type}"')


def _undecided(new: Obj, old: Obj) -> Iterator[Problem]:
    for type in DECISIONS:
        now, before = _of(new, type), _of(old, type)
        if len(now) > len(before):
            yield problems.forbidden(_CONDITIONS, f'updates may not add a condition of type "{type}"')
        elif len(now) == len(before) and now != before:
            yield problems.forbidden(_CONDITIONS, f'updates may not modify a condition of type "{type}"')


def _certificate_kept(new: Obj, old: Obj, *, settable: bool) -> Iterator[Problem]:
    now, before = ((obj.get("status") or {}).get("certificate") or "" for obj in (new, old))
    if now == before:
        return
    if not settable:
        yield problems.forbidden("status.certificate", "updates may not set certificate content")
    elif before:
        yield problems.forbidden("status.certificate", "updates may not modify existing certificate content")


def certificate_problem(data: bytes) -> str:
    """Why these are no PEM certificates; "" if they are."""
    blocks = _BLOCK.findall(data)
    for kind, body in blocks:
        if kind != b"CERTIFICATE":
            return f'only CERTIFICATE PEM blocks are allowed, found "{kind.decode(errors="replace")}"'
        if b":" in body:
            return "no PEM block headers are permitted"
        try:
            pki.load_certificate(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n")
        except ValueError as error:
            return str(error)
    return "" if blocks else "must contain at least one CERTIFICATE PEM block"


def _decoded(text: str) -> bytes:
    """The schema has checked that it is base64."""
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""
