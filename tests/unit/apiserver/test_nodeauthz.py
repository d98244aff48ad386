"""What a node may ask for: its own, and what its own pods need."""

from typing import Any

import pytest

from edgekube.api import catalog
from edgekube.apiserver.authorizers import Union, node_and_rbac
from edgekube.apiserver.identity import Attributes, Authorizer, Decision, User
from edgekube.apiserver.rbac import RbacAuthorizer
from tests.unit.apiserver.world import World, group, rule

PI = User("system:node:pi", ("system:nodes", "system:authenticated"))
NO_RELATION = "no relationship found between node 'pi' and this object"


def ask(authorizer: Authorizer, verb: str, resource: str, name: str = "", *, who: User = PI, **more: str) -> Decision:
    resource, _, subresource = resource.partition("/")
    more.setdefault("namespace", "default")
    return authorizer.authorize(Attributes(who, verb, resource=resource, subresource=subresource, name=name, version="v1", **more))


async def put_pod(world: World, name: str, node: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> None:
    metadata = {"annotations": annotations} if annotations else {}
    await world.put(catalog.POD, name, "default", metadata=metadata, spec={"nodeName": node, "containers": [{"name": "c"}], **spec})


@pytest.fixture
async def world() -> World:
    made = World()
    volumes = [
        {"name": "s", "secret": {"secretName": "mounted"}},
        {"name": "p", "projected": {"sources": [{"configMap": {"name": "projected"}}, {"secret": {"name": "projected-secret"}}]}},
    ]
    container = {
        "name": "c",
        "envFrom": [{"configMapRef": {"name": "env-all"}}],
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "env-one", "key": "k"}}}],
    }
    spec = {"serviceAccountName": "runner", "volumes": volumes, "containers": [container], "imagePullSecrets": [{"name": "pull"}]}
    await put_pod(made, "mine", "pi", **spec)
    await put_pod(made, "theirs", "other", volumes=[{"name": "s", "secret": {"secretName": "foreign"}}], serviceAccountName="foreign")
    return made


@pytest.fixture
def authorizer(world: World) -> Authorizer:
    return node_and_rbac(world.objects, RbacAuthorizer(world.objects))


@pytest.mark.parametrize("verb", ["get", "list", "watch"])
@pytest.mark.parametrize(
    ("resource", "name"),
    [("secrets", n) for n in ("mounted", "projected-secret", "env-one", "pull")] + [("configmaps", n) for n in ("projected", "env-all")],
)
async def test_what_its_pods_refer_to(authorizer: Authorizer, verb: str, resource: str, name: str) -> None:
    assert ask(authorizer, verb, resource, name).allowed
    assert ask(authorizer, verb, resource, name, namespace="elsewhere") == Decision(False, NO_RELATION)


@pytest.mark.parametrize(
    ("verb", "resource", "name", "more", "why"),
    [
        ("get", "secrets", "foreign", {}, NO_RELATION),
        ("get", "secrets", "nobodys", {}, NO_RELATION),
        ("get", "configmaps", "mounted", {}, NO_RELATION),
        ("list", "secrets", "", {}, "No Object name found"),
        ("list", "secrets", "", {"namespace": ""}, "can only read namespaced object of this type"),
        ("create", "secrets", "mounted", {}, "can only read resources of this type"),
        ("delete", "configmaps", "env-all", {}, "can only read resources of this type"),
        ("get", "secrets/x", "mounted", {}, "cannot read subresource"),
        ("create", "serviceaccounts/token", "foreign", {}, NO_RELATION),
        ("get", "serviceaccounts", "runner", {}, "can only create tokens for individual service accounts"),
        ("create", "serviceaccounts", "runner", {}, "can only create token subresource of serviceaccount"),
        ("get", "nodes", "other", {"namespace": ""}, "node 'pi' cannot read 'other', only its own Node object"),
        ("list", "nodes", "", {"namespace": ""}, "node 'pi' cannot read all nodes, only its own Node object"),
        ("delete", "nodes", "pi", {"namespace": ""}, ""),
        ("get", "pods", "theirs", {}, NO_RELATION),
        ("list", "pods", "", {}, "can only list/watch pods with spec.nodeName field selector"),
        ("list", "pods", "", {"fields": "spec.nodeName=other"}, "can only list/watch pods with spec.nodeName field selector"),
        ("list", "pods", "", {"fields": "spec.nodeName!=pi"}, "can only list/watch pods with spec.nodeName field selector"),
        ("update", "pods", "mine", {}, ""),
        ("create", "pods/exec", "mine", {}, ""),
        ("deletecollection", "pods", "", {"fields": "spec.nodeName=pi"}, ""),
        ("list", "services", "", {"group": "other.example"}, ""),
        ("create", "clusterrolebindings", "", {"group": "rbac.authorization.k8s.io", "namespace": ""}, ""),
    ],
)
async def test_what_it_may_not(
    authorizer: Authorizer, verb: str, resource: str, name: str, more: dict[str, str], why: str
) -> None:
    assert ask(authorizer, verb, resource, name, **more) == Decision(False, why)


