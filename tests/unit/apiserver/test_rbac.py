"""The authorizer: decisions follow the stored roles and bindings, with upstream's reasons."""

import pytest

from edgekube.api import catalog
from edgekube.apiserver.identity import ANONYMOUS, Attributes, Decision, User
from edgekube.apiserver.rbac import RbacAuthorizer
from tests.unit.apiserver.world import World, group, rule, user

ANN = User("ann", ("devs", "system:authenticated"))


def ask(rbac: RbacAuthorizer, who: User, verb: str, resource: str, **more: str) -> Decision:
    resource, _, subresource = resource.partition("/")
    return rbac.authorize(Attributes(who, verb, resource=resource, subresource=subresource, **more))


@pytest.fixture
async def world() -> World:
    return World()


async def test_nothing_is_allowed_without_a_binding(world: World) -> None:
    rbac = RbacAuthorizer(world.objects)
    assert ask(rbac, ANN, "get", "pods", namespace="default") == Decision(False, "")


async def test_masters_may_everything_without_any_role(world: World) -> None:
    rbac = RbacAuthorizer(world.objects)
    assert ask(rbac, User("root", ("system:masters",)), "delete", "nodes").allowed


async def test_cluster_binding_holds_everywhere_and_its_reason_names_it(world: World) -> None:
    await world.role("reader", rule("get list", "core", "pods pods/log"))
    await world.bind("readers", "reader", group("devs"))
    rbac = RbacAuthorizer(world.objects)
    reason = 'RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to Group "devs"'
    assert ask(rbac, ANN, "get", "pods", namespace="x") == Decision(True, reason)
    assert ask(rbac, ANN, "list", "pods").allowed
    assert ask(rbac, ANN, "get", "pods/log", namespace="x").allowed
    assert not ask(rbac, ANN, "get", "pods/exec", namespace="x").allowed
    assert not ask(rbac, User("bob"), "get", "pods", namespace="x").allowed


async def test_role_binding_holds_in_its_namespace_only(world: World) -> None:
    await world.role("edit-config", rule("update", "core", "configmaps"), namespace="a")
    await world.bind("b", "edit-config", user("ann"), namespace="a", role_kind="Role")
    rbac = RbacAuthorizer(world.objects)
    allowed = ask(rbac, ANN, "update", "configmaps", namespace="a")
    assert allowed == Decision(True, 'RBAC: allowed by RoleBinding "b/a" of Role "edit-config" to User "ann"')
    assert not ask(rbac, ANN, "update", "configmaps", namespace="b").allowed
    assert not ask(rbac, ANN, "update", "configmaps").allowed


async def test_service_account_subjects(world: World) -> None:
    await world.role("reader", rule("get", "core", "pods"))
    await world.bind("b", "reader", {"kind": "ServiceAccount", "name": "robot"}, namespace="a")
    rbac = RbacAuthorizer(world.objects)
    robot = User("system:serviceaccount:a:robot")
    assert ask(rbac, robot, "get", "pods", namespace="a").reason.endswith('to ServiceAccount "robot/a"')


async def test_resource_names(world: World) -> None:
    await world.role("one", rule("get update", "core", "secrets", names="mine"))
    await world.bind("b", "one", user("ann"))
    rbac = RbacAuthorizer(world.objects)
    assert ask(rbac, ANN, "get", "secrets", namespace="a", name="mine").allowed
    assert not ask(rbac, ANN, "get", "secrets", namespace="a", name="other").allowed
    assert not ask(rbac, ANN, "list", "secrets", namespace="a").allowed
    assert not ask(rbac, ANN, "update", "secrets", namespace="a").allowed


async def test_paths(world: World) -> None:
    await world.role("urls", rule("get", urls="/metrics /debug/*"))
    await world.bind("b", "urls", user("ann"))
    rbac = RbacAuthorizer(world.objects)
    assert rbac.authorize(Attributes(ANN, "get", path="/debug/x")).allowed
    assert not rbac.authorize(Attributes(ANN, "post", path="/metrics")).allowed
    assert not rbac.authorize(Attributes(ANONYMOUS, "get", path="/metrics")).allowed
    assert rbac.authorize(Attributes(ANONYMOUS, "get", path="/readyz")).allowed


async def test_decisions_follow_changes_at_once(world: World) -> None:
    rbac = RbacAuthorizer(world.objects)
    assert not ask(rbac, ANN, "get", "pods").allowed
    await world.bind("b", "reader", user("ann"))
    refused = ask(rbac, ANN, "get", "pods")
    assert refused == Decision(False, 'RBAC: clusterrole.rbac.authorization.k8s.io "reader" not found')
    await world.role("reader", rule("get", "core", "pods"))
    assert ask(rbac, ANN, "get", "pods").allowed
    await world.role("reader", rule("list", "core", "pods"))
    assert not ask(rbac, ANN, "get", "pods").allowed
    await world.role("reader", rule("get", "core", "pods"))
    await world.bind("b", "reader", user("bob"))
    assert not ask(rbac, ANN, "get", "pods").allowed
    await world.bind("b", "reader", user("ann"))
    await world.drop(catalog.CLUSTER_ROLE_BINDING, "b")
    assert ask(rbac, ANN, "get", "pods") == Decision(False, "")


async def test_rules_that_are_there_at_the_start_count(world: World) -> None:
    await world.role("reader", rule("get", "core", "pods"))
    await world.bind("b", "reader", user("ann"))
    rbac = RbacAuthorizer(world.objects)
    assert ask(rbac, ANN, "get", "pods", namespace="a").allowed
    assert [one.to_json() for one in rbac.rules_for(ANN, "a")] == [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]
