"""Cordon, drain, taints and the deletion of a node with the real kubectl, on one node."""

import pytest

from tests.e2e.manifests import pod, web
from tests.kit.cluster import cluster, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")


@pytest.fixture(scope="module")
def box(image):
    with cluster() as found:
        found.edgekube("images", "import", str(image))
        yield found


def names(box, selector):
    return [entry["metadata"]["name"] for entry in box.get("pods", "-l", selector)["items"] if "deletionTimestamp" not in entry["metadata"]]


def test_cordon_drain_uncordon(box):
    box.apply(web(2))
    box.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    box.apply(pod("bare", "sleep 3600", spec="volumes: [{name: v, emptyDir: {}}]", container="volumeMounts: [{name: v, mountPath: /v}]"))
    box.kubectl("wait", "--for=condition=Ready", "pod/bare", "--timeout=30s")
    assert "cannot delete Pods with local storage (use --delete-emptydir-data to override): default/bare" in box.fails("drain", "node-1")
    refused = box.fails("drain", "node-1", "--delete-emptydir-data")
    assert "declare no controller (use --force to override)" in refused
    assert "default/bare" in refused
    before = names(box, "app=web")
    box.kubectl("drain", "node-1", "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s")
    node = box.get("node", "node-1")
    assert node["spec"]["unschedulable"]
    wait_until(lambda: ("node.kubernetes.io/unschedulable", "NoSchedule") in taints(box))
    wait_until(lambda: len(names(box, "app=web")) == 2 and not set(before) & set(names(box, "app=web")))
    assert all(entry["status"]["phase"] == "Pending" for entry in box.get("pods", "-l", "app=web")["items"])
    box.kubectl("uncordon", "node-1")
    box.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    wait_until(lambda: not taints(box))


def taints(box):
    return [(taint["key"], taint["effect"]) for taint in box.get("node", "node-1")["spec"].get("taints", ())]


def test_a_no_execute_taint_sends_pods_away_and_its_removal_lets_them_back(box):
    tolerate = "tolerations: [{key: out, operator: Exists}]"
    box.apply(pod("hardy", "sleep 3600", spec=tolerate))
    box.kubectl("wait", "--for=condition=Ready", "pod/hardy", "--timeout=30s")
    before = names(box, "app=web")
    box.kubectl("taint", "node", "node-1", "out=now:NoExecute")
    wait_until(lambda: not set(before) & set(names(box, "app=web")), what="they leave")
    assert box.get("pod", "hardy")["status"]["phase"] == "Running"
    box.kubectl("taint", "node", "node-1", "out-")
    box.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert "Marking for deletion Pod default/" in box.kubectl("get", "events", "--field-selector=reason=TaintManagerEviction")


def test_a_deleted_node_registers_again_and_keeps_its_pods(box):
    def ready():
        found = box.kubectl("get", "node", "node-1", "--ignore-not-found", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
        return found == "True"

    before = box.get("node", "node-1")["metadata"]["uid"]
    container = box.get("pod", "hardy")["status"]["containerStatuses"][0]["containerID"]
    box.kubectl("delete", "node", "node-1")
    wait_until(ready, what="the node is back")
    node = box.get("node", "node-1")
    assert node["metadata"]["uid"] != before
    assert box.get("pod", "hardy")["status"]["containerStatuses"][0]["containerID"] == container
    lease = wait_until(lambda: owner(box) == node["metadata"]["uid"], seconds=40, what="its Lease belongs to the new Node")
    assert lease


def owner(box):
    found = box.kubectl("get", "lease", "-n", "kube-node-lease", "node-1", "--ignore-not-found", "-o", "jsonpath={.metadata.ownerReferences[0].uid}")
    return found
