"""What pods, nodes and namespaces get, or are refused, at admission."""

from typing import Any

import pytest

from edgekube.api import catalog
from edgekube.api.kind import Kind
from edgekube.apiserver.admission.namespaces import NamespaceLifecycle
from edgekube.apiserver.admission.pods import DefaultTolerationSeconds, Priority, TaintNodesByCondition
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.admission.serviceaccount import MOUNT_PATH, ServiceAccountAdmission
from edgekube.apiserver.identity import User
from edgekube.errors import Forbidden, NotFound
from tests.unit.apiserver.world import World


@pytest.fixture
async def world() -> World:
    return World()


def asked(
    kind: Kind, obj: Any, operation: str = "CREATE", *, old: Any = None, name: str = "x", namespace: str = "a", sub: str = ""
) -> Admission:
    return Admission(operation, kind, namespace if kind.namespaced else "", name, sub, User("ann"), obj, old)


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c"}]} | spec}


async def test_missing_namespace(world: World) -> None:
    with pytest.raises(NotFound, match='namespaces "a" not found'):
        await NamespaceLifecycle(world.objects).mutate(asked(catalog.POD, pod()))


async def test_terminating_namespace_takes_nothing_new(world: World) -> None:
    plugin = NamespaceLifecycle(world.objects)
    await world.put(catalog.NAMESPACE, "a", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}, status={"phase": "Terminating"})
    with pytest.raises(Forbidden) as caught:
        await plugin.mutate(asked(catalog.POD, pod()))
    assert caught.value.message == 'pods "x" is forbidden: unable to create new content in namespace a because it is being terminated'
    assert (caught.value.details or {})["causes"][0]["reason"] == "NamespaceTerminating"
    await plugin.mutate(asked(catalog.POD, pod(), "UPDATE"))
    await plugin.validate(asked(catalog.POD, None, "DELETE"))


async def test_three_namespaces_stay(world: World) -> None:
    plugin = NamespaceLifecycle(world.objects)
    with pytest.raises(Forbidden, match='namespaces "default" is forbidden: this namespace may not be deleted'):
        await plugin.validate(asked(catalog.NAMESPACE, None, "DELETE", name="default"))
    await plugin.validate(asked(catalog.NAMESPACE, None, "DELETE", name="other"))


async def test_default_service_account_and_its_token(world: World) -> None:
    await world.put(catalog.SERVICE_ACCOUNT, "default", "a", imagePullSecrets=[{"name": "reg"}])
    obj = pod(
        initContainers=[{"name": "i"}], containers=[{"name": "c"}, {"name": "d", "volumeMounts": [{"name": "v", "mountPath": MOUNT_PATH}]}]
    )
    await ServiceAccountAdmission(world.objects).mutate(asked(catalog.POD, obj))
    spec = obj["spec"]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("default", "default")
    assert spec["imagePullSecrets"] == [{"name": "reg"}]
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    assert len(volume["name"]) == len("kube-api-access-") + 5
    assert [next(iter(source)) for source in volume["projected"]["sources"]] == ["serviceAccountToken", "configMap", "downwardAPI"]
    assert volume["projected"]["sources"][0]["serviceAccountToken"] == {"expirationSeconds": 3607, "path": "token"}
    mount = {"name": volume["name"], "readOnly": True, "mountPath": MOUNT_PATH}
    assert spec["initContainers"][0]["volumeMounts"] == [mount]
    assert spec["containers"][0]["volumeMounts"] == [mount]
    assert spec["containers"][1]["volumeMounts"] == [{"name": "v", "mountPath": MOUNT_PATH}]


@pytest.mark.parametrize(
    ("of_pod", "of_account", "mounted"), [(None, None, True), (False, None, False), (None, False, False), (True, False, True)]
)
async def test_automount(world: World, of_pod: bool | None, of_account: bool | None, mounted: bool) -> None:
    more = {} if of_account is None else {"automountServiceAccountToken": of_account}
    await world.put(catalog.SERVICE_ACCOUNT, "default", "a", **more)
    obj = pod(**({} if of_pod is None else {"automountServiceAccountToken": of_pod}))
    await ServiceAccountAdmission(world.objects).mutate(asked(catalog.POD, obj))
    assert bool(obj["spec"].get("volumes")) is mounted


