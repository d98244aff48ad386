"""CertificateSigningRequest: the strategy and every rule, as tables."""

import base64
import copy
from datetime import UTC, datetime

import pytest

from edgekube.api.catalog import CERTIFICATE_SIGNING_REQUEST as CSR
from edgekube.api.signers import KUBELET_CLIENT, node_client_problem, node_serving_problem
from edgekube.lib import csr, pki
from edgekube.lib.pki import Subject

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PEM = csr.make(pki.create_key(), Subject("system:node:pi", ("system:nodes",)))
TRUE = {"status": "True", "reason": "r", "message": "m"}


def request(**spec):
    found = {"request": base64.b64encode(PEM).decode(), "signerName": KUBELET_CLIENT, "usages": ["digital signature", "client auth"]}
    return {"metadata": {"name": "a"}, "spec": found | spec}


def found(problems):
    return [f"{one.field}: {one.message}" for one in problems]


def test_a_plain_request_is_valid():
    assert found(CSR.validate(request(), None)) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"usages": []}, ["spec.usages: Required value"]),
        ({"usages": ["client auth", "client auth"]}, ['spec.usages[1]: Duplicate value: "client auth"']),
        ({"signerName": ""}, ["spec.signerName: Required value"]),
        (
            {"signerName": "plain"},
            ['spec.signerName: Invalid value: "plain": must be a fully qualified domain and path of the form \'example.com/signer-name\''],
        ),
        ({"signerName": "com/x"}, ['spec.signerName: Invalid value: "com": should be a domain with at least two segments separated by dots']),
        (
            {"signerName": "kubernetes.io/legacy-unknown"},
            ['spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version'],
        ),
        (
            {"expirationSeconds": 599},
            ["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)"],
        ),
        ({"expirationSeconds": 600}, []),
        (
            {"request": base64.b64encode(b"x").decode()},
            ['spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST'],
        ),
    ],
)
def test_spec(spec, expected):
    assert found(CSR.validate(request(**spec), None)) == expected


def test_a_request_of_unreasonable_size_is_not_even_read():
    assert found(CSR.validate(request(request="A" * 70_000), None)) == ["spec.request: Too long: may not be more than 65536 bytes"]


def test_unknown_usage_names_the_known_ones():
    (text,) = found(CSR.validate(request(usages=["fishing"]), None))
    assert text.startswith('spec.usages[0]: Unsupported value: "fishing": supported values: "any", "cert sign", "client auth"')


def test_nobody_creates_what_is_granted_already_or_changes_what_he_asked_for():
    made = request() | {"status": {"conditions": [{"type": "Approved", **TRUE}]}}
    CSR.prepare(made, None)
    assert made["status"] == {}
    changed = request(signerName="other.io/x") | {"status": {"certificate": "eA=="}}
    CSR.prepare(changed, request())
    assert (changed["spec"], changed["status"]) == (request()["spec"], {})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([], [{"type": "Approved", **TRUE}], []),
        ([], [{"type": "Approved", "status": "False"}], ['status.conditions[0].status: Unsupported value: "False": supported values: "True"']),
        ([], [{"type": "Approved"}], ["status.conditions[0].status: Required value"]),
        ([{"type": "Approved", **TRUE}], [], ['status.conditions: Forbidden: updates may not remove a condition of type "Approved"']),
    ],
)
def test_approval_conditions(old, new, expected):
    before, after = request() | {"status": {"conditions": old}}, request() | {"status": {"conditions": new}}
    assert found(CSR.apart["approval"].validate(after, before)) == expected


def test_approved_and_denied_exclude_each_other():
    both = request() | {"status": {"conditions": [{"type": "Approved", **TRUE}, {"type": "Denied", **TRUE}]}}
    assert "Approved and Denied conditions are mutually exclusive" in found(CSR.apart["approval"].validate(both, request()))[0]


def test_approval_writes_conditions_only_and_status_never_decides():
    certificate = base64.b64encode(pki.certificate_pem(pki.create_authority("x", NOW))).decode()
    old = request() | {"status": {"certificate": certificate}}
    new = request(usages=["any"]) | {"status": {"conditions": [{"type": "Denied", **TRUE}]}}
    CSR.apart["approval"].prepare(new, old)
    assert new["spec"] == old["spec"]
    assert new["status"] == {"certificate": certificate, "conditions": [{"type": "Denied", **TRUE}]}
    sneaky = request() | {"status": {"conditions": [{"type": "Approved", **TRUE}]}}
    CSR.prepare_status(sneaky, request())
    assert found(CSR.validate_status(sneaky, request())) == ['status.conditions: Forbidden: updates may not add a condition of type "Approved"']


def test_a_certificate_is_set_once_through_status():
    authority = pki.certificate_pem(pki.create_authority("x", NOW))
    signed = request() | {"status": {"certificate": base64.b64encode(authority).decode()}}
    assert found(CSR.validate_status(signed, request())) == []
    again = copy.deepcopy(signed)
    again["status"]["certificate"] = base64.b64encode(authority + authority).decode()
    assert found(CSR.validate_status(again, signed)) == ["status.certificate: Forbidden: updates may not modify existing certificate content"]
    assert found(CSR.validate(signed, request())) == ["status.certificate: Forbidden: updates may not set certificate content"]
    key = request() | {"status": {"certificate": base64.b64encode(pki.create_key()).decode()}}
    assert 'only CERTIFICATE PEM blocks are allowed, found "EC PRIVATE KEY"' in found(CSR.validate_status(key, request()))[0]


@pytest.mark.parametrize(
    ("subject", "usages", "client", "serving"),
    [
        (Subject("system:node:a", ("system:nodes",)), ["digital signature", "client auth"], "", "DNS or IP subjectAltName is required"),
        (
            Subject("system:node:a", ("system:nodes",), ("a",)),
            ["digital signature", "key encipherment", "server auth"],
            "DNS subjectAltNames are not allowed",
            "",
        ),
        (
            Subject("a", ("system:nodes",)),
            ["digital signature", "client auth"],
            "subject common name does not begin with system:node:",
            "DNS or IP subjectAltName is required",
        ),
        (
            Subject("system:node:a", ("system:nodes", "system:masters")),
            ["digital signature", "client auth"],
            "subject organization is not system:nodes",
            "subject organization is not system:nodes",
        ),
        (
            Subject("system:node:a", ("system:nodes",)),
            ["client auth"],
            "usages did not match [client auth digital signature key encipherment]",
            "DNS or IP subjectAltName is required",
        ),
    ],
)
def test_what_the_node_signers_sign(subject, usages, client, serving):
    asked = csr.parse(csr.make(pki.create_key(), subject))
    assert (node_client_problem(asked, usages), node_serving_problem(asked, usages)) == (client, serving)
