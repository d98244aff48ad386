"""A LoadBalancer Service without pods on a dual-stack node, from a machine outside: both families, the client's own address, source
ranges, health check port, a port that two want, and rules that come back after a flush. The server is one of its own."""

import json
import socket

import pytest

from tests.e2e.manifests import IMAGE
from tests.kit import netns as ns
from tests.kit.cluster import cluster, wait_until
from tests.kit.requires import needs

pytestmark = [needs("root", "podman", "netns", "nft", "busybox", "kubectl"), pytest.mark.slow]

NODE, CLIENT = ("192.0.2.1", "2001:db8::1"), ("192.0.2.10", "2001:db8::a")
FLAGS = ("--cluster-cidr=10.42.0.0/16,fd42::/48", "--service-cidr=10.43.0.0/16,fd43::/112", "--cluster-dns=10.43.0.10,fd43::a")
CGI = "mkdir -p /tmp/w/cgi-bin; printf '#!/bin/sh\\necho; echo $POD $REMOTE_ADDR\\n' > /tmp/w/cgi-bin/who; busybox chmod +x /tmp/w/cgi-bin/who"
WEB = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: who}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: who}}}}
  template:
    metadata: {{labels: {{app: who}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: {IMAGE}
        command: [sh, -c, "{CGI.replace(chr(92), chr(92) * 2)}; exec httpd -f -p 8080 -h /tmp/w"]
        env: [{{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"""


def balancer(name, **spec):
    whole = {
        "type": "LoadBalancer",
        "ipFamilyPolicy": "PreferDualStack",
        "selector": {"app": "who"},
        "ports": [{"port": 80, "targetPort": 8080}],
    }
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole | spec})


@pytest.fixture(scope="module")
def site(image):
    with ns.namespace() as outside, cluster(*FLAGS, start=False) as server:
        host, client = server.netns.rsplit("/", 1)[1], outside.rsplit("/", 1)[1]
        ns.sh(
            f"ip -n {host} link add uplink type veth peer name eth0 netns {client}; ip -n {host} link set uplink up;"
            f"ip -n {host} addr add {NODE[0]}/24 dev uplink; ip -n {host} addr add {NODE[1]}/64 dev uplink nodad;"
            f"ip -n {client} link set eth0 up; ip -n {client} addr add {CLIENT[0]}/24 dev eth0;"
            f"ip -n {client} addr add {CLIENT[1]}/64 dev eth0 nodad; ip -n {host} route add default via {CLIENT[0]}"
        )
        server.start()
        server.edgekube("images", "import", str(image))
        server.apply(WEB)
        server.kubectl("rollout", "status", "deployment/who", "--timeout=60s")
        server.apply(balancer("who"))
        yield Site(server, outside)


class Site:
    def __init__(self, server, outside):
        self.server, self.outside = server, outside

    def who(self, address, port=80, seconds=3.0):
        """Pod and client address as the pod sees it; "" when nothing answers."""

        def ask():
            try:
                with socket.create_connection((address, port), timeout=seconds) as connection:
                    connection.sendall(b"GET /cgi-bin/who HTTP/1.0\r\n\r\n")
                    return connection.makefile().read().strip().splitlines()[-1].split()[-1].strip("[]").removeprefix("::ffff:")
            except OSError:
                return ""

        return ns.call_inside(self.outside, ask)

    def service(self, name):
        return self.server.get("service", name)

    def addresses(self, name):
        return [entry["ip"] for entry in self.service(name)["status"]["loadBalancer"].get("ingress") or ()]


def test_clients_of_both_families_are_served_with_their_own_address(site):
    wait_until(lambda: site.addresses("who") == list(NODE), seconds=10)
    for node, client in zip(NODE, CLIENT, strict=True):
        wait_until(lambda node=node, client=client: site.who(node) == client, seconds=10)
    ports = site.service("who")["spec"]["ports"]
    assert site.who(NODE[0], ports[0]["nodePort"]) == CLIENT[0]
    assert len(site.service("who")["spec"]["clusterIPs"]) == 2
    found = {entry["addressType"] for entry in site.server.get("endpointslices", "-l", "kubernetes.io/service-name=who")["items"]}
    assert found == {"IPv4", "IPv6"}


def test_names_have_both_addresses(site):
    pod = site.server.get("pods", "-l", "app=who")["items"][0]["metadata"]["name"]
    for kind, wanted in (("a", "10.43."), ("aaaa", "fd43:")):
        assert wanted in site.server.kubectl("exec", pod, "--", "nslookup", f"-type={kind}", "who.default.svc.cluster.local")


def test_source_ranges_and_a_second_service_on_the_port(site):
    site.server.apply(balancer("second"))
    wait_until(lambda: "the older Service default/who" in json.dumps(site.service("second")["status"]), seconds=10)
    assert site.addresses("second") == []
    site.server.kubectl("patch", "service", "who", "-p", json.dumps({"spec": {"loadBalancerSourceRanges": ["198.51.100.0/24"]}}))
    wait_until(lambda: site.who(NODE[0], seconds=0.3) == "", seconds=10)
    assert site.who(NODE[1]) == CLIENT[1]  # as upstream: no range of this family
    site.server.kubectl("delete", "service", "who")
    wait_until(lambda: site.addresses("second") == list(NODE), seconds=10)
    wait_until(lambda: site.who(NODE[0]) == CLIENT[0], seconds=10)
    site.server.kubectl("delete", "service", "second")
    site.server.apply(balancer("who"))
    wait_until(lambda: site.who(NODE[0]) == CLIENT[0], seconds=10)


def test_local_policy_has_a_health_port(site):
    site.server.apply(balancer("local", externalTrafficPolicy="Local", ports=[{"port": 81, "targetPort": 8080}]))
    port = site.service("local")["spec"]["healthCheckNodePort"]

    def health():
        def ask():
            try:
                with socket.create_connection((NODE[0], port), timeout=2) as connection:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    return connection.makefile().read()
            except OSError:
                return ""

        return ns.call_inside(site.outside, ask)

    wait_until(lambda: "X-Load-Balancing-Endpoint-Weight: 2" in health(), seconds=10)
    assert '"localEndpoints": 2' in health()
    assert site.who(NODE[0], 81) == CLIENT[0]
    site.server.kubectl("delete", "service", "local")
    wait_until(lambda: health() == "", seconds=10)


def test_rules_come_back_after_a_flush(site):
    site.server.inside("nft", "flush", "ruleset")
    wait_until(lambda: site.who(NODE[0], seconds=0.3) == CLIENT[0], seconds=5)
