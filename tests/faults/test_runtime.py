"""A node whose parts are stopped and killed under it: it says what is wrong, comes back by itself, and no pod notices."""

import contextlib
import json
import os
import random
import signal
from pathlib import Path

import pytest

from tests.e2e.manifests import IMAGE, pod
from tests.kit.cluster import Cluster, cluster, wait_until
from tests.kit.images import archive
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "kubectl", "busybox")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "busybox.tar"
    archive(path)
    with cluster() as found:
        found.edgekube("images", "import", str(path))
        yield found


@pytest.fixture
def space(site):
    name = f"t-{random.randrange(1 << 32):08x}"
    site.kubectl("create", "namespace", name)
    yield name
    site.kubectl("delete", "namespace", name, "--timeout=60s")


def deployment(replicas: int, version: str) -> str:
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}, annotations: {{version: "{version}"}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: main, image: {IMAGE}, command: [sleep, "3600"]}}]
"""


def service_pid(site: Cluster) -> int:
    return int(json.loads((site.run_dir / "podman" / "service.json").read_text())["pid"])


def ready(site: Cluster) -> dict[str, str]:
    return next(entry for entry in site.get("node", "node-1")["status"]["conditions"] if entry["type"] == "Ready")


def containers(site: Cluster, space: str) -> list[tuple[str, int]]:
    items = site.get("pods", "-n", space)["items"]
    return sorted(
        (one.get("containerID", ""), one["restartCount"]) for item in items for one in item["status"].get("containerStatuses", ())
    )


def processes(*words: str) -> list[int]:
    """Those whose command line has all the words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if all(word in line for word in words):
                found.append(int(entry.name))
    return found


def run_pod(site: Cluster, space: str, name: str = "steady") -> None:
    site.kubectl("-n", space, "apply", "-f", "-", stdin=pod(name, "echo here; exec sleep 3600"))
    site.kubectl("-n", space, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")


def test_podman_is_killed(site, space):
    run_pod(site, space)
    before, pid = containers(site, space), service_pid(site)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: service_pid(site) != pid, seconds=15, what="a new service")
    wait_until(lambda: ready(site)["status"] == "True", seconds=15)
    assert site.kubectl("-n", space, "exec", "steady", "--", "echo", "hello") == "hello\n"
    assert site.kubectl("-n", space, "logs", "steady") == "here\n"
    assert containers(site, space) == before
    run_pod(site, space, "later")


def test_podman_hangs(site, space):
    run_pod(site, space)
    before, pid = containers(site, space), service_pid(site)
    os.kill(pid, signal.SIGSTOP)
    try:
        said = wait_until(lambda: (found := ready(site))["status"] == "False" and found, seconds=30, what="the node says so")
        assert said["reason"] == "KubeletNotReady"
        assert said["message"].startswith("container runtime is down")
        assert site.kubectl("-n", space, "logs", "steady") == "here\n"
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: ready(site)["status"] == "True", seconds=15, what="the node is well again")
    assert containers(site, space) == before


def test_a_monitor_is_killed(site, space):
    run_pod(site, space)
    ((container, _),) = containers(site, space)
    (monitor,) = processes("conmon", container.rpartition("/")[2])
    os.kill(monitor, signal.SIGKILL)
    # Nobody stands between the two: the process runs on, and its end is still noticed.
    assert site.kubectl("-n", space, "exec", "steady", "--", "echo", "hello") == "hello\n"
    assert containers(site, space) == [(container, 0)]
    (main,) = (pid for pid in processes("sleep 3600") if container.rpartition("/")[2] in Path(f"/proc/{pid}/cgroup").read_text())
    os.kill(main, signal.SIGKILL)
    wait_until(
        lambda: (now := containers(site, space)) and now[0][0] != container and now[0][1] == 1 and now,
        seconds=20,
        what="the container runs again",
    )
    site.kubectl("-n", space, "wait", "--for=condition=Ready", "pod/steady", "--timeout=15s")
    wait_until(lambda: not processes(container.rpartition("/")[2]), what="nothing is left of the old container")


def test_kill_9_during_a_rolling_update(site, space):
    chance = random.Random(20)
    site.kubectl("-n", space, "apply", "-f", "-", stdin=deployment(2, "1"))
    acknowledged = []
    for life in range(5):
        site.kubectl("-n", space, "apply", "-f", "-", stdin=deployment(3, str(life + 2)))
        for number in range(chance.randrange(1, 4)):
            site.kubectl("-n", space, "create", "configmap", f"kept-{life}-{number}")
            acknowledged.append(f"kept-{life}-{number}")
        site.kill()
        site.start()
    site.kubectl("-n", space, "rollout", "status", "deployment/web", "--timeout=60s")
    wait_until(lambda: len(containers(site, space)) == 3, what="the old pods are gone")
    assert [count for _, count in containers(site, space)] == [0, 0, 0]
    kept = {item["metadata"]["name"] for item in site.get("configmaps", "-n", space)["items"]}
    assert kept.issuperset(acknowledged)


def test_kill_9_leaves_nothing_of_deleted_pods(site, space):
    uids: set[str] = set()
    for life in range(3):
        site.kubectl("-n", space, "apply", "-f", "-", stdin=deployment(4, "1"))
        wait_until(lambda: [1 for _, count in containers(site, space) if count == 0])
        uids |= {item["metadata"]["uid"] for item in site.get("pods", "-n", space)["items"]}
        site.kubectl("-n", space, "delete", "deployment", "web", "--wait=false") if life else None
        site.kill()
        site.start()
    site.kubectl("-n", space, "delete", "deployment", "web", "--ignore-not-found", "--timeout=30s")
    wait_until(lambda: not site.get("pods", "-n", space)["items"], what="all pods are gone")
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not leftovers(site, uids), seconds=20)
    assert leftovers(site, uids) == []


def leftovers(site: Cluster, uids: set[str]) -> list[str]:
    """Mounts, folders, control groups, links and processes of pods that are gone."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if any(uid in line for uid in uids)]
    folders = [str(path) for uid in uids for root in (site.data, site.run_dir) for path in root.glob(f"pods/*{uid}*")]
    groups = [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if any(uid in folder for uid in uids)]
    links = [line for line in site.inside("ip", "-o", "link", "show", "type", "veth").splitlines() if line]
    return mounts + folders + groups + links + [str(pid) for pid in processes("conmon", str(site.run_dir))]
