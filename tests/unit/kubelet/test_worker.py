"""The kubelet's pods end to end on the fake runtime, against a live API server."""

import asyncio

import pytest

from edgekube.api.catalog import CONFIG_MAP, POD
from edgekube.kubelet.runtime.protocol import RuntimeFailure
from tests.kit.node import condition, container, live_node, pod


@pytest.fixture
async def node(tmp_path):
    async with live_node(tmp_path) as found:
        yield found


def main_of(node, name="main"):
    """The newest container of that name in the fake runtime."""
    return max((one for one in node.runtime.ran.values() if one.info.name == name), key=lambda one: one.info.attempt)


async def test_a_pod_runs_and_is_deleted(node):
    await node.apply(pod())
    found = await node.ready("web")
    status = found["status"]
    assert status["phase"] == "Running"
    assert status["podIP"] == "10.42.0.2"
    assert status["hostIP"] == "192.0.2.10"
    assert container(found)["containerID"].startswith("podman://")
    assert container(found)["started"] is True
    await node.client.delete(POD, "web", "default")
    await node.absent("web")
    assert node.runtime.ran == {}
    assert node.groups.made == {}
    assert node.network.given == {}
    reasons = [reason for reason, _ in await node.events("web")]
    assert {"Pulled", "Created", "Started", "Killing"} <= set(reasons)


async def test_a_kubelet_restart_adopts(node):
    await node.apply(pod())
    before = await node.ready("web")
    running = dict(node.runtime.ran)
    await node.stop()
    assert node.runtime.ran == running
    await node.start()
    await node.apply(pod("other"))
    await node.ready("other")
    after = await node.get("web")
    assert container(after) == container(before)
    assert after["status"]["conditions"] == before["status"]["conditions"]
    assert set(running) <= set(node.runtime.ran)


async def test_what_ended_meanwhile_is_restarted_once(node):
    await node.apply(pod())
    await node.ready("web")
    await node.stop()
    node.runtime.exit(main_of(node).info.id, 3)
    await node.start()
    found = await node.until("web", lambda p: container(p).get("restartCount") == 1 and "running" in container(p)["state"])
    assert container(found)["lastState"]["terminated"]["exitCode"] == 3


async def test_orphans_are_removed_at_start(node):
    await node.apply(pod())
    await node.ready("web")
    await node.stop()
    await node.client.delete(POD, "web", "default", grace_seconds=0)
    await node.start()
    async with asyncio.timeout(10):
        while node.runtime.ran or await node.runtime.sandboxes() or node.groups.made:
            await asyncio.sleep(0.01)


async def test_crash_loop(node):
    await node.apply(pod(command=("sh", "-c", "exit 7")))
    found = await node.until("web", lambda p: container(p).get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff")
    entry = container(found)
    assert entry["restartCount"] == 1
    assert entry["lastState"]["terminated"]["exitCode"] == 7
    assert entry["lastState"]["terminated"]["reason"] == "Error"
    assert entry["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=main pod=web_default(")
    assert found["status"]["phase"] == "Running"
    assert condition(found, "Ready")["reason"] == "ContainersNotReady"
    assert (await node.event("web", "BackOff")).startswith("Back-off restarting failed container main in pod web_default(")


@pytest.mark.parametrize(("policy", "command", "phase"), [
    ("Never", ("sh", "-c", "exit 0"), "Succeeded"), ("Never", ("sh", "-c", "exit 1"), "Failed"), ("OnFailure", ("sh", "-c", "exit 0"), "Succeeded"),
])  # fmt: skip
async def test_pods_that_end(node, policy, command, phase):
    await node.apply(pod(command=command, restartPolicy=policy))
    found = await node.phase("web", phase)
    assert "terminated" in container(found)["state"]
    assert condition(found, "Ready")["reason"] == ("PodCompleted" if phase == "Succeeded" else "PodFailed")
    async with asyncio.timeout(10):
        while node.runtime.ran:  # containers go once the API knows
            await asyncio.sleep(0.01)
    again = await node.get("web")
    await node.stop()
    await node.start()
    await node.apply(pod("other"))
    await node.ready("other")
    assert (await node.get("web"))["status"] == again["status"]
    await node.client.delete(POD, "web", "default")
    await node.absent("web")


async def test_init_containers_run_in_order(node):
    inits = [{"name": name, "image": "busybox:test", "command": ["sh", "-c", "exit 0"]} for name in ("one", "two")]
    inits.insert(1, {"name": "beside", "image": "busybox:test", "command": ["sleep", "1000"], "restartPolicy": "Always"})
    await node.apply(pod(initContainers=inits))
    found = await node.ready("web")
    started = [what for method, what in node.runtime.calls if method == "create"]
    assert started == ["one", "beside", "two", "main"]
    assert container(found, "one")["ready"] is True
    assert container(found, "beside")["started"] is True
    await node.client.delete(POD, "web", "default")
    await node.absent("web")
    ends = [what for method, what in node.runtime.calls if method == "stop"]
    assert len(ends) == 2
    assert int(ends[0], 16) > int(ends[1], 16)  # the main container, started last, ends before the sidecar


async def test_a_failing_init_container_ends_a_never_pod(node):
    init = {"name": "setup", "image": "busybox:test", "command": ["sh", "-c", "exit 5"]}
    await node.apply(pod(initContainers=[init], restartPolicy="Never"))
    found = await node.phase("web", "Failed")
    assert container(found, "setup")["state"]["terminated"]["exitCode"] == 5


async def test_a_missing_config_map_is_waited_for(node):
    refers = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}}]
    own = {"name": "main", "image": "busybox:test", "command": ["sleep", "1000"], "env": refers}
    await node.apply(pod(containers=[own]))
    found = await node.until(
        "web", lambda p: container(p).get("state", {}).get("waiting", {}).get("reason") == "CreateContainerConfigError"
    )
    assert container(found)["state"]["waiting"]["message"] == 'configmap "cm" not found'
    assert found["status"]["phase"] == "Pending"
    await node.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "default"}, "data": {"a": "b"}}, CONFIG_MAP
    )
    await node.ready("web")
    assert ("A", "b") in main_of(node).spec.env


