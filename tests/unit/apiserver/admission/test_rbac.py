"""Nobody gives away more than he has."""

from typing import Any

import pytest

from edgekube.api import catalog
from edgekube.api.kind import Kind
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.admission.rbac import EscalationCheck
from edgekube.apiserver.identity import User
from edgekube.apiserver.rbac import RbacAuthorizer
from edgekube.errors import Forbidden, NotFound
from tests.unit.apiserver.world import World, rule, user

ANN = User("ann", ("devs",))


@pytest.fixture
async def world() -> World:
    made = World()
    await made.role("reader", rule("get list", "core", "pods"))
    await made.bind("ann", "reader", user("ann"))
    await made.role("root", rule("*", "*", "*"))
    return made


async def write(world: World, kind: Kind, obj: dict[str, Any], *, old: Any = None, who: User = ANN) -> None:
    obj.setdefault("metadata", {"name": "x"})
    namespace = "a" if kind.namespaced else ""
    request = Admission("UPDATE" if old else "CREATE", kind, namespace, "x", "", who, obj, old)
    await EscalationCheck(RbacAuthorizer(world.objects)).validate(request)


async def test_a_role_within_ones_own_rights(world: World) -> None:
    await write(world, catalog.ROLE, {"rules": [rule("get", "core", "pods")]})


async def test_a_role_beyond_them_is_refused_in_upstreams_words(world: World) -> None:
    with pytest.raises(Forbidden) as caught:
        await write(world, catalog.ROLE, {"rules": [rule("get delete", "core", "pods")]})
    assert caught.value.message == (
        'roles.rbac.authorization.k8s.io "x" is forbidden: user "ann" (groups=["devs"]) is attempting to grant RBAC permissions not'
        ' currently held:\n{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}'
    )


async def test_escalate_and_masters_are_the_exceptions(world: World) -> None:
    wide = {"rules": [rule("*", "*", "*")]}
    await write(world, catalog.ROLE, dict(wide), who=User("root", ("system:masters",)))
    await world.role("escalator", rule("escalate", "rbac.authorization.k8s.io", "roles"))
    await world.bind("e", "escalator", user("ann"))
    await write(world, catalog.ROLE, dict(wide))
    with pytest.raises(Forbidden):
        await write(world, catalog.CLUSTER_ROLE, dict(wide))


async def test_unchanged_rules_may_be_relabelled_by_anybody(world: World) -> None:
    old = {"metadata": {"name": "x"}, "rules": [rule("*", "*", "*")]}
    await write(world, catalog.ROLE, old | {"metadata": {"name": "x", "labels": {"a": "b"}}}, old=old)


async def test_bindings(world: World) -> None:
    def binding(role: str) -> dict[str, Any]:
        return {"roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [user("bob")]}

    await write(world, catalog.ROLE_BINDING, binding("reader"))
    with pytest.raises(Forbidden, match="attempting to grant RBAC permissions not currently held"):
        await write(world, catalog.ROLE_BINDING, binding("root"))
    with pytest.raises(NotFound, match="not found"):
        await write(world, catalog.ROLE_BINDING, binding("none"))
    await world.role("binder", rule("bind", "rbac.authorization.k8s.io", "clusterroles", names="root"))
    await world.bind("binders", "binder", user("ann"))
    await write(world, catalog.ROLE_BINDING, binding("root"))


async def test_aggregation_needs_everything(world: World) -> None:
    obj = {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}
    with pytest.raises(Forbidden, match="must have cluster-admin privileges to use the aggregationRule"):
        await write(world, catalog.CLUSTER_ROLE, obj)
