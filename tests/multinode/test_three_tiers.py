"""An application of three tiers over three machines, as its owner lives with it: policies, a load balancer, the server's cable pulled while
an agent loses power, and at last every machine gets another address.

One story in order; each step leaves the fleet to the next. The timers of lost nodes are shortened, so that minutes become seconds.
"""

import contextlib

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
            tier("db", "agent-2")
            + tier("api", "agent-1", "db")
            + tier("web", "server", "api", kind="LoadBalancer", port=WEB_PORT)
            + tier("local", "agent-1", "api")
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


def address(f, name):
    return f.get("service", "-n", "shop", name)["spec"]["clusterIP"]


def containers(f):
    found = {}
    for pod in f.get("pods", "-n", "shop")["items"]:
        (status,) = pod["status"]["containerStatuses"]
        found[pod["metadata"]["name"]] = (status["containerID"], status["restartCount"])
    return found


def test_the_load_balancer_answers_on_every_node(shop):
    customer = shop.net.machine("customer", shop.lan)
    balancer = {one["ip"] for one in shop.get("service", "-n", "shop", "web")["status"]["loadBalancer"]["ingress"]}
    assert balancer == {shop.net.address(node.machine) for node in shop.nodes()}
    for ip in balancer:
        wait_until(lambda ip=ip: says(customer, f"http://{ip}:{WEB_PORT}") == "web.api.db.", what=f"{ip} answers")


def test_policies_hold_between_the_machines(shop):
    assert from_pod(shop, "web", "db") == "db."
    shop.apply(_POLICY.format(tier="db", client="api") + _POLICY.format(tier="api", client="web"))
    wait_until(lambda: from_pod(shop, "web", "db") == "", what="the web tier does not reach the database")
    assert from_pod(shop, "web", "api") == "api.db."
    assert from_pod(shop, "local", "api") == ""


def test_the_servers_cable_is_pulled_and_an_agent_reboots_meanwhile(shop):
    server, agent, other = shop.nodes()
    before, api, db = containers(shop), address(shop, "api"), address(shop, "db")
    shop.net.unplug(server.machine)
    wait_until(lambda: shop.condition("agent-1") == "Unknown" == shop.condition("agent-2"), what="the server misses its agents")
    agent.power_off()
    agent.machine.boot()
    agent.start()
    wait_until(lambda: says(agent.machine, f"http://{api}") == "api.db.", seconds=40, what="service, name and pod without the server")
    assert says(other.machine, f"http://{db}") == "db."
    shop.net.plug(server.machine)
    shop.ready()
    wait_until(lambda: from_pod(shop, "web", "api") == "api.db.", what="all tiers are together again")
    after = containers(shop)
    assert {name: after[name] for name in ("db", "web")} == {name: before[name] for name in ("db", "web")}
    assert {name: count for name, (_, count) in after.items()} == {"api": 1, "local": 1, "db": 0, "web": 0}


def test_what_the_server_missed_is_told_and_nothing_restarts(shop):
    before = containers(shop)
    shop.net.unplug(shop.server.machine)
    wait_until(lambda: shop.condition("agent-1") == "Unknown", what="the server misses its agent")
    shop.net.plug(shop.server.machine)
    shop.ready(seconds=20)
    assert containers(shop) == before


def test_every_machine_gets_another_address(shop):
    before = containers(shop)
    shop.net.renumber_lan(shop.lan, "10.98.0.0/24")
    moved = {node.name: shop.net.address(node.machine) for node in shop.nodes()}

    def settled():
        nodes = {node["metadata"]["name"]: node["status"]["addresses"][0]["address"] for node in shop.get("nodes")["items"]}
        return nodes == moved and all(shop.condition(name) == "True" for name in moved)

    wait_until(settled, seconds=30, what="all nodes are Ready under their new addresses")
    wait_until(lambda: from_pod(shop, "web", "api") == "api.db.", what="pods reach each other again")
    customer = shop.net.machines["customer"]
    for ip in moved.values():
        wait_until(lambda ip=ip: says(customer, f"http://{ip}:{WEB_PORT}") == "web.api.db.", what=f"the load balancer moved to {ip}")
    assert containers(shop) == before
