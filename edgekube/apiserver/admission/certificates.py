"""Admission of CertificateSigningRequests: who asks is the server's to say, and not everybody may approve or sign for every signer.

CertificateRequester does what upstream's strategy does on create and what it does with the times of conditions. The others are upstream's
plugins of the same names (plugin/pkg/admission/certificates): verbs `approve` and `sign` on `signers`, by full name or `domain/*`.
"""

import base64
from typing import Any

from edgekube.api.signers import CLIENT
from edgekube.apiserver.admission.common import BasePlugin, forbidden
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.identity import Attributes, Authorizer
from edgekube.apiserver.rbac import PRIVILEGED_GROUP
from edgekube.lib import csr
from edgekube.lib.clock import Clock, rfc3339

_GROUP = "certificates.k8s.io"
_KINDS = ("certificatesigningrequests",)


class CertificateRequester(BasePlugin):
    """spec.username, uid, groups and extra are those of the caller; conditions get their times."""

    name = "CertificateRequester"
    kinds = _KINDS

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def mutate(self, request: Admission) -> None:
        if request.obj is None:
            return
        if request.operation == "CREATE" and not request.subresource:
            self._identify(request, request.obj.setdefault("spec", {}))
        elif request.operation == "UPDATE" and request.subresource in ("status", "approval"):
            self._date(request)

    @staticmethod
    def _identify(request: Admission, spec: dict[str, Any]) -> None:
        user = request.user
        for field, value in (
            ("username", user.name),
            ("uid", user.uid),
            ("groups", list(user.groups)),
            ("extra", {name: list(values) for name, values in user.extra.items()}),
        ):
            if value:
                spec[field] = value
            else:
                spec.pop(field, None)

    def _date(self, request: Admission) -> None:
        """lastUpdateTime where none is given; lastTransitionTime is that of the condition before unless its status changed."""
        now = rfc3339(self._clock.now())
        before = ((request.old or {}).get("status") or {}).get("conditions") or ()
        for condition in ((request.obj or {}).get("status") or {}).get("conditions") or ():
            same = (one for one in before if (one.get("type"), one.get("status")) == (condition.get("type"), condition.get("status")))
            kept = next((one["lastTransitionTime"] for one in same if one.get("lastTransitionTime")), None)
            condition["lastTransitionTime"] = kept or condition.get("lastTransitionTime") or now
            condition["lastUpdateTime"] = condition.get("lastUpdateTime") or now


class CertificateApproval(BasePlugin):
    """Who approves or denies needs `approve` on the signer."""

    name = "CertificateApproval"
    kinds = _KINDS

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, request: Admission) -> None:
        if request.operation != "UPDATE" or request.subresource != "approval":
            return
        signer = _signer(request.old)
        if not may(self._authorizer, request, "approve", signer):
            raise forbidden(request, f'user not permitted to approve requests with signerName "{signer}"')


class CertificateSigning(BasePlugin):
    """Who writes the certificate or a condition through `status` needs `sign` on the signer."""

    name = "CertificateSigning"
    kinds = _KINDS

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, request: Admission) -> None:
        if request.operation != "UPDATE" or request.subresource != "status":
            return
        new, old = (request.obj or {}).get("status") or {}, (request.old or {}).get("status") or {}
        if all((new.get(field) or None) == (old.get(field) or None) for field in ("certificate", "conditions")):
            return
        signer = _signer(request.old)
        if not may(self._authorizer, request, "sign", signer):
            raise forbidden(request, f'user not permitted to sign requests with signerName "{signer}"')


class CertificateSubjectRestriction(BasePlugin):
    """No client certificate makes anybody a system:masters."""

    name = "CertificateSubjectRestriction"
    kinds = _KINDS

    async def validate(self, request: Admission) -> None:
        if request.operation != "CREATE" or request.subresource or _signer(request.obj) != CLIENT:
            return
        try:
            found = csr.parse(base64.b64decode(((request.obj or {}).get("spec") or {}).get("request") or ""))
        except ValueError as error:
            raise forbidden(request, f"failed to parse CSR: {error}") from None
        if PRIVILEGED_GROUP in found.organizations:
            raise forbidden(request, f"use of {CLIENT} signer with {PRIVILEGED_GROUP} group is not allowed")


def may(authorizer: Authorizer, request: Admission, verb: str, signer: str) -> bool:
    """certauthorization.IsAuthorizedForSignerName."""
    names = (signer, signer.partition("/")[0] + "/*")
    return any(
        authorizer.authorize(Attributes(request.user, verb, resource="signers", group=_GROUP, version="*", name=name)).allowed
        for name in names
    )


def _signer(obj: dict[str, Any] | None) -> str:
    return str(((obj or {}).get("spec") or {}).get("signerName") or "")
