"""Services across nodes: a NodePort on every node for a pod on one, Local policies, and load balancers that follow their endpoints."""

import json

import pytest

from tests.e2e.manifests import IMAGE
from tests.kit.machine import CommandFailed
from tests.kit.nodes import wait_until
from tests.kit.requires import needs

pytestmark = [needs("root", "podman", "netns", "nft", "busybox", "kubectl"), pytest.mark.slow]

SCRIPT = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\necho $REMOTE_ADDR\n"


def who(name, node):
    """A pod that answers the address of its client."""
    command = (
        'mkdir -p /tmp/w/cgi-bin; echo "$SCRIPT" > /tmp/w/cgi-bin/who; busybox chmod +x /tmp/w/cgi-bin/who; exec httpd -f -p 8080 -h /tmp/w'
    )
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["sh", "-c", command],
        "env": [{"name": "SCRIPT", "value": SCRIPT}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    metadata = {"name": name, "labels": {"app": "who"}}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]},
        }
    )


def service(name, kind="NodePort", **spec):
    whole = {"type": kind, "selector": {"app": "who"}, "ports": [{"port": 80, "targetPort": 8080}]} | spec
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole})


class Net:
    def __init__(self, fleet, space, outside):
        self.fleet, self.space, self.outside = fleet, space, outside
        self.server, self.agent = (fleet.net.address(node.machine) for node in (fleet.server, fleet.agents[0]))

    def asked(self, machine, address, port, timeout=2.0):
        """The client's address as the pod saw it; "" for no answer."""
        try:
            return machine.fetch(f"http://{address}:{port}/cgi-bin/who", timeout=timeout).strip().removeprefix("[::ffff:").rstrip("]")
        except CommandFailed:
            return ""

    def make(self, manifest):
        self.fleet.apply(manifest, "-n", self.space)

    def node_port(self, name):
        return self.fleet.get("service", name, "-n", self.space)["spec"]["ports"][0]["nodePort"]

    def addresses(self, name):
        status = self.fleet.get("service", name, "-n", self.space)["status"]
        return [entry["ip"] for entry in status["loadBalancer"].get("ingress") or ()]


@pytest.fixture(scope="module")
def net(shared):
    shared.kubectl("create", "namespace", "t-services")
    outside = shared.machine("outside")
    found = Net(shared, "t-services", outside)
    found.make(who("far", "agent-1"))
    shared.kubectl("wait", "-n", "t-services", "--for=condition=Ready", "pod/far", "--timeout=60s")
    yield found
    shared.kubectl("delete", "namespace", "t-services", "--wait=false")


def test_a_node_port_answers_on_every_node_also_on_its_loopback(net):
    net.make(service("np"))
    port, server, agent = net.node_port("np"), net.fleet.server.machine, net.fleet.agents[0].machine
    client = net.fleet.net.address(net.outside)
    wait_until(lambda: net.asked(net.outside, net.agent, port) == client, seconds=10)  # the pod is there: the client's own address
    wait_until(lambda: net.asked(net.outside, net.server, port) == "10.42.0.1", seconds=10)  # through the overlay: the node's
    for machine in (server, agent):
        for address in ("127.0.0.1", net.server, net.agent):
            assert net.asked(machine, address, port), (machine.name, address)


def test_local_policy_drops_where_no_endpoint_is_and_keeps_clients(net):
    net.make(service("local", externalTrafficPolicy="Local"))
    port, client = net.node_port("local"), net.fleet.net.address(net.outside)
    wait_until(lambda: net.asked(net.outside, net.agent, port) == client, seconds=10)
    assert net.asked(net.outside, net.server, port, timeout=1) == ""
    assert net.asked(net.fleet.server.machine, net.server, port)  # from the cluster itself it goes on


def test_balancers_are_on_all_nodes_or_where_the_endpoints_are(net):
    net.make(service("everywhere", "LoadBalancer", ports=[{"port": 8001, "targetPort": 8080}]))
    net.make(service("there", "LoadBalancer", ports=[{"port": 8002, "targetPort": 8080}], externalTrafficPolicy="Local"))
    client = net.fleet.net.address(net.outside)
    wait_until(lambda: sorted(net.addresses("everywhere")) == sorted([net.server, net.agent]), seconds=10)
    wait_until(lambda: net.addresses("there") == [net.agent], seconds=10)
    wait_until(lambda: net.asked(net.outside, net.agent, 8002) == client, seconds=10)
    wait_until(lambda: net.asked(net.outside, net.server, 8001) != "", seconds=10)
    net.make(who("near", "server"))
    wait_until(lambda: len(net.addresses("there")) == 2, seconds=20)
    wait_until(lambda: net.asked(net.outside, net.server, 8002) == client, seconds=10)
    net.fleet.kubectl("delete", "pod", "near", "-n", net.space)
    wait_until(lambda: net.addresses("there") == [net.agent], seconds=10)


def test_nodes_close_by_are_preferred(net):
    net.make(who("beside", "server"))
    net.make(service("close", trafficDistribution="PreferSameNode"))
    net.fleet.kubectl("wait", "-n", net.space, "--for=condition=Ready", "pod/beside", "--timeout=60s")
    port = net.node_port("close")
    client = net.fleet.net.address(net.outside)
    for address in (net.server, net.agent):  # each to its own: nobody is masqueraded
        wait_until(lambda address=address: {net.asked(net.outside, address, port) for _ in range(8)} == {client}, seconds=10)
