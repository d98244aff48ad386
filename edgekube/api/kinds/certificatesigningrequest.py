"""CertificateSigningRequest (pkg/registry/certificates/certificates/strategy.go).

What is asked for never changes; whether it is granted is written through `approval`, the certificate through `status`. Who asks is filled
in by the server (admission/certificates.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgekube.api.kind import Apart, Column, Kind
from edgekube.api.kinds import csr_validation as rules
from edgekube.api.kinds.printing import AGE, NAME, NONE, human_duration
from edgekube.api.types import Obj


def prepare(obj: Obj, old: Obj | None) -> None:
    """Nobody asks for a certificate that is granted already, and nobody changes what he asked for."""
    if old is None:
        obj["status"] = {}
        return
    obj["spec"], obj["status"] = old.get("spec") or {}, old.get("status") or {}


def prepare_status(obj: Obj, old: Obj | None) -> None:
    """Approved and Denied conditions that are there stay as they are; more or fewer of them is for validation to refuse."""
    if old is None:
        return
    obj["spec"] = old.get("spec") or {}
    new = (obj.get("status") or {}).get("conditions") or []
    for type in rules.DECISIONS:
        before = conditions(old, type)
        places = [index for index, one in enumerate(new) if one.get("type") == type]
        if len(places) == len(before):
            for place, condition in zip(places, before, strict=True):
                new[place] = dict(condition)


def prepare_approval(obj: Obj, old: Obj | None) -> None:
    """Only the conditions are written."""
    if old is None:
        return
    found = (obj.get("status") or {}).get("conditions") or []
    obj["spec"] = old.get("spec") or {}
    obj["status"] = {name: value for name, value in (old.get("status") or {}).items() if name != "conditions"}
    if found:
        obj["status"]["conditions"] = found


def conditions(obj: Obj, type: str) -> Sequence[Mapping[str, Any]]:
    return [one for one in (obj.get("status") or {}).get("conditions") or () if one.get("type") == type]


def is_true(obj: Obj, type: str) -> bool:
    """Whether a condition holds. One without a status counts, as it did before statuses existed."""
    return any(one.get("status", "True") != "False" for one in conditions(obj, type))


def _state(obj: Obj, _now: float) -> str:
    denied, approved, failed = (bool(conditions(obj, type)) for type in ("Denied", "Approved", "Failed"))
    text = "Denied" if denied else "Approved" if approved else "Pending"
    if failed:
        text += ",Failed"
    return text + ",Issued" if (obj.get("status") or {}).get("certificate") else text


def _duration(obj: Obj, _now: float) -> str:
    seconds = (obj.get("spec") or {}).get("expirationSeconds")
    return NONE if seconds is None else human_duration(seconds)


CERTIFICATE_SIGNING_REQUEST = Kind(
    group="certificates.k8s.io",
    version="v1",
    kind="CertificateSigningRequest",
    plural="certificatesigningrequests",
    singular="certificatesigningrequest",
    short=("csr",),
    namespaced=False,
    schema="io.k8s.api.certificates.v1.CertificateSigningRequest",
    has_status=True,
    subresources={"approval": ("get", "patch", "update")},
    prepare=prepare,
    prepare_status=prepare_status,
    validate=rules.validate,
    validate_status=rules.validate_status,
    validate_name=lambda _name: (),  # upstream does not care what they are called
    apart={"approval": Apart(prepare_approval, rules.validate_approval)},
    selectable={"spec.signerName": lambda o: str((o.get("spec") or {}).get("signerName") or "")},
    columns=(
        NAME,
        AGE,
        Column("SignerName", lambda o, _: (o.get("spec") or {}).get("signerName") or NONE, description="Which signer is asked."),
        Column("Requestor", lambda o, _: (o.get("spec") or {}).get("username") or "", description="Who asked."),
        Column("RequestedDuration", _duration, description="How long the certificate should hold."),
        Column("Condition", _state, description="What became of the request."),
    ),
)
