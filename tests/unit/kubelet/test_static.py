"""Static pods: files that are pods, with their mirrors in the API, and without any API."""

import asyncio
import contextlib
import json

import pytest

from edgekube.api.catalog import EVENT, NODE, POD
from edgekube.api.types import Key
from edgekube.errors import NotFound
from edgekube.kubelet.static.manifest import Refused, is_mirror, is_static, parse
from edgekube.kubelet.static.mirrors import mirror_of, plan_mirrors
from tests.kit.cable import Cable
from tests.kit.fake_runtime import FakeRuntime
from tests.kit.node import NODE_NAME, condition, container, live_node
from tests.kit.remembering import remembering
from tests.kit.until import until

WEB = f"web-{NODE_NAME}"


def manifest(name="web", command="sleep 1000", **spec):
    own = {"name": "main", "image": "busybox:test", "command": command.split()}
    whole = {"hostNetwork": True, "terminationGracePeriodSeconds": 1, "containers": [own], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": whole})


def parsed(text, path="/m/web.yaml", node="pi"):
    return parse(path, text.encode(), node_name=node, seen="2026-01-01T00:00:00Z")


def test_a_file_is_a_pod_of_this_node():
    pod = parsed(manifest())
    assert pod["metadata"]["name"] == "web-pi"
    assert pod["metadata"]["namespace"] == "default"
    assert pod["spec"]["nodeName"] == "pi"
    assert pod["spec"]["restartPolicy"] == "Always"  # defaults are filled in
    assert pod["spec"]["tolerations"] == [{"operator": "Exists", "effect": "NoExecute"}]
    annotations = pod["metadata"]["annotations"]
    assert annotations["kubernetes.io/config.source"] == "file"
    assert annotations["kubernetes.io/config.hash"] == pod["metadata"]["uid"]
    assert len(pod["metadata"]["uid"]) == 32
    assert is_static(pod)
    assert not is_mirror(pod)


def test_the_uid_is_of_node_file_and_content():
    one = parsed(manifest())["metadata"]["uid"]
    assert parsed(manifest())["metadata"]["uid"] == one
    others = [parsed(manifest(command="sleep 1001")), parsed(manifest(), path="/m/b.yaml"), parsed(manifest(), node="other")]
    assert len({one, *(pod["metadata"]["uid"] for pod in others)}) == 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the file holds no object"),
        ("{", "couldn't parse as pod"),
        ("- a", "the file holds no object"),
        ("kind: Pod", "not a v1 Pod"),
        ("apiVersion: apps/v1\nkind: Deployment", "not a v1 Pod"),
        ("apiVersion: v1\nkind: Pod\nspec: {containers: []}", "name or generateName is required"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}", "spec: Required value"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}", "spec.containers: Required value"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: 7}", "cannot unmarshal"),
        (manifest(serviceAccountName="x"), "static pods may not reference serviceaccounts"),
        (manifest(volumes=[{"name": "v", "secret": {"secretName": "s"}}]), "static pods may not reference secrets"),
        (manifest(volumes=[{"name": "v", "configMap": {"name": "s"}}]), "static pods may not reference configmaps"),
        (manifest(imagePullSecrets=[{"name": "s"}]), "static pods may not reference secrets"),
        (manifest(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "s"}}]), "static pods may not reference persistentvolumeclaims"),
    ],
)
def test_what_is_no_static_pod(text, why):
    with pytest.raises(Refused) as refused:
        parsed(text)
    assert why in str(refused.value)


