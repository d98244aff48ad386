"""Policies between nodes: each node judges its own pods, by addresses that the server tells it; with the server away as before."""

import re
import signal

import pytest

from tests.e2e.manifests import IMAGE
from tests.kit.machine import CommandFailed
from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

FROM_FRIENDS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends, namespace: default}
spec:
  podSelector: {matchLabels: {role: web}}
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: web}]}]
"""


def pod(name, node, role):
    command = f"while true; do nc -l -p 8080 -e echo {name}; done"
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{role: {role}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: main, image: {IMAGE}, command: [sh, -c, "{command}"], ports: [{{name: web, containerPort: 8080}}]}}
"""


@pytest.fixture(scope="module")
def pair():
    with fleet(agents=1) as found:
        agent, server = found.agents[0].name, found.server.name
        found.apply("".join([pod("web", agent, "web"), pod("near", agent, "friend"), pod("far", server, "friend"), pod("stranger", server, "none"), pod("other", agent, "none")]))
        found.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        yield found


def address(found, name):
    return found.get("pod", name)["status"]["podIP"]


def asks(found, source, target):
    """Whether the pod `source` gets an answer from an address."""
    return bool(found.kubectl("exec", source, "--", "sh", "-c", f"nc -w 1 {target} 8080 2>/dev/null || true").strip())


def answers(found, target):
    return {name for name in ("near", "far", "stranger") if asks(found, name, target)}


def table(node):
    return node.machine.run("sh", "-c", "nft list ruleset | grep -v counter | sed -n '/_policy {/,/^}/p'")


def test_pods_of_other_nodes_are_judged_by_their_labels(pair):
    web = address(pair, "web")
    assert answers(pair, web) == {"near", "far", "stranger"}
    pair.apply(FROM_FRIENDS)
    wait_until(lambda: not asks(pair, "stranger", web), seconds=5)
    assert answers(pair, web) == {"near", "far"}
    pair.kubectl("label", "pod", "stranger", "role=friend", "--overwrite")
    wait_until(lambda: asks(pair, "stranger", web), seconds=5)
    pair.kubectl("label", "pod", "stranger", "role=none", "--overwrite")
    wait_until(lambda: not asks(pair, "stranger", web), seconds=5)
    assert "_policy" not in table(pair.server)  # no pod of its own is selected


def test_a_restarted_server_and_a_restarted_agent_without_it_change_no_rule(pair):
    server, agent = pair.server, pair.agents[0]
    pair.apply(FROM_FRIENDS)
    wait_until(lambda: address(pair, "far") in table(agent))
    before = table(agent)
    server.kill(signal.SIGKILL)
    server.start()
    assert table(agent) == before
    pair.ready()
    wait_until(lambda: pair.get("policyslices", "-A")["items"][1:])  # found again, and told that they are all
    assert table(agent) == before
    server.kill(signal.SIGKILL)
    agent.kill(signal.SIGKILL)
    assert table(agent) == before
    agent.start()
    agent.machine.run("nft", "flush", "ruleset")
    wait_until(lambda: table(agent) == before, seconds=10, what="the rules are back without a server")
    server.start()
    pair.ready()
    assert table(agent) == before
    wait_until(lambda: reachable(pair), what="kubelets can be reached again")
    assert answers(pair, address(pair, "web")) == {"near", "far"}


def reachable(found):
    try:
        return all(found.kubectl("exec", name, "--", "true") == "" for name in ("near", "far"))
    except CommandFailed:
        return False


def asks_alone(node, source, target):
    """The same from inside a pod of a node that has no server."""
    pid = f"$(for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q 'sh -c while.*echo {source};' && basename $p; done | head -1)"
    return bool(node.machine.sh(f"nsenter -t {pid} -n busybox nc -w 1 {target} 8080 < /dev/null", check=False).strip())


def test_a_node_that_boots_without_its_server_isolates_its_pods(pair):
    server, agent = pair.server, pair.agents[0]
    pair.apply(FROM_FRIENDS)
    wait_until(lambda: address(pair, "far") in table(agent))
    wait_until(lambda: asks(pair, "near", address(pair, "web")))
    server.kill()
    agent.power_off()
    agent.machine.boot()
    agent.start()

    def isolated():
        """The address that the isolated pod has now."""
        found = re.search(r"map in4 {[^}]*elements = { ([0-9.]+) :", agent.machine.sh("nft list ruleset"))
        return found[1] if found else ""

    web = wait_until(isolated, seconds=30, what="the pod is isolated")
    wait_until(lambda: asks_alone(agent, "near", web), seconds=30, what="its friend of this node is admitted")
    others = set(re.findall(r"^(10[0-9.]+) dev ek", agent.machine.sh("ip route"), re.MULTILINE)) - {web}
    assert any(asks_alone(agent, "other", target) for target in others)
    assert not asks_alone(agent, "other", web)
    server.start()
    pair.ready()
    wait_until(lambda: reachable(pair), what="kubelets can be reached again")
    wait_until(lambda: answers(pair, address(pair, "web")) == {"near", "far"})
