"""Questions about identity and permission: the answers' shapes, and what is no question."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekube.api import catalog
from edgekube.apiserver import reviews
from edgekube.apiserver.authn import Authenticator
from edgekube.apiserver.identity import User
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.rbac import RbacAuthorizer
from edgekube.apiserver.tokens import TokenSigner, issuer_of, new_jti, plan_claims
from edgekube.errors import BadRequest, Invalid
from edgekube.lib import pki
from edgekube.lib.clock import FakeClock
from tests.unit.apiserver.world import World, rule, user

ANN = User("ann", ("devs",), uid="u", extra={"k": ("v",)})
ISSUER = issuer_of("cluster.local")


class Scene:
    def __init__(self, folder: Path) -> None:
        pki.write_secret(folder / "k", pki.create_key())
        self.world, self.clock = World(), FakeClock()
        self.signer = TokenSigner(folder / "k", issuer=ISSUER)

    async def ask(self, plural: str, spec: dict[str, Any] | None, namespace: str = "") -> dict[str, Any]:
        rbac = RbacAuthorizer(self.world.objects)
        authenticator = Authenticator(signer=self.signer, objects=self.world.objects, clock=self.clock)
        every = {each.kind.plural: each for each in reviews.build(authenticator=authenticator, authorizer=rbac, audience=ISSUER)}
        server: Any = SimpleNamespace(authorizer=rbac)
        op = Operation(every[plural].kind, ANN, namespace)
        answer = await every[plural].create(server, op, {} if spec is None else {"spec": spec})
        assert answer["kind"] == every[plural].kind.kind
        status: dict[str, Any] = answer["status"]
        return status


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path)
    await made.world.role("reader", rule("get", "core", "pods"))
    await made.world.bind("b", "reader", user("ann"))
    return made


async def test_who_am_i(scene: Scene) -> None:
    status = await scene.ask("selfsubjectreviews", None)
    assert status == {"userInfo": {"username": "ann", "uid": "u", "groups": ["devs"], "extra": {"k": ["v"]}}}


async def test_may_i(scene: Scene) -> None:
    question = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "a"}}
    status = await scene.ask("selfsubjectaccessreviews", question)
    assert status["allowed"]
    assert status["reason"].startswith("RBAC: allowed by ClusterRoleBinding")
    question["resourceAttributes"]["verb"] = "list"
    assert await scene.ask("selfsubjectaccessreviews", question) == {"allowed": False}
    assert not (await scene.ask("selfsubjectaccessreviews", {"nonResourceAttributes": {"path": "/x", "verb": "get"}}))["allowed"]


async def test_may_somebody(scene: Scene) -> None:
    question = {"resourceAttributes": {"verb": "get", "resource": "pods"}, "user": "bob"}
    assert not (await scene.ask("subjectaccessreviews", question))["allowed"]
    assert (await scene.ask("subjectaccessreviews", question | {"groups": ["system:masters"]}))["allowed"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"user": "a"}, "spec.resourceAttributes"),
        ({"user": "a", "resourceAttributes": {}, "nonResourceAttributes": {}}, "spec.nonResourceAttributes"),
        ({"resourceAttributes": {}}, "spec.user"),
    ],
)
async def test_no_question(scene: Scene, spec: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        await scene.ask("subjectaccessreviews", spec)
    assert caught.value.causes[0]["field"] == field


async def test_local_reviews_stay_in_their_namespace(scene: Scene) -> None:
    question = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "a"}, "user": "ann"}
    assert (await scene.ask("localsubjectaccessreviews", question, "a"))["allowed"]
    with pytest.raises(Invalid):
        await scene.ask("localsubjectaccessreviews", question, "b")


async def test_my_rules(scene: Scene) -> None:
    status = await scene.ask("selfsubjectrulesreviews", {"namespace": "a"})
    assert status["resourceRules"] == [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]
    assert status["incomplete"] is False
    with pytest.raises(BadRequest):
        await scene.ask("selfsubjectrulesreviews", {})


async def test_whose_token(scene: Scene) -> None:
    account = await scene.world.put(catalog.SERVICE_ACCOUNT, "robot", "a")
    now = scene.clock.now().timestamp()
    token = scene.signer.sign(plan_claims(account=account, audiences=("vault",), seconds=600, now=now, jti=new_jti()))
    status = await scene.ask("tokenreviews", {"token": token, "audiences": ["vault", "x"]})
    assert status["authenticated"]
    assert status["audiences"] == ["vault"]
    assert status["user"]["username"] == "system:serviceaccount:a:robot"
    refused = await scene.ask("tokenreviews", {"token": token})
    assert "authenticated" not in refused
    assert "another audience" in refused["error"]
    with pytest.raises(BadRequest, match="token is required"):
        await scene.ask("tokenreviews", {})