async def test_unknown_service_account(world: World) -> None:
    with pytest.raises(Forbidden) as caught:
        await ServiceAccountAdmission(world.objects).mutate(asked(catalog.POD, pod(serviceAccountName="who")))
    assert caught.value.message == 'pods "x" is forbidden: error looking up service account a/who: serviceaccount "who" not found'


async def test_default_account_of_a_new_namespace_is_waited_for(world: World) -> None:
    import asyncio

    obj = pod()
    async with asyncio.TaskGroup() as group:
        group.create_task(ServiceAccountAdmission(world.objects).mutate(asked(catalog.POD, obj)))
        await asyncio.sleep(0)
        group.create_task(world.put(catalog.SERVICE_ACCOUNT, "default", "a"))
    assert obj["spec"]["serviceAccountName"] == "default"


async def test_mirror_pod_is_left_alone(world: World) -> None:
    obj = pod()
    obj["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    await ServiceAccountAdmission(world.objects).mutate(asked(catalog.POD, obj))
    assert "serviceAccountName" not in obj["spec"]


async def test_secrets_not_listed_are_refused_where_the_account_says_so(world: World) -> None:
    metadata = {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}
    await world.put(catalog.SERVICE_ACCOUNT, "default", "a", metadata=metadata, secrets=[{"name": "ok"}])
    plugin = ServiceAccountAdmission(world.objects)
    await plugin.mutate(asked(catalog.POD, pod(volumes=[{"name": "v", "secret": {"secretName": "ok"}}])))
    with pytest.raises(Forbidden, match="does not reference that secret"):
        await plugin.mutate(asked(catalog.POD, pod(volumes=[{"name": "v", "secret": {"secretName": "other"}}])))


async def test_priority_comes_from_the_class(world: World) -> None:
    plugin = Priority(world.objects)
    await world.put(catalog.PRIORITY_CLASS, "high", value=1000, preemptionPolicy="Never")
    obj = pod(priorityClassName="high")
    await plugin.mutate(asked(catalog.POD, obj))
    assert (obj["spec"]["priority"], obj["spec"]["preemptionPolicy"]) == (1000, "Never")
    obj = pod()
    await plugin.mutate(asked(catalog.POD, obj))
    assert (obj["spec"]["priority"], obj["spec"]["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    with pytest.raises(Forbidden, match="no PriorityClass with name nope was found"):
        await plugin.mutate(asked(catalog.POD, pod(priorityClassName="nope")))
    with pytest.raises(Forbidden, match=r"the integer value of priority \(5\) must not be provided in pod spec"):
        await plugin.mutate(asked(catalog.POD, pod(priority=5)))


async def test_only_one_default_priority(world: World) -> None:
    plugin = Priority(world.objects)
    await world.put(catalog.PRIORITY_CLASS, "normal", value=7, globalDefault=True)
    obj = pod()
    await plugin.mutate(asked(catalog.POD, obj))
    assert (obj["spec"]["priority"], obj["spec"]["priorityClassName"]) == (7, "normal")
    other = {"metadata": {"name": "other"}, "value": 1, "globalDefault": True}
    with pytest.raises(Forbidden, match="PriorityClass normal is already marked as default. Only one default can exist"):
        await plugin.validate(asked(catalog.PRIORITY_CLASS, other, name="other"))


async def test_tolerations() -> None:
    obj = pod(tolerations=[{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 5}])
    await DefaultTolerationSeconds().mutate(asked(catalog.POD, obj))
    assert [(one["key"], one["tolerationSeconds"]) for one in obj["spec"]["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 5),
        ("node.kubernetes.io/unreachable", 300),
    ]
    everything = pod(tolerations=[{"operator": "Exists"}])
    await DefaultTolerationSeconds().mutate(asked(catalog.POD, everything))
    assert everything["spec"]["tolerations"] == [{"operator": "Exists"}]


async def test_new_nodes_are_not_ready() -> None:
    node: dict[str, Any] = {"metadata": {"name": "pi"}}
    for _ in range(2):
        await TaintNodesByCondition().mutate(asked(catalog.NODE, node))
    assert node["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