def test_mirrors_are_planned():
    node = {"metadata": {"name": "pi", "uid": "n"}}
    pod = parsed(manifest())
    key = Key("default", "web-pi")
    mirror = mirror_of(pod, node)
    assert mirror["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Node", "name": "pi", "uid": "n", "controller": True}]
    assert mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] == pod["metadata"]["uid"]
    assert "uid" not in mirror["metadata"]
    older = mirror_of(parsed(manifest(command="true")), node)
    deleting = mirror | {"metadata": mirror["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    ordinary = {"metadata": {"name": "web-pi", "namespace": "default"}}
    cases = [
        ({key: pod}, {}, ([pod], [])),
        ({key: pod}, {key: mirror}, ([], [])),
        ({key: pod}, {key: older}, ([], [older])),
        ({key: pod}, {key: deleting}, ([], [deleting])),
        ({}, {key: mirror}, ([], [mirror])),
        ({key: pod}, {key: ordinary}, ([], [])),
        ({}, {key: ordinary}, ([], [])),
    ]
    for pods, known, plan in cases:
        assert tuple(plan_mirrors(pods, known)) == plan


@pytest.fixture
async def node(tmp_path):
    async with live_node(tmp_path, start=False) as found:
        found.folder = found.config.static_dir
        found.folder.mkdir(parents=True)
        yield found


def running(node):
    return [one for one in node.runtime.ran.values() if one.info.state == "running"]


async def appears(node, name=WEB, *, but=None):
    """The mirror, once there is one, or another than `but`."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(NotFound):
                found = await node.get(name)
                if but is None or found["metadata"]["uid"] != but["metadata"]["uid"]:
                    return found
            await asyncio.sleep(0.01)


async def test_a_static_pod_and_its_mirror(node):
    (node.folder / "web.yaml").write_text(manifest())
    (node.folder / "notes.txt").write_text("not a manifest")
    (node.folder / ".hidden.yaml").write_text(manifest("hidden"))
    await node.start()
    await appears(node)
    mirror = await node.ready(WEB)
    own = (await node.client.get(NODE, NODE_NAME))["metadata"]["uid"]
    assert mirror["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": NODE_NAME, "uid": own, "controller": True}
    ]
    (one,) = running(node)
    assert container(mirror)["containerID"] == f"podman://{one.info.id}"
    assert one.info.pod.uid == mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"]

    await node.client.delete(POD, WEB, "default")  # nobody ends it through the API
    await appears(node, but=mirror)
    again = await node.ready(WEB)
    assert container(again) == container(mirror)
    assert [found.info.id for found in running(node)] == [one.info.id]

    node.runtime.exit(one.info.id, 1)
    await node.until(WEB, lambda p: container(p)["restartCount"] == 1 and condition(p, "Ready")["status"] == "True")


async def test_files_that_come_change_and_go(node):
    await node.start()
    (node.folder / "web.yaml").write_text(manifest())
    await appears(node)
    first = await node.ready(WEB)
    (node.folder / ".web.tmp").write_text(manifest(command="sleep 2000"))
    (node.folder / ".web.tmp").rename(node.folder / "web.yaml")
    await appears(node, but=first)
    second = await node.ready(WEB)
    assert container(second)["restartCount"] == 0  # another pod
    (one,) = running(node)
    assert one.spec.command == ["sleep", "2000"]
    (node.folder / "web.yaml").unlink()
    await node.absent(WEB)
    async with asyncio.timeout(10):
        await until(lambda: not running(node) and not node.kubelet._workers)


async def test_a_broken_file_changes_nothing_and_is_told(node, caplog):
    (node.folder / "web.yaml").write_text(manifest())
    await node.start()
    await appears(node)
    before = await node.ready(WEB)
    (node.folder / "web.yaml").write_text(manifest()[:-10])
    (node.folder / "other.yaml").write_text("kind: Pod\napiVersion: v1\n")
    async with asyncio.timeout(10):
        told = []
        while len(told) < 2:
            await asyncio.sleep(0.02)
            events = [item.decode() for item in (await node.client.list(EVENT, "default")).items]
            told = sorted(event["message"] for event in events if event["reason"] == "StaticPodRefused")
    assert told[0].startswith("other.yaml: invalid pod: metadata.name")
    assert told[1].startswith("web.yaml: couldn't parse as pod(")
    after = await node.get(WEB)
    assert (after["metadata"]["uid"], container(after)) == (before["metadata"]["uid"], container(before))
    assert caplog.text.count("static pod refused") == 2


async def test_a_restart_finds_it_again(node):
    (node.folder / "web.yaml").write_text(manifest())
    await node.start()
    await appears(node)
    before = await node.ready(WEB)
    await node.stop()
    await node.start()
    async with asyncio.timeout(10):
        await until(lambda: len(node.kubelet._workers) == 1)
    await asyncio.sleep(0.3)
    after = await node.get(WEB)
    assert (after["metadata"]["uid"], container(after)) == (before["metadata"]["uid"], container(before))
    assert len(running(node)) == 1


async def test_no_server_ever(node, tmp_path):
    (node.folder / "web.yaml").write_text(manifest())
    cable = Cable(node.local(), plugged=False)
    async with remembering(tmp_path / "agent", cable) as client:
        await node.start(client)
        async with asyncio.timeout(10):
            await until(lambda: running(node))
        (one,) = running(node)
        cable.plug()
        await appears(node)
        mirror = await node.ready(WEB)
        assert container(mirror)["containerID"] == f"podman://{one.info.id}"
        await node.stop()
        node._task = None


async def test_edited_while_nobody_looked_and_no_server(node, tmp_path):
    """Never two versions of one pod."""
    (node.folder / "web.yaml").write_text(manifest())
    cable = Cable(node.local())
    async with remembering(tmp_path / "agent", cable) as client:
        await node.start(client)
        await appears(node)
        await node.ready(WEB)
        await node.stop()
        (node.folder / "web.yaml").write_text(manifest(command="sleep 2000"))
        cable.pull()
        await node.start(client)
        async with asyncio.timeout(10):
            await until(lambda: [one.spec.command for one in running(node)] == [["sleep", "2000"]])
        before = await node.get(WEB)
        cable.plug()
        await appears(node, but=before)
        await node.until(WEB, lambda p: container(p).get("containerID") == f"podman://{running(node)[0].info.id}")
        await node.stop()
        node._task = None


async def test_restart_counts_survive_a_reboot(node):
    (node.folder / "web.yaml").write_text(manifest())
    await node.start()
    await appears(node)
    await node.ready(WEB)
    await node.stop()
    node.runtime = FakeRuntime()
    await node.start()
    await node.until(WEB, lambda p: container(p)["restartCount"] == 1 and condition(p, "Ready")["status"] == "True")
