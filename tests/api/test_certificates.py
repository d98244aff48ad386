"""CertificateSigningRequests over TLS: who asks, who may approve and sign, and what the real kubectl makes of them."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgekube.api import signers
from edgekube.lib import csr, pki
from edgekube.lib.pki import Subject
from tests.api.secured import Api, secured
from tests.api.test_kubectl_verbs import Kubectl
from tests.kit.requires import needs

PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT = ["digital signature", "client auth"]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with secured(tmp_path) as made:
        yield made


def asked(name: str, subject: Subject, *, signer: str = signers.CLIENT, usages=CLIENT, **spec) -> dict:
    pem = csr.make(pki.create_key(), subject)
    return {
        "metadata": {"name": name},
        "spec": {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": list(usages)} | spec,
    }


async def grant(api: Api, user: str, *rules: dict) -> None:
    role = {"metadata": {"name": user}, "rules": list(rules)}
    assert (await api.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role))[0] == 201
    binding = {
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    }
    assert (await api.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding))[0] == 201


def rule(verbs: str, resources: str, *names: str) -> dict:
    found = {"apiGroups": ["certificates.k8s.io"], "verbs": verbs.split(), "resources": resources.split()}
    return found | ({"resourceNames": list(names)} if names else {})


async def test_the_server_says_who_asks(api: Api) -> None:
    ann = api.certificate("ann", "devs")
    await grant(api, "ann", rule("create get", "certificatesigningrequests"))
    lie = asked("a", Subject("ann", ("devs",)), username="boss", groups=["system:masters"], uid="1", extra={"a": ["b"]})
    status, made = await api.call("POST", PATH, lie, credential=ann)
    assert status == 201, made
    assert (made["spec"]["username"], made["spec"]["groups"]) == ("ann", ["devs", "system:authenticated"])
    assert "uid" not in made["spec"]
    assert list(made["spec"]["extra"]) == ["authentication.kubernetes.io/credential-id"]
    assert made["status"] == {}
    made["spec"]["username"] = "boss"
    status, again = await api.call("PUT", f"{PATH}/a", made)
    assert (status, again["spec"]["username"]) == (200, "ann")


async def test_nobody_becomes_an_administrator_by_request(api: Api) -> None:
    status, refused = await api.call("POST", PATH, asked("a", Subject("ann", ("system:masters",))))
    assert status == 403
    assert refused["message"] == (
        'certificatesigningrequests.certificates.k8s.io "a" is forbidden: '
        "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    )


async def test_approving_and_signing_need_their_own_rights(api: Api) -> None:
    ann = api.certificate("ann")
    await grant(api, "ann", rule("create get update", "certificatesigningrequests certificatesigningrequests/approval certificatesigningrequests/status"))
    _, made = await api.call("POST", PATH, asked("a", Subject("bob")))
    approved = made | {"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}}
    status, refused = await api.call("PUT", f"{PATH}/a/approval", approved, credential=ann)
    assert status == 403
    assert refused["message"].endswith('user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"')
    await grant(api, "bea", rule("update", "certificatesigningrequests/approval"), rule("approve", "signers", "kubernetes.io/*"))
    status, done = await api.call("PUT", f"{PATH}/a/approval", approved, credential=api.certificate("bea"))
    assert status == 200, done
    condition = done["status"]["conditions"][0]
    assert condition["lastUpdateTime"] == condition["lastTransitionTime"] != ""
    authority = base64.b64encode(api.pki.ca.read_bytes()).decode()
    signed = done | {"status": done["status"] | {"certificate": authority}}
    status, refused = await api.call("PUT", f"{PATH}/a/status", signed, credential=ann)
    assert (status, refused["message"].endswith('sign requests with signerName "kubernetes.io/kube-apiserver-client"')) == (403, True)
    status, answer = await api.call("PUT", f"{PATH}/a/status", signed)
    assert (status, answer["status"]["certificate"]) == (200, authority)


async def test_requests_are_found_by_signer(api: Api) -> None:
    await api.call("POST", PATH, asked("a", Subject("ann")))
    await api.call("POST", PATH, asked("b", Subject("ann"), signer="example.com/mine"))
    _, found = await api.call("GET", f"{PATH}?fieldSelector=spec.signerName%3Dexample.com%2Fmine")
    assert [one["metadata"]["name"] for one in found["items"]] == ["b"]


@needs("kubectl")
async def test_kubectl_lists_approves_and_denies(live) -> None:
    from edgekube.api.catalog import CERTIFICATE_SIGNING_REQUEST as KIND

    kubectl = Kubectl(live)
    for name in ("one", "two"):
        await live.client.create(KIND, asked(name, Subject("ann"), expirationSeconds=3600))
    lines = (await kubectl("get", "csr")).splitlines()
    assert lines[0].split() == ["NAME", "AGE", "SIGNERNAME", "REQUESTOR", "REQUESTEDDURATION", "CONDITION"]
    assert lines[1].split()[2:] == ["kubernetes.io/kube-apiserver-client", "system:admin", "60m", "Pending"]
    assert "one approved" in await kubectl("certificate", "approve", "one")
    assert "two denied" in await kubectl("certificate", "deny", "two")
    states = {line.split()[0]: line.split()[-1] for line in (await kubectl("get", "csr")).splitlines()[1:]}
    assert states == {"one": "Approved", "two": "Denied"}
    assert "Status:" in await kubectl("describe", "csr", "one")


async def test_every_operation_of_the_api(api: Api) -> None:
    """As the conformance suite goes through them (Certificates API, CSR API operations)."""
    merge = "application/merge-patch+json"
    _, groups = await api.call("GET", "/apis")
    assert "certificates.k8s.io" in [group["name"] for group in groups["groups"]]
    _, resources = await api.call("GET", "/apis/certificates.k8s.io/v1")
    names = {one["name"]: one for one in resources["resources"]}
    assert set(names) == {f"certificatesigningrequests{part}" for part in ("", "/approval", "/status")}
    assert names["certificatesigningrequests"]["shortNames"] == ["csr"]
    assert names["certificatesigningrequests/approval"]["verbs"] == ["get", "patch", "update"]
    for name in ("one", "two"):
        made = asked(name, Subject("e2e"), signer="example.com/e2e")
        made["metadata"]["labels"] = {"e2e": "yes"}
        assert (await api.call("POST", PATH, made))[0] == 201
    one = f"{PATH}/one"
    _, found = await api.call("PATCH", one, {"metadata": {"annotations": {"patched": "true"}}}, kind=merge)
    assert found["metadata"]["annotations"] == {"patched": "true"}
    found["metadata"]["annotations"]["updated"] = "true"
    status, found = await api.call("PUT", one, found)
    assert (status, found["metadata"]["annotations"]["updated"]) == (200, "true")
    for part, condition in (("approval", "ApprovalPatch"), ("status", "StatusPatch")):
        assert (await api.call("GET", f"{one}/{part}"))[0] == 200
        patch = {"metadata": {"annotations": {part: "true"}}, "status": {"conditions": [{"type": condition, "status": "True", "reason": "e2e"}]}}
        status, found = await api.call("PATCH", f"{one}/{part}", patch, kind=merge)
        assert status == 200, found
        assert found["metadata"]["annotations"][part] == "true"
        assert [each["type"] for each in found["status"]["conditions"]] == [condition]
        found["status"]["conditions"].append({"type": condition + "Update", "status": "True", "reason": "e2e", "message": "m"})
        status, found = await api.call("PUT", f"{one}/{part}", found)
        assert status == 200, found
        assert [each["type"] for each in found["status"]["conditions"]] == [condition, condition + "Update"]
    status, found = await api.call(
        "PATCH", f"{one}/status", {"status": {"certificate": base64.b64encode(api.pki.ca.read_bytes()).decode()}}, kind=merge
    )
    assert (status, bool(found["status"]["certificate"])) == (200, True)
    assert (await api.call("DELETE", one))[0] == 200
    assert (await api.call("DELETE", f"{PATH}?labelSelector=e2e%3Dyes"))[0] == 200
    assert (await api.call("GET", PATH))[1]["items"] == []
