"""A kubelet whose server goes away: it starts from what it remembers, keeps its pods running, and nothing restarts when the server is back."""

import asyncio
import contextlib
import logging
import subprocess

import pytest

from edgekube.api.catalog import CONFIG_MAP, NODE, POD, SECRET
from edgekube.lib.backoff import Backoff
from edgekube.lib.files import mounts_below
from tests.kit.cable import Cable
from tests.kit.fake_runtime import FakeRuntime
from tests.kit.node import NODE_NAME, FakeGroups, FakeNetwork, condition, container, live_node, pod
from tests.kit.remembering import remembering
from tests.kit.until import until


class Away:
    """A node with a cable to its server, and what a reboot does to it."""

    def __init__(self, node, folder):
        self.node, self.folder = node, folder
        self.cable = Cable(node.local())
        self._stack = contextlib.AsyncExitStack()
        self.client = None

    async def start(self, **options):
        self.client = await self._stack.enter_async_context(remembering(self.folder, self.cable))
        await self.node.start(self.client, notes=self.client.notes, **options)

    async def stop(self):
        await self.node.stop()
        self.node._task = None
        await self._stack.aclose()

    def reboot(self):
        """Containers, sandboxes and addresses are gone; images stay."""
        self.node.runtime, self.node.network, self.node.groups = FakeRuntime(), FakeNetwork(), FakeGroups()

    def running(self, name="main"):
        return [one for one in self.node.runtime.ran.values() if one.info.name == name and one.info.state == "running"]


@pytest.fixture
async def away(tmp_path):
    async with live_node(tmp_path, start=False) as node:
        found = Away(node, tmp_path / "agent")
        yield found
        if node._task is not None:
            await found.stop()
    for point in mounts_below(tmp_path):  # volumes stay when a kubelet stops
        subprocess.run(["umount", point], check=True)


def with_objects(name="web"):
    """Uses a Secret in env, a ConfigMap as a volume, a service account token."""
    env = [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]
    mounts = [{"name": "files", "mountPath": "/files"}, {"name": "token", "mountPath": "/token"}]
    main = {"name": "main", "image": "busybox:test", "command": ["sleep", "1000"], "env": env, "volumeMounts": mounts}
    sources = [{"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]
    volumes = [{"name": "files", "configMap": {"name": "files"}}, {"name": "token", "projected": {"sources": sources}}]
    return pod(name, containers=[main], volumes=volumes)


async def make_objects(node):
    await node.apply({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "db", "namespace": "default"}, "stringData": {"password": "hunter2"}}, SECRET)
    await node.apply({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "files", "namespace": "default"}, "data": {"a": "1"}}, CONFIG_MAP)


async def test_a_reboot_without_the_server(away):
    node = away.node
    await make_objects(node)
    await away.start()
    await node.apply(pod("before"))
    await node.ready("before")
    made = await node.apply(with_objects())
    first = await node.ready("web")
    await node.client.delete(POD, "before", "default", grace_seconds=0)
    async with asyncio.timeout(5):
        await until(lambda: len(node.kubelet._workers) == 1)
    uid = made["metadata"]["uid"]
    token = (node.config.pods_dir / uid / "volumes/kubernetes.io~projected/token/token").read_text()
    await away.stop()
    data = b"".join(path.read_bytes() for path in away.folder.rglob("*") if path.is_file())
    assert b"hunter2" not in data
    assert token.encode()[:40] not in data
    away.reboot()
    away.cable.pull()
    async with asyncio.timeout(10):
        await away.start()
        await until(away.running)
    (started,) = away.running()
    assert started.info.pod.uid == uid
    assert dict(started.spec.env)["PASSWORD"] == "hunter2"
    assert (node.config.pods_dir / uid / "volumes/kubernetes.io~configmap/files/a").read_text() == "1"
    assert (node.config.pods_dir / uid / "volumes/kubernetes.io~projected/token/token").read_text() == token
    assert started.info.attempt == container(first)["restartCount"] + 1  # as after any reboot
    assert node.network.given[uid] == first["status"]["podIP"]  # Services still send there
    away.cable.plug()
    back = await node.until("web", lambda p: container(p)["restartCount"] == 1 and condition(p, "Ready")["status"] == "True")
    assert container(back)["containerID"] == f"podman://{started.info.id}"
    assert [one.info.id for one in away.running()] == [started.info.id]


async def test_nothing_restarts_when_the_server_is_back(away, caplog):
    caplog.set_level(logging.INFO)
    node = away.node
    await away.start()
    for name in ("stays", "goes", "again"):
        await node.apply(pod(name))
    before = await node.ready("stays")
    await node.ready("goes")
    await node.ready("again")
    away.cable.pull()
    await until(lambda: away.client.contact.away)
    (main,) = [one for one in away.running() if one.info.pod.name == "stays"]
    await node.client.delete(POD, "goes", "default", grace_seconds=0)
    await node.client.delete(POD, "again", "default", grace_seconds=0)
    await node.apply(pod("again"))
    await node.apply(pod("new"))
    await asyncio.sleep(0.3)
    assert sorted(one.info.pod.name for one in away.running()) == ["again", "goes", "stays"]
    away.cable.plug()
    async with asyncio.timeout(10):
        await node.ready("new")
        await node.ready("again")
        await until(lambda: sorted(one.info.pod.name for one in away.running()) == ["again", "new", "stays"])
    after = await node.get("stays")
    assert container(after) == container(before)
    assert main.info.id in {one.info.id for one in away.running()}
    lines = [record.message for record in caplog.records if record.levelno > logging.INFO]
    assert [line for line in lines if "contact" in line or "watch" in line] == ["contact with the server lost; going on with what is remembered"]