@pytest.mark.parametrize(
    ("verb", "resource", "name", "more"),
    [
        ("create", "serviceaccounts/token", "runner", {}),
        ("get", "nodes", "pi", {"namespace": ""}),
        ("watch", "nodes", "pi", {"namespace": ""}),
        ("create", "nodes", "", {"namespace": ""}),
        ("patch", "nodes/status", "pi", {"namespace": ""}),
        ("list", "pods", "", {"namespace": "", "fields": "spec.nodeName=pi"}),
        ("watch", "pods", "", {"namespace": "", "fields": "status.phase!=Failed,spec.nodeName=pi"}),
        ("get", "pods", "mine", {}),
        ("watch", "pods", "mine", {}),
        ("update", "pods/status", "mine", {}),
        ("create", "pods/eviction", "mine", {}),
        ("list", "services", "", {"namespace": ""}),
        ("create", "events", "", {}),
        ("create", "tokenreviews", "", {"group": "authentication.k8s.io", "namespace": ""}),
    ],
)
async def test_what_it_may(authorizer: Authorizer, verb: str, resource: str, name: str, more: dict[str, str]) -> None:
    assert ask(authorizer, verb, resource, name, **more).allowed


@pytest.mark.parametrize(
    ("verb", "namespace", "name", "why"),
    [
        ("get", "kube-node-lease", "pi", None),
        ("create", "kube-node-lease", "", None),
        ("update", "kube-node-lease", "other", "can only access node lease with the same name as the requesting node"),
        ("update", "kube-system", "pi", 'can only access leases in the "kube-node-lease" system namespace'),
        ("list", "kube-node-lease", "", "can only get, create, update, patch, or delete a node lease"),
    ],
)
async def test_leases(authorizer: Authorizer, verb: str, namespace: str, name: str, why: str | None) -> None:
    found = ask(authorizer, verb, "leases", name, namespace=namespace, group="coordination.k8s.io")
    assert found == (Decision(True) if why is None else Decision(False, why))


async def test_a_grant_ends_with_the_pod_and_follows_what_it_refers_to(world: World, authorizer: Authorizer) -> None:
    assert ask(authorizer, "get", "secrets", "mounted").allowed
    await put_pod(world, "mine", "pi", volumes=[{"name": "s", "secret": {"secretName": "another"}}])
    assert not ask(authorizer, "get", "secrets", "mounted").allowed
    assert ask(authorizer, "get", "secrets", "another").allowed
    await world.drop(catalog.POD, "mine", "default")
    assert not ask(authorizer, "get", "secrets", "another").allowed
    assert ask(authorizer, "get", "pods", "mine") == Decision(False, NO_RELATION)


async def test_a_pod_that_is_bound_later_grants_from_then_on(world: World, authorizer: Authorizer) -> None:
    volumes = [{"name": "s", "secret": {"secretName": "late"}}]
    await put_pod(world, "late", "", volumes=volumes)
    assert not ask(authorizer, "get", "secrets", "late").allowed
    await put_pod(world, "late", "pi", volumes=volumes)
    assert ask(authorizer, "get", "secrets", "late").allowed


@pytest.mark.parametrize(
    ("group", "resource"),
    [("", "persistentvolumeclaims"), ("", "persistentvolumes"), ("storage.k8s.io", "csinodes"), ("resource.k8s.io", "resourceslices")],
)
async def test_what_is_not_worked_out_is_nobodys(authorizer: Authorizer, group: str, resource: str) -> None:
    for verb in ("get", "list", "update", "delete"):
        assert ask(authorizer, verb, resource, "x", group=group) == Decision(False, NO_RELATION)


async def test_a_mirror_pod_grants_nothing(world: World, authorizer: Authorizer) -> None:
    """The node writes it: otherwise it could name the secrets it wants."""
    volumes = [{"name": "s", "secret": {"secretName": "wanted"}}]
    await put_pod(world, "static-pi", "pi", annotations={"kubernetes.io/config.mirror": "hash"}, volumes=volumes)
    assert not ask(authorizer, "get", "secrets", "wanted").allowed
    assert ask(authorizer, "get", "pods", "static-pi").allowed


async def test_only_members_of_system_nodes_are_nodes(authorizer: Authorizer) -> None:
    impostor = User("system:node:pi", ("system:authenticated",))
    assert ask(authorizer, "get", "secrets", "mounted", who=impostor) == Decision(False)
    nameless = User("pi", ("system:nodes",))
    assert ask(authorizer, "get", "secrets", "mounted", who=nameless) == Decision(False, 'unknown node for user "pi"')


async def test_rbac_adds_to_it_and_reasons_are_joined(world: World, authorizer: Authorizer) -> None:
    await world.role("reader", rule("list", "core", "nodes"))
    await world.bind("nodes-read-nodes", "reader", group("system:nodes"))
    assert ask(authorizer, "list", "nodes", namespace="").allowed

    class Mute:
        def __init__(self, reason: str) -> None:
            self.reason = reason

        def authorize(self, attributes: Attributes) -> Decision:
            return Decision(False, self.reason)

    assert Union((Mute("a"), Mute(""), Mute("b"))).authorize(Attributes(PI, "get")) == Decision(False, "a\nb")
