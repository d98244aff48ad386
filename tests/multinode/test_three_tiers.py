"""An application of three tiers over three machines, as its owner lives with it: policies, a load balancer, the server's cable pulled while
an agent loses power, and at last every machine gets another address.

One story in order; each step leaves the fleet to the next. The timers of lost nodes are shortened, so that minutes become seconds.
"""

import contextlib
import time

import pytest

from tests.kit.machine import CommandFailed
from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

WEB_PORT = 8088
# A tier answers with its own name and with what the next tier says.
_APP = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{tier: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: Never
    command:
    - sh
    - -c
    - |
      mkdir -p /www/cgi-bin
      cat >/www/cgi-bin/say <<'END'
      #!/bin/sh
      printf 'Content-Type: text/plain\\r\\n\\r\\n{name}.'
      {then}
      END
      busybox chmod +x /www/cgi-bin/say
      exec httpd -f -p 8080 -h /www
    readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{type: {kind}, selector: {{tier: {name}}}, ports: [{{port: {port}, targetPort: 8080}}]}}
---
"""
_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {tier}, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{tier: {tier}}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{tier: {client}}}}}}}], ports: [{{port: 8080}}]}}]
---
"""


def ask(name: str) -> str:
    """A shell line that asks a tier by its Service's name (the static busybox has no resolver: its wget would die of a name)."""
    address = f"$(nslookup -type=a {name}.shop.svc.cluster.local | awk '/^Address: /{{print $2}}')"
    return f"printf 'GET /cgi-bin/say HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} 80 | sed '1,/^\\r*$/d'"


def tier(name: str, node: str, then: str = "", *, kind: str = "ClusterIP", port: int = 80) -> str:
    call = ask(then) if then else ":"
    return _APP.format(name=name, node=node, kind=kind, port=port, then=call)


@pytest.fixture(scope="module")
def shop():
    flags = ("--node-monitor-grace-seconds=4",)
    with fleet(agents=2, server_flags=flags) as f:
        f.kubectl("create", "namespace", "shop")
        f.apply(
            tier("db", "agent-1")
            + tier("api", "agent-2", "db")
            + tier("web", "agent-2", "api", kind="LoadBalancer", port=WEB_PORT)
            + tier("stranger", "server", "api")
        )
        f.kubectl("wait", "-n", "shop", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        yield f


def says(machine, url):
    with contextlib.suppress(CommandFailed):
        return machine.fetch(f"{url}/cgi-bin/say")
    return ""


def from_pod(f, name, other):
    """What the pod `name` gets from the Service `other`."""
    with contextlib.suppress(CommandFailed):
        return f.kubectl("exec", "-n", "shop", name, "--", "sh", "-c", ask(other))
    return ""


def containers(f):
    found = {}
    for pod in f.get("pods", "-n", "shop")["items"]:
        (status,) = pod["status"]["containerStatuses"]
        found[pod["metadata"]["name"]] = (status["containerID"], status["restartCount"])
    return found


@pytest.fixture(scope="module")
def customer(shop):
    """A machine outside of the cluster."""
    return shop.net.machine("customer", shop.lan)


def quiet(path):
    """True once the file has not changed for two seconds: a node that has lost its server writes down what it knows, once."""
    seen = [path.stat().st_mtime_ns, time.monotonic()]

    def look():
        if path.stat().st_mtime_ns != seen[0]:
            seen[:] = [path.stat().st_mtime_ns, time.monotonic()]
        return time.monotonic() - seen[1] > 2

    return look


def serves(shop, customer, *nodes):
    """The whole application, through each of these nodes."""
    for node in nodes:
        url = f"http://{shop.net.address(node.machine)}:{WEB_PORT}"
        wait_until(lambda url=url: says(customer, url) == "web.api.db.", seconds=40, what=f"{url} answers")


def test_the_load_balancer_answers_on_every_node(shop, customer):
    balancer = {one["ip"] for one in shop.get("service", "-n", "shop", "web")["status"]["loadBalancer"]["ingress"]}
    assert balancer == {shop.net.address(node.machine) for node in shop.nodes()}
    serves(shop, customer, *shop.nodes())


def test_policies_hold_between_the_machines(shop, customer):
    assert from_pod(shop, "stranger", "db") == "db."
    shop.apply(_POLICY.format(tier="db", client="api") + _POLICY.format(tier="api", client="web"))
    wait_until(lambda: from_pod(shop, "stranger", "db") == "", what="a stranger does not reach the database")
    assert from_pod(shop, "stranger", "api") == ""
    assert from_pod(shop, "web", "db") == ""
    serves(shop, customer, *shop.nodes())


def test_the_servers_cable_is_pulled_and_a_node_loses_its_power_meanwhile(shop, customer):
    server, node, other = shop.nodes()
    before, offset = containers(shop), node.log.stat().st_size
    shop.net.unplug(server.machine)
    wait_until(lambda: shop.condition("agent-1") == "Unknown" == shop.condition("agent-2"), what="the server misses its agents")
    node.says("connection to the server lost", offset=offset)
    wait_until(quiet(node.data / "agent" / "state"), what="what the node has heard of is on its disk")
    serves(shop, customer, other)
    node.power_off()
    node.machine.boot()
    node.start()
    serves(shop, customer, node, other)
    shop.net.plug(server.machine)
    shop.ready()
    serves(shop, customer, server, node, other)
    wait_until(lambda: containers(shop)["db"][1] == 1, what="the server hears of the one restart")
    after = containers(shop)
    assert {name: after[name] for name in ("api", "web", "stranger")} == {name: before[name] for name in ("api", "web", "stranger")}


def test_nothing_restarts_when_a_server_was_missed(shop, customer):
    before = containers(shop)
    shop.net.unplug(shop.server.machine)
    wait_until(lambda: shop.condition("agent-1") == "Unknown", what="the server misses its agent")
    shop.net.plug(shop.server.machine)
    shop.ready()
    serves(shop, customer, *shop.nodes())
    assert containers(shop) == before


def test_every_machine_gets_another_address(shop, customer):
    before = containers(shop)
    shop.net.renumber_lan(shop.lan, "10.98.0.0/24")
    moved = {node.name: shop.net.address(node.machine) for node in shop.nodes()}

    def settled():
        nodes = {node["metadata"]["name"]: node["status"]["addresses"][0]["address"] for node in shop.get("nodes")["items"]}
        return nodes == moved and all(shop.condition(name) == "True" for name in moved)

    wait_until(settled, seconds=30, what="all nodes are Ready under their new addresses")
    serves(shop, customer, *shop.nodes())
    balancer = {one["ip"] for one in shop.get("service", "-n", "shop", "web")["status"]["loadBalancer"]["ingress"]}
    assert balancer == set(moved.values())
    assert containers(shop) == before