async def test_containers_are_restarted_while_the_server_is_away_and_the_status_told_once(away):
    node = away.node
    await away.start()
    await node.apply(pod("web"))
    await node.ready("web")
    away.cable.pull()
    node.runtime.exit(away.running()[0].info.id, 1)
    async with asyncio.timeout(10):
        await until(lambda: away.running() and away.running()[0].info.attempt == 1)
        again = away.running()[0].info.id
        calls = len(away.cable.calls)
        away.cable.plug()
        found = await node.until("web", lambda p: container(p)["restartCount"] == 1 and container(p)["ready"])
    assert container(found)["containerID"] == f"podman://{again}"
    await asyncio.sleep(0.3)
    assert away.cable.calls[calls:].count("update") <= 4  # the pod's status, the node's, the lease
    assert [one.info.id for one in away.running()] == [again]


async def test_after_a_long_silence_statuses_do_not_wait(away):
    """The reporter's own back-off has grown to half a minute by then."""
    node = away.node
    await away.start()
    await node.apply(pod("web"))
    await node.ready("web")
    away.cable.pull()
    node.kubelet._reporter._backoff = Backoff(base=60.0, cap=60.0)
    node.runtime.exit(away.running()[0].info.id, 1)
    async with asyncio.timeout(10):
        await until(lambda: away.running() and away.running()[0].info.attempt == 1)
        node.kubelet._agent.kick()
        await until(lambda: node.kubelet._agent.silent)
        away.cable.plug()
        node.kubelet._agent.kick()
        await node.until("web", lambda p: container(p)["restartCount"] == 1 and container(p)["ready"])


async def test_a_count_reached_alone_survives_a_reboot_alone(away):
    node = away.node
    await away.start()
    await node.apply(pod("web"))
    await node.ready("web")
    away.cable.pull()
    node.runtime.exit(away.running()[0].info.id, 1)
    await until(lambda: away.running() and away.running()[0].info.attempt == 1)
    await until(lambda: "update" in away.cable.calls[-20:])
    await asyncio.sleep(0.5)  # until the status was tried to be told
    for boot in (2, 3):
        await away.stop()
        away.reboot()
        async with asyncio.timeout(10):
            await away.start()
            await until(away.running)
        assert away.running()[0].info.attempt == boot
        await asyncio.sleep(0.5)
    away.cable.plug()
    await node.until("web", lambda p: container(p)["restartCount"] == 3 and container(p)["ready"])


async def test_nothing_unknown_is_removed_before_the_server_has_spoken(away):
    """A pod that came too late to be remembered still runs: only the server can say that it is no more."""
    node = away.node
    await away.start()
    await node.apply(pod("old"))
    await node.ready("old")
    await away.stop()
    state = (away.folder / "state").read_bytes()
    await away.start()
    await node.apply(pod("young"))
    await node.ready("young")
    await away.stop()
    (away.folder / "state").write_bytes(state)  # the power went before the write
    away.cable.pull()
    await away.start()
    await until(lambda: len(node.kubelet._workers) == 1)
    await asyncio.sleep(0.3)
    assert sorted(one.info.pod.name for one in away.running()) == ["old", "young"]
    ids = {one.info.id for one in away.running()}
    away.cable.plug()
    async with asyncio.timeout(10):
        await until(lambda: len(node.kubelet._workers) == 2)
        await node.ready("young")
    assert {one.info.id for one in away.running()} == ids
    assert container(await node.get("young"))["restartCount"] == 0


async def test_the_node_is_healthy_again_at_once(away, monkeypatch):
    """Others took it for dead meanwhile."""
    node = away.node
    await away.start()
    away.cable.pull()
    await until(lambda: away.client.contact.away)
    found = await node.client.get(NODE, NODE_NAME)
    for entry in found["status"]["conditions"]:
        if entry["type"] == "Ready":
            entry["status"] = "Unknown"
    await node.client.update(NODE, found, subresource="status")
    away.cable.plug()
    async with asyncio.timeout(5):
        while condition(await node.client.get(NODE, NODE_NAME), "Ready")["status"] != "True":
            await asyncio.sleep(0.02)


async def test_a_node_whose_machine_goes_down_says_so(away):
    node = away.node
    await away.start(machine_stops=lambda: True)
    await node.apply(pod("web"))
    await node.ready("web")
    await node.stop()
    found = condition(await node.client.get(NODE, NODE_NAME), "Ready")
    assert (found["status"], found["reason"], found["message"]) == ("False", "KubeletNotReady", "node is shutting down")
    assert away.running(), "its pods are ended by app.shutdown"


async def test_a_pod_that_must_not_run_is_not_started(away):
    node, refused = away.node, ["fenced: no contact for 60s"]
    await away.start(may_run=lambda _pod: refused[0])
    await node.apply(pod("web"))
    found = await node.until("web", lambda p: "waiting" in container(p).get("state", {}))
    await asyncio.sleep(0.1)
    found = await node.get("web")
    assert container(found)["state"]["waiting"] == {"reason": "NotAllowed", "message": "fenced: no contact for 60s"}
    assert not away.running()
    refused[0] = None
    node.kubelet.recheck()
    await node.ready("web")


async def test_a_flood_of_events_is_bounded_and_silent(away, caplog):
    caplog.set_level(logging.INFO)
    node = away.node
    await away.start()
    await node.apply(pod("web"))
    found = await node.ready("web")
    away.cable.pull()
    events = node.kubelet._node.events
    for number in range(5000):
        events.pod(found, "Testing", f"number {number}", warning=True)
    assert node.kubelet._recorder._queue.qsize() <= 1000
    await asyncio.sleep(0.2)
    assert len([record for record in caplog.records if "event" in record.message]) <= 1
    away.cable.plug()
