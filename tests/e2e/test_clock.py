"""A machine with only `lo`, no default route and a clock in 1970 is a working cluster; nothing happens to it when the clock jumps."""

import sys
import time

import pytest

from tests.e2e.manifests import pod, web
from tests.kit.cluster import Cluster, CommandFailed, cluster, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

YEARS = 3 * 365 * 86400
ASK = """
import ssl, sys, urllib.request as u
asked = u.Request("https://127.0.0.1:6443/api", headers={"Authorization": "Bearer " + sys.argv[1]})
print(u.urlopen(asked, context=ssl._create_unverified_context(), timeout=5).read().decode())
"""


@pytest.fixture(scope="module")
def box(image, tmp_path_factory):
    """Its clock began at 1970-01-01; `shift` says by how much it is wrong."""
    offset = tmp_path_factory.mktemp("clock") / "offset"
    offset.write_text(str(-time.time()))
    with cluster(f"--test-clock-offset-file={offset}") as found:
        assert found.inside("ip", "route") == "", "no default route"
        found.edgekube("images", "import", str(image))
        found.shift = lambda seconds: offset.write_text(str(seconds))
        yield found


def jumps(box: Cluster) -> list[str]:
    """The Events of the Node, newest last."""
    found = box.get("events", "--field-selector=involvedObject.kind=Node,reason=ClockJumped")["items"]
    return [event["message"] for event in sorted(found, key=lambda event: event["metadata"]["name"])]


def state(box: Cluster) -> object:
    """What must not change: pods, their containers, restarts, and since when the node is ready."""
    pods = [
        (pod["metadata"]["uid"], entry["containerID"], entry["restartCount"], entry["ready"])
        for pod in box.get("pods")["items"]
        for entry in pod["status"]["containerStatuses"]
    ]
    conditions = box.get("node", "node-1")["status"]["conditions"]
    ready = next(entry for entry in conditions if entry["type"] == "Ready")
    return sorted(pods), ready["status"], ready["lastTransitionTime"]


def answers(box: Cluster) -> None:
    """Names, ClusterIPs and the pod's own token work."""
    assert box.kubectl("exec", "client", "--", "wget", "-q", "-O", "-", "http://web").strip().startswith("web-")
    token = box.kubectl("exec", "client", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    assert "APIVersions" in box.inside(sys.executable, "-c", ASK, token)


def test_it_starts_and_serves_in_1970(box: Cluster) -> None:
    box.apply(web(2) + "---" + pod("client", "sleep 3600"))
    box.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    box.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    answers(box)
    assert box.get("pod", "client")["metadata"]["creationTimestamp"] > "2026", "nothing is written into the past"


@pytest.mark.parametrize(("seconds", "message"), [(0, "forward by"), (YEARS, "forward by 1095d0h"), (0, "back by 1095d0h")])
def test_a_jump_is_told_and_nothing_else_happens(box: Cluster, seconds: int, message: str) -> None:
    before, told = state(box), len(jumps(box))
    box.shift(seconds)
    wait_until(lambda: len(jumps(box)) > told, what="an Event")
    assert message in jumps(box)[-1]
    answers(box)
    box.apply(pod(f"p{told}", "sleep 3600"))
    box.kubectl("wait", "--for=condition=Ready", f"pod/p{told}", "--timeout=60s")
    box.kubectl("delete", "pod", f"p{told}", "--timeout=30s")
    box.kubectl("rollout", "restart", "deployment/web")
    box.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    box.kubectl("rollout", "undo", "deployment/web")
    box.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    client = [entry for entry in before[0] if entry in state(box)[0]]
    assert client, "the pod that nobody touched is the same"
    assert state(box)[1:] == before[1:], "the node did not flap"


def test_a_restart_of_the_server_keeps_everything(box: Cluster) -> None:
    before = state(box)
    box.stop()
    box.start()
    assert state(box) == before
    wait_until(lambda: kubelet_answers(box), what="the kubelet's API")
    answers(box)


def kubelet_answers(box: Cluster) -> bool:
    try:
        return box.kubectl("get", "--raw", "/api/v1/nodes/node-1/proxy/healthz") == "ok"
    except CommandFailed:
        return False