async def test_images_that_cannot_be_had(node):
    own = {"name": "main", "image": "nowhere.example/x:1", "command": ["sleep"]}
    never = {"name": "main", "image": "nowhere.example/y:1", "imagePullPolicy": "Never"}
    await node.apply(pod(containers=[own]))
    await node.apply(pod("never", containers=[never]))
    found = await node.until(
        "web", lambda p: container(p).get("state", {}).get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff")
    )
    assert found["status"]["phase"] == "Pending"
    found = await node.until("never", lambda p: container(p).get("state", {}).get("waiting", {}).get("reason") == "ErrImageNeverPull")
    assert (
        container(found)["state"]["waiting"]["message"] == 'Container image "nowhere.example/y:1" is not present with pull policy of Never'
    )


async def test_liveness_restarts_and_readiness_gates_traffic(node):
    node.runtime.commands[("true",)] = (1, b"not today")
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1, "failureThreshold": 1}
    own = {"name": "main", "image": "busybox:test", "command": ["sleep", "1000"], "livenessProbe": probe}
    await node.apply(pod(containers=[own]))
    await node.until("web", lambda p: container(p).get("restartCount", 0) >= 1)
    assert await node.event("web", "Unhealthy") == "Liveness probe failed: not today"
    assert await node.event("web", "Killing") == "Container main failed liveness probe, will be restarted"
    found = await node.until("web", lambda p: container(p)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff")
    assert container(found)["restartCount"] == 2  # the first restart is free, the second counts from the end of the first attempt


async def test_readiness_follows_the_probe(node):
    node.runtime.commands[("true",)] = (1, b"no")
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    own = {"name": "main", "image": "busybox:test", "command": ["sleep", "1000"], "readinessProbe": probe}
    await node.apply(pod(containers=[own]))
    await node.phase("web", "Running")
    found = await node.get("web")
    assert condition(found, "Ready")["status"] == "False"
    assert condition(found, "Ready")["message"] == "containers with unready status: [main]"
    del node.runtime.commands[("true",)]
    await node.ready("web")


async def test_active_deadline(node):
    await node.apply(pod(activeDeadlineSeconds=1))
    found = await node.phase("web", "Failed")
    assert found["status"]["reason"] == "DeadlineExceeded"
    assert found["status"]["message"] == "Pod was active on the node longer than the specified deadline"
    assert await node.event("web", "DeadlineExceeded") == "Pod was active on the node longer than the specified deadline"


async def test_a_pod_too_big_is_refused(node):
    own = {"name": "main", "image": "busybox:test", "resources": {"requests": {"cpu": "1000"}}}
    await node.apply(pod(containers=[own]))
    found = await node.phase("web", "Failed")
    assert found["status"]["reason"] == "OutOfcpu"
    assert found["status"]["message"].startswith("Pod was rejected: Node didn't have enough resource: cpu, requested: 1000000, used: ")
    assert node.runtime.ran == {}


async def test_less_grace_ends_the_wait(node):
    node.runtime.ignores_term.add("main")
    await node.apply(pod(terminationGracePeriodSeconds=600))
    await node.ready("web")
    await node.client.delete(POD, "web", "default")
    await node.event("web", "Killing")
    await node.client.delete(POD, "web", "default", grace_seconds=1)
    await node.absent("web")


async def test_a_runtime_that_is_down_leaves_pods_alone(node):
    await node.apply(pod())
    before = await node.ready("web")
    node.runtime.down = True
    node.kubelet._wake(before["metadata"]["uid"])
    await asyncio.sleep(0.05)
    node.runtime.down = False
    node.kubelet._wake(before["metadata"]["uid"])
    await node.apply(pod("other"))
    await node.ready("other")
    assert container(await node.get("web")) == container(before)


async def test_a_container_that_cannot_start(node):
    node.runtime.refuse["create"] = RuntimeFailure("CreateContainerError", "no luck")
    await node.apply(pod())
    found = await node.until("web", lambda p: container(p).get("state", {}).get("waiting", {}).get("reason") == "CreateContainerError")
    assert container(found)["state"]["waiting"]["message"] == "no luck"
    await node.client.delete(POD, "web", "default")
    await node.absent("web")


async def test_a_failed_post_start_hook_ends_the_container(node):
    node.runtime.commands[("echo", "up")] = (1, b"nope")
    hooks = {"postStart": {"exec": {"command": ["echo", "up"]}}}
    await node.apply(pod(containers=[{"name": "main", "image": "busybox:test", "command": ["sleep", "1000"], "lifecycle": hooks}]))
    assert (await node.event("web", "FailedPostStartHook")).startswith("PostStartHook failed: ")
    await node.until("web", lambda p: container(p).get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff")


async def test_pre_stop_runs_before_the_end(node):
    node.runtime.commands[("echo", "down")] = (1, b"nope")
    hooks = {"preStop": {"exec": {"command": ["echo", "down"]}}}
    await node.apply(pod(containers=[{"name": "main", "image": "busybox:test", "command": ["sleep", "1000"], "lifecycle": hooks}]))
    await node.ready("web")
    await node.client.delete(POD, "web", "default")
    await node.absent("web")
    assert (await node.event("web", "FailedPreStopHook")).startswith("PreStopHook failed: ")
    methods = [method for method, _ in node.runtime.calls if method in ("run_command", "stop")]
    assert methods == ["run_command", "stop"]


async def test_after_a_reboot_pods_start_again_and_counts_go_on(node):
    await node.apply(pod())
    await node.apply(pod("job", restartPolicy="Never"))
    await node.ready("web")
    await node.ready("job")
    await node.stop()
    node.runtime.ran.clear()
    node.runtime._boxes.clear()
    node.groups.made.clear()
    node.network.given.clear()
    await node.start()
    found = await node.until("web", lambda p: container(p)["restartCount"] == 1 and "running" in container(p)["state"])
    assert container(found)["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    job = await node.phase("job", "Failed")
    assert container(job)["state"]["terminated"]["exitCode"] == 137


async def test_foreign_conditions_survive(node):
    await node.apply(pod(readinessGates=[{"conditionType": "example.com/gate"}]))
    found = await node.phase("web", "Running")
    found = await node.until("web", lambda p: condition(p, "Ready").get("reason") == "ReadinessGatesNotReady")
    assert condition(found, "Ready")["message"] == 'corresponding condition of pod readiness gate "example.com/gate" does not exist.'
    gate = {"type": "example.com/gate", "status": "True"}
    found["status"]["conditions"].append(gate)
    await node.client.update(POD, found, subresource="status")
    await node.ready("web")


async def test_a_volume_beyond_its_limit_evicts_the_pod(node):
    volumes = [{"name": "small", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "free", "emptyDir": {}}]
    await node.apply(pod(volumes=volumes))
    uid = (await node.ready("web"))["metadata"]["uid"]
    folder = node.config.pods_dir / uid / "volumes" / "kubernetes.io~empty-dir"
    (folder / "free" / "file").write_bytes(b"x" * (2 << 20))
    (folder / "small" / "file").write_bytes(b"x" * (2 << 20))
    node.kubelet._agent.kick()
    found = await node.phase("web", "Failed")
    assert found["status"]["reason"] == "Evicted"
    assert found["status"]["message"] == 'Usage of EmptyDir volume "small" exceeds the limit "1Mi". '
    assert await node.event("web", "Evicted") == 'Usage of EmptyDir volume "small" exceeds the limit "1Mi". '
