"""What nodes may write, beyond what they may touch."""

import copy
from typing import Any

import pytest

from edgekube.api import catalog
from edgekube.api.kind import Kind
from edgekube.apiserver.admission.noderestriction import NodeRestriction
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.identity import Attributes, Decision, User
from edgekube.errors import Forbidden, NotFound
from tests.unit.apiserver.world import World

PI = User("system:node:pi", ("system:nodes",))
MIRROR = "kubernetes.io/config.mirror"


@pytest.fixture
async def plugin() -> NodeRestriction:
    world = World()
    await world.put(catalog.NODE, "pi", uid="uid-pi")
    tokens = [{"serviceAccountToken": {"path": "token"}}, {"serviceAccountToken": {"path": "vault", "audience": "vault"}}]
    volumes = [{"name": "v", "projected": {"sources": tokens}}]
    await world.put(catalog.POD, "mine", "a", uid="uid-mine", spec={"nodeName": "pi", "containers": [], "volumes": volumes})
    await world.put(catalog.POD, "plain", "a", uid="uid-plain", spec={"nodeName": "pi", "containers": []})
    await world.put(catalog.POD, "theirs", "a", spec={"nodeName": "other", "containers": []})
    return NodeRestriction(world.objects)


def asked(kind: Kind, operation: str, obj: Any, old: Any = None, *, name: str = "", namespace: str = "a", sub: str = "", user: User = PI) -> Admission:
    return Admission(operation, kind, namespace if kind.namespaced else "", name, sub, user, obj, old)


def mirror(**spec: Any) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Node", "name": "pi", "uid": "uid-pi", "controller": True}
    metadata = {"name": "static-pi", "namespace": "a", "annotations": {MIRROR: "x"}, "ownerReferences": [owner]}
    return {"metadata": metadata, "spec": {"nodeName": "pi", "containers": [{"name": "c"}], **spec}}


def owned(**changes: Any) -> dict[str, Any]:
    made = mirror()
    made["metadata"]["ownerReferences"][0] |= changes
    return made


async def refusal(plugin: NodeRestriction, request: Admission) -> str:
    with pytest.raises(Forbidden) as caught:
        await plugin.validate(request)
    return caught.value.message.partition(" is forbidden: ")[2]


async def test_others_pass(plugin: NodeRestriction) -> None:
    ann = User("ann", ("system:authenticated",))
    await plugin.validate(asked(catalog.NODE, "DELETE", None, {}, name="pi", user=ann))
    await plugin.validate(asked(catalog.POD, "CREATE", {"metadata": {}, "spec": {}}, user=User("system:node:pi", ("x",))))


async def test_nameless(plugin: NodeRestriction) -> None:
    nameless = User("pi", ("system:nodes",))
    assert await refusal(plugin, asked(catalog.POD, "CREATE", mirror(), user=nameless)) == 'could not determine node from user "pi"'


async def test_its_own_mirror_pod(plugin: NodeRestriction) -> None:
    await plugin.validate(asked(catalog.POD, "CREATE", mirror()))


def plain() -> dict[str, Any]:
    made = mirror()
    made["metadata"]["annotations"] = {}
    return made


def without_owner() -> dict[str, Any]:
    made = mirror()
    made["metadata"]["ownerReferences"] = []
    return made


def two_owners() -> dict[str, Any]:
    made = mirror()
    made["metadata"]["ownerReferences"] *= 2
    return made


