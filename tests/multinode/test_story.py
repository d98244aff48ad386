"""The whole of it, as somebody with three machines sees it.

Two commands a machine make a cluster. An application of three tiers with Services, policies and a load balancer spans it. The server's cable
is pulled, a node loses its power meanwhile and comes back: the application answers. The cable goes in again: nothing is restarted. Every
machine gets another address: the nodes are ready at once, with the same kubeconfig.
"""

import time

import pytest

from tests.e2e.manifests import IMAGE, pod
from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

GATHER = 2  # seconds after which all that a node has heard of is on its disk, once it hears no more
LINGER = 20  # seconds that the server's cable is out after the node is back


def tier(name, node, answer, source, kind="ClusterIP"):
    """A pod that answers with one line, its Service, and a policy: only `source` may ask it."""
    serve = f"while true; do nc -l -p 8080 -e sh -c '{answer}'; done"
    rule = f"from: [{{podSelector: {{matchLabels: {{app: {source}}}}}}}]" if source else "{}"
    ingress = f"[{{{rule}}}]" if source else "[{}]"
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: main, image: "{IMAGE}", command: [sh, -c, "{serve}"]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{type: {kind}, selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}}}
spec: {{podSelector: {{matchLabels: {{app: {name}}}}}, policyTypes: [Ingress], ingress: {ingress}}}
"""


@pytest.fixture(scope="module")
def f():
    with fleet(agents=2) as found:
        found.visitor = found.machine("visitor")  # outside of the cluster
        found.apply(tier("db", "agent-1", "echo row", "api"))
        found.apply(tier("api", "agent-2", "echo api $(nc -w 3 db 80)", "web"))
        found.apply(tier("web", "agent-2", "echo web $(nc -w 3 api 80)", "", "LoadBalancer"))
        found.apply(pod("stranger", "sleep 36000", spec="nodeName: agent-2"))
        for name in ("db", "api", "web", "stranger"):
            found.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
        yield found


def visit(f, node):
    """What the application says through one node."""
    return f.visitor.sh(f"busybox nc -w 5 {f.net.address(node.machine)} 80 </dev/null", check=False).strip()


def works(f, *nodes):
    for node in nodes:
        wait_until(lambda node=node: visit(f, node) == "web api row", seconds=30, what=f"the application answers through {node.name}")


def containers(f):
    found = {}
    for item in f.get("pods")["items"]:
        (status,) = item["status"]["containerStatuses"]
        found[item["metadata"]["name"]] = (status["containerID"], status["restartCount"])
    return found


def test_the_tiers_talk_and_nobody_else(f):
    works(f, f.server, *f.agents)
    ingress = f.get("service", "web")["status"]["loadBalancer"]["ingress"]
    assert {one["ip"] for one in ingress} == {f.net.address(node.machine) for node in f.nodes()}
    for name, refused in (("db", True), ("api", True), ("web", False)):
        said = f.kubectl("exec", "stranger", "--", "sh", "-c", f"nc -w 2 {name} 80 </dev/null || echo no").strip()
        assert (said.split("\n")[-1] == "no") == refused, (name, said)


def test_without_a_server_and_with_a_node_that_loses_power(f):
    one, two = f.agents
    f.net.unplug(f.server.machine)
    works(f, two)
    one.says("connection to the server lost", seconds=60)
    time.sleep(GATHER)
    one.power_off()
    one.machine.boot()
    one.start()
    works(f, one, two)
    before_return = time.monotonic()
    while time.monotonic() - before_return < LINGER:
        works(f, one, two)
    f.net.plug(f.server.machine)
    wait_until(lambda: containers(f)["db"][1] == 1, seconds=60, what="the server hears of the one restart")
    f.ready()
    works(f, f.server, one, two)


def test_nothing_is_restarted_when_the_server_is_back(f):
    before = containers(f)
    f.net.unplug(f.server.machine)
    wait_until(lambda: {f.condition(agent.name) for agent in f.agents} == {"Unknown"}, seconds=90, what="the server misses its nodes")
    offsets = [agent.log.stat().st_size for agent in f.agents]
    f.net.plug(f.server.machine)
    for agent, offset in zip(f.agents, offsets, strict=True):
        agent.says("connected to the server", offset=offset)
    f.ready()
    works(f, *f.nodes())
    assert containers(f) == before


def test_every_machine_gets_another_address(f):
    before = containers(f)
    start = time.monotonic()
    f.net.renumber_lan(f.lan, "10.98.7.0/24")
    wanted = {node.name: f.net.address(node.machine) for node in f.nodes()}

    def moved():
        nodes = f.get("nodes")["items"]
        addresses = {
            n["metadata"]["name"]: next(a["address"] for a in n["status"]["addresses"] if a["type"] == "InternalIP") for n in nodes
        }
        ready = {c["status"] for n in nodes for c in n["status"]["conditions"] if c["type"] == "Ready"}
        return addresses == wanted and ready == {"True"}

    wait_until(moved, seconds=30, what="all nodes are ready at their new addresses")
    assert time.monotonic() - start < 15  # 10 on a machine that does nothing else
    works(f, *f.nodes())
    assert containers(f) == before
