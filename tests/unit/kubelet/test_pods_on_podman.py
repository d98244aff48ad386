"""Whole pods on the real runtime: what containers see of volumes, environment and host files, how they end, and what is left afterwards."""

import asyncio

import pytest

from edgekube.api.catalog import CONFIG_MAP, POD
from edgekube.kubelet.config import KubeletConfig
from tests.kit.images import archive
from tests.kit.node import NODE_NAME, container, live_node, pod
from tests.kit.requires import needs
from tests.kit.runtimes import place, running

pytestmark = [needs("root", "podman", "busybox"), pytest.mark.slow]

FOREVER = ["sh", "-c", "trap 'exit 3' TERM; while true; do sleep 0.1; done"]


@pytest.fixture
async def node():
    with place() as where:
        async with running(where.runtime()) as runtime:
            archive(where.base / "busybox.tar")
            await runtime.load_image(where.base / "busybox.tar")
            config = KubeletConfig(
                node_name=NODE_NAME, data_dir=where.config.data_dir, run_dir=where.config.run_dir, pod_logs=where.config.log_dir,
                eviction_memory=1 << 20, eviction_disk_fraction=0.0, eviction_inodes_fraction=0.0,
            )  # fmt: skip
            async with live_node(where.base, runtime=runtime, groups=where.groups, config=config) as found:
                yield found


async def sh(node, found, command):
    """Output of a command in the pod's main container."""
    code, output = await node.runtime.run_command(container(found)["containerID"].split("//")[1], ["sh", "-c", command], timeout=10)
    assert code == 0, output
    return output.decode()


def config_map(**data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "default"}, "data": data}


async def test_what_a_container_sees(node):
    root_ca = config_map(**{"ca.crt": "CA"}) | {"metadata": {"name": "kube-root-ca.crt", "namespace": "default"}}
    await node.apply(root_ca, CONFIG_MAP)
    cm = await node.apply(config_map(a="1"), CONFIG_MAP)
    own = {
        "name": "main", "image": "busybox:test", "command": FOREVER,
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "volumeMounts": [
            {"name": "cm", "mountPath": "/cm"}, {"name": "cm", "mountPath": "/one/a", "subPath": "a"}, {"name": "disk", "mountPath": "/disk"},
            {"name": "disk", "mountPath": "/deep", "subPath": "x/y"}, {"name": "memory", "mountPath": "/memory"},
        ],
        "livenessProbe": {"exec": {"command": ["cat", "/cm/a"]}, "periodSeconds": 1},
    }  # fmt: skip
    volumes = [
        {"name": "cm", "configMap": {"name": "cm"}}, {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]  # fmt: skip
    await node.apply(pod(containers=[own], volumes=volumes, automountServiceAccountToken=True, securityContext={"fsGroup": 2000}))
    found = await node.ready("web")
    assert await sh(node, found, "cat /cm/a /one/a; echo $IP; hostname; id -G") == "11" + found["status"]["podIP"] + "\nweb\n0 2000\n"
    assert f"{found['status']['podIP']}\tweb\n" in await sh(node, found, "cat /etc/hosts")
    assert (await sh(node, found, "cat /etc/resolv.conf")).startswith("search default.svc.cluster.local svc.cluster.local cluster.local")
    assert "1024 " in await sh(node, found, "df /memory")
    assert await sh(node, found, "echo x >/deep/f; cat /disk/x/y/f; stat -c %g /disk") == "x\n2000\n"
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert await sh(node, found, f"cat {token}/namespace {token}/ca.crt; cut -c1-2 {token}/token") == "defaultCAey\n"
    await node.client.update(CONFIG_MAP, {**cm, "data": {"a": "2"}})
    async with asyncio.timeout(5):
        while await sh(node, found, "cat /cm/a") != "2":
            await asyncio.sleep(0.01)
    await node.stop()
    await node.start()
    assert container(await node.get("web")) == container(found)
    await sh(node, found, "echo bye >/dev/termination-log; kill -TERM 1")
    found = await node.until("web", lambda p: container(p)["restartCount"] == 1 and "running" in container(p)["state"])
    ended = container(found)["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "bye\n")
    assert await sh(node, found, "cat /deep/f") == "x\n"
    await node.client.delete(POD, "web", "default")
    await node.absent("web")
    assert list(node.config.pods_dir.iterdir()) == []
    assert await node.runtime.containers() == await node.runtime.sandboxes() == []
    assert node.groups.pods() == {}


@pytest.mark.parametrize(("command", "limits", "reason", "code"), [
    (["sh", "-c", "x=a; while true; do x=$x$x; done"], {"memory": "16Mi"}, "OOMKilled", 137),
    (["nonexistent"], {}, "StartError", 128),
    (["false"], {}, "Error", 1),
    (["true"], {}, "Completed", 0),
])  # fmt: skip
async def test_how_containers_end(node, command, limits, reason, code):
    own = {"name": "main", "image": "busybox:test", "command": command, "resources": {"limits": limits}}
    await node.apply(pod(containers=[own], restartPolicy="Never"))
    found = await node.phase("web", "Succeeded" if code == 0 else "Failed")
    ended = container(found)["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == (reason, code)