_SOURCES = "node \"pi\" can not create pods that reference "


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (plain(), f'pod does not have "{MIRROR}" annotation, node "pi" can only create mirror pods'),
        (mirror(nodeName="other"), 'node "pi" can only create pods with spec.nodeName set to itself'),
        (two_owners(), 'node "pi" can only create pods with a single owner reference set to itself'),
        (without_owner(), 'node "pi" can only create pods with an owner reference set to itself'),
        (owned(name="other"), 'node "pi" can only create pods with an owner reference set to itself'),
        (owned(controller=False), 'node "pi" can only create pods with a controller owner reference set to itself'),
        (owned(blockOwnerDeletion=True), 'node "pi" must not set blockOwnerDeletion on an owner reference'),
        (owned(uid="stale"), "node pi UID mismatch: expected stale got uid-pi"),
        (mirror(serviceAccountName="x"), _SOURCES + "a service account"),
        (mirror(volumes=[{"name": "v", "secret": {"secretName": "s"}}]), _SOURCES + "secrets"),
        (mirror(volumes=[{"name": "v", "configMap": {"name": "s"}}]), _SOURCES + "configmaps"),
        (mirror(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "s"}}]), _SOURCES + "persistentvolumeclaims"),
        (mirror(volumes=[{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}}]), _SOURCES + "clustertrustbundles"),
    ],
)
async def test_pods_it_may_not_make(plugin: NodeRestriction, pod: dict[str, Any], why: str) -> None:
    assert await refusal(plugin, asked(catalog.POD, "CREATE", pod)) == why


async def test_deletes_and_evicts_only_its_own(plugin: NodeRestriction) -> None:
    mine, theirs = {"spec": {"nodeName": "pi"}}, {"spec": {"nodeName": "other"}}
    await plugin.validate(asked(catalog.POD, "DELETE", None, mine, name="mine"))
    why = 'node "pi" can only delete pods with spec.nodeName set to itself'
    assert await refusal(plugin, asked(catalog.POD, "DELETE", None, theirs, name="theirs")) == why
    eviction = {"metadata": {"name": "theirs"}}
    await plugin.validate(asked(catalog.POD, "CREATE", {"metadata": {}}, name="mine", sub="eviction"))
    why = "node pi can only evict pods with spec.nodeName set to itself"
    assert await refusal(plugin, asked(catalog.POD, "CREATE", eviction, sub="eviction")) == why
    with pytest.raises(NotFound):
        await plugin.validate(asked(catalog.POD, "CREATE", {"metadata": {}}, name="none", sub="eviction"))


async def test_status_of_its_own_without_labels(plugin: NodeRestriction) -> None:
    old = {"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "pi"}, "status": {}}
    new = copy.deepcopy(old) | {"status": {"phase": "Running"}}
    await plugin.validate(asked(catalog.POD, "UPDATE", new, old, sub="status"))
    relabelled = copy.deepcopy(new)
    relabelled["metadata"]["labels"]["a"] = "c"
    assert await refusal(plugin, asked(catalog.POD, "UPDATE", relabelled, old, sub="status")) == 'node "pi" cannot update labels through pod status'
    foreign = old | {"spec": {"nodeName": "other"}}
    why = 'node "pi" can only update pod status for pods with spec.nodeName set to itself'
    assert await refusal(plugin, asked(catalog.POD, "UPDATE", new, foreign, sub="status")) == why
    assert "unexpected pod subresource \"exec\"" in await refusal(plugin, asked(catalog.POD, "CONNECT", None, None, sub="exec"))
    assert "node \"pi\" can only create and delete mirror pods" in await refusal(plugin, asked(catalog.POD, "UPDATE", new, old))


@pytest.mark.parametrize(
    ("labels", "refused"),
    [
        ({"kubernetes.io/arch": "arm64", "topology.kubernetes.io/zone": "a", "example.com/x": "1", "plain": "2"}, ""),
        ({"node.kubernetes.io/whatever": "x", "sub.kubelet.kubernetes.io/y": "x"}, ""),
        ({"node-role.kubernetes.io/control-plane": "true"}, "node-role.kubernetes.io/control-plane"),
        ({"node-restriction.kubernetes.io/pci": "1", "x.node-restriction.kubernetes.io/y": "1"},
         "node-restriction.kubernetes.io/pci, x.node-restriction.kubernetes.io/y"),
        ({"foo.k8s.io/x": "1"}, "foo.k8s.io/x"),
    ],
)
async def test_labels(plugin: NodeRestriction, labels: dict[str, str], refused: str) -> None:
    new, old = {"metadata": {"name": "pi", "labels": labels}, "spec": {}}, {"metadata": {"name": "pi"}, "spec": {}}
    made, changed = asked(catalog.NODE, "CREATE", new), asked(catalog.NODE, "UPDATE", new, old, name="pi")
    if not refused:
        await plugin.validate(made)
        await plugin.validate(changed)
        return
    assert await refusal(plugin, made) == f'node "pi" is not allowed to set the following labels: {refused}'
    assert await refusal(plugin, changed) == f"is not allowed to modify labels: {refused}"
    assert await refusal(plugin, asked(catalog.NODE, "UPDATE", old, new, name="pi")) == f"is not allowed to modify labels: {refused}"


async def test_nodes(plugin: NodeRestriction) -> None:
    node = {"metadata": {"name": "pi"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    await plugin.validate(asked(catalog.NODE, "CREATE", node))
    why = 'node "pi" is not allowed to modify taints'
    assert await refusal(plugin, asked(catalog.NODE, "UPDATE", node | {"spec": {}}, node, name="pi")) == why
    await plugin.validate(asked(catalog.NODE, "UPDATE", node, node, name="pi", sub="status"))
    other = {"metadata": {"name": "other"}, "spec": {}}
    assert await refusal(plugin, asked(catalog.NODE, "UPDATE", other, other, name="other")) == 'node "pi" is not allowed to modify node "other"'


@pytest.mark.parametrize(
    ("bound", "why"),
    [
        ({"apiVersion": "v1", "kind": "Pod", "name": "mine", "uid": "uid-mine"}, ""),
        (None, "node requested token not bound to a pod"),
        ({"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "x"}, "node requested token not bound to a pod"),
        ({"apiVersion": "v1", "kind": "Pod", "name": "mine"}, "node requested token with a pod binding without a uid"),
        ({"apiVersion": "v1", "kind": "Pod", "name": "theirs", "uid": "uid-theirs"}, "node requested token bound to a pod scheduled on a different node"),
        ({"apiVersion": "v1", "kind": "Pod", "name": "mine", "uid": "old"},
         "the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated"),
    ],
)
async def test_tokens(plugin: NodeRestriction, bound: dict[str, str] | None, why: str) -> None:
    request = asked(catalog.SERVICE_ACCOUNT, "CREATE", {"spec": {"boundObjectRef": bound}}, name="x", sub="token")
    if why:
        assert await refusal(plugin, request) == why
    else:
        await plugin.validate(request)


async def test_leases(plugin: NodeRestriction) -> None:
    lease = {"metadata": {"name": "pi"}}
    await plugin.validate(asked(catalog.LEASE, "CREATE", lease, namespace="kube-node-lease"))
    await plugin.validate(asked(catalog.LEASE, "UPDATE", lease, lease, name="pi", namespace="kube-node-lease"))
    why = "can only access node lease with the same name as the requesting node"
    assert await refusal(plugin, asked(catalog.LEASE, "CREATE", {"metadata": {"name": "b"}}, namespace="kube-node-lease")) == why
    assert "system namespace" in await refusal(plugin, asked(catalog.LEASE, "UPDATE", lease, lease, name="pi", namespace="kube-system"))


async def test_pod_ranges_are_not_a_nodes_to_choose(plugin: NodeRestriction) -> None:
    """Everybody would send it what is for the pods of others."""
    for spec in ({"podCIDR": "10.42.0.0/16"}, {"podCIDRs": ["10.42.0.0/16"]}):
        node = {"metadata": {"name": "pi"}, "spec": spec}
        why = 'node "pi" is not allowed to set its pod ranges'
        assert await refusal(plugin, asked(catalog.NODE, "CREATE", node, name="pi")) == why
        assert await refusal(plugin, asked(catalog.NODE, "UPDATE", node, {"metadata": {"name": "pi"}, "spec": {}}, name="pi")) == why
        await plugin.validate(asked(catalog.NODE, "UPDATE", node, node, name="pi"))


async def test_addresses_of_pods_are_of_their_nodes_ranges() -> None:
    """Else a stolen node would lead a Service to wherever it likes, and past the policies that know pods by their addresses."""
    world = World()
    await world.put(catalog.NODE, "pi", spec={"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24", "fd42:1::/64"]})
    plugin = NodeRestriction(world.objects)

    def pod(*addresses: str, **spec: Any) -> dict[str, Any]:
        status = {"podIP": addresses[0], "podIPs": [{"ip": one} for one in addresses]} if addresses else {}
        return {"metadata": {"name": "mine"}, "spec": {"nodeName": "pi", **spec}, "status": status}

    def writes(new: dict[str, Any], old: dict[str, Any]) -> Admission:
        return asked(catalog.POD, "UPDATE", new, old, name="mine", sub="status")

    await plugin.validate(writes(pod("10.42.1.7", "fd42:1::7"), pod()))
    for wrong in ("10.42.2.7", "192.0.2.1", "169.254.169.254", "fd42:2::7"):
        why = f'node "pi" cannot give a pod the address {wrong}, which is not in its pod ranges'
        assert await refusal(plugin, writes(pod(wrong), pod("10.42.1.7"))) == why
        assert await refusal(plugin, writes(pod("10.42.1.7", wrong), pod("10.42.1.7"))) == why
        await plugin.validate(writes(pod(wrong), pod(wrong)))  # the node has a new range, its pods are older
        await plugin.validate(writes(pod(wrong, hostNetwork=True), pod(hostNetwork=True)))
    await world.put(catalog.NODE, "pi")
    await plugin.validate(writes(pod("192.0.2.1"), pod()))  # nobody has given it a range


async def test_addresses_of_nodes_are_none_of_pods_or_services() -> None:
    world = World()
    await world.put(catalog.NODE, "other", spec={"podCIDRs": ["10.42.2.0/24"]})
    await world.put(catalog.SERVICE, "dns", "kube-system", spec={"clusterIP": "10.43.0.10", "clusterIPs": ["10.43.0.10"]})
    plugin = NodeRestriction(world.objects)

    def node(*addresses: str) -> dict[str, Any]:
        return {"metadata": {"name": "pi"}, "status": {"addresses": [{"type": "ExternalIP", "address": one} for one in addresses]}}

    for sub, operation in (("", "CREATE"), ("status", "UPDATE")):
        await plugin.validate(asked(catalog.NODE, operation, node("192.0.2.1", "pi.lan"), node(), name="pi", sub=sub))
        for wrong in ("10.43.0.10", "10.42.2.9"):
            why = f'node "pi" cannot have the address {wrong}, which is one of a pod or a Service'
            assert await refusal(plugin, asked(catalog.NODE, operation, node("192.0.2.1", wrong), node("192.0.2.1"), name="pi", sub=sub)) == why
    await plugin.validate(asked(catalog.NODE, "UPDATE", node("10.42.2.9"), node("10.42.2.9"), name="pi", sub="status"))
    await world.put(catalog.NODE, "pi", spec={"podCIDRs": ["10.42.1.0/24"]})
    await plugin.validate(asked(catalog.NODE, "UPDATE", node("10.42.1.1"), node(), name="pi", sub="status"))  # nothing but `lo`


@pytest.mark.parametrize(
    ("pod", "audiences", "why"),
    [
        ("mine", [], ""),
        ("mine", ["vault"], ""),
        ("mine", ["granted"], ""),
        ("mine", ["bank"], 'audience "bank" not found in pod spec volume, system:node:pi is not authorized to request tokens for this audience'),
        ("mine", ["vault", "granted"], "node may only request 0 or 1 audiences"),
        ("plain", [], 'audience "" not found in pod spec volume, system:node:pi is not authorized to request tokens for this audience'),
    ],
)
async def test_audiences_of_tokens(plugin: NodeRestriction, pod: str, audiences: list[str], why: str) -> None:
    class Grants:
        def authorize(self, attributes: Attributes) -> Decision:
            return Decision((attributes.verb, attributes.resource) == ("request-serviceaccounts-token-audience", "granted"))

    plugin._authorizer = Grants()
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": f"uid-{pod}"}
    request = asked(catalog.SERVICE_ACCOUNT, "CREATE", {"spec": {"boundObjectRef": bound, "audiences": audiences}}, name="x", sub="token")
    if why:
        assert await refusal(plugin, request) == why
    else:
        await plugin.validate(request)
