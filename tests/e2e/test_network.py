"""Services and names between real pods: headless, SRV, PTR, ExternalName, affinity, hairpin, named ports,
readiness. (UDP through Services: tests/unit/proxy/test_conntrack.py; the distribution's busybox has no UDP client.)"""

import re

import pytest

from tests.e2e.manifests import IMAGE, pod
from tests.kit.cluster import wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

BACKENDS = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: echo}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: echo}}}}
  template:
    metadata: {{labels: {{app: echo}}}}
    spec:
      terminationGracePeriodSeconds: 1
      hostname: fixed
      subdomain: echo-headless
      containers:
      - name: main
        image: {IMAGE}
        command: [sh, -c, "while true; do nc -l -p 8080 -e sh -c 'echo $POD'; done"]
        env: [{{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
        ports: [{{name: web, containerPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{selector: {{app: echo}}, ports: [{{name: web, port: 80, targetPort: web}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: sticky}}
spec: {{selector: {{app: echo}}, sessionAffinity: ClientIP, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: echo-headless}}
spec: {{clusterIP: None, selector: {{app: echo}}, ports: [{{name: web, port: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: alias}}
spec: {{type: ExternalName, externalName: echo.t-net.svc.cluster.local}}
"""


@pytest.fixture(scope="module")
def net(shared):
    from tests.e2e.conftest import Space

    shared.kubectl("create", "namespace", "t-net")
    space = Space(shared, "t-net")
    space.apply(BACKENDS)
    space.apply(pod("client", "sleep 3600"))
    space.kubectl("rollout", "status", "deployment/echo", "--timeout=60s")
    space.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    yield space
    shared.kubectl("delete", "namespace", "t-net", "--wait=false")


def shell(space, command, name="client"):
    return space.kubectl("exec", name, "--", "sh", "-c", command)


def backends(space):
    return {entry["metadata"]["name"]: entry["status"]["podIP"] for entry in space.get("pods", "-l", "app=echo")["items"]}


def test_by_name_and_named_port(net):
    names = set(backends(net))
    found = {shell(net, "nc -w 2 echo 80").strip() for _ in range(12)}
    assert found == names


def test_affinity_sends_a_client_to_one_pod(net):
    assert len({shell(net, "nc -w 2 sticky 80").strip() for _ in range(8)}) == 1


def test_a_pod_reaches_itself_through_its_service(net):
    for name in backends(net):
        found = {shell(net, "nc -w 2 echo 80", name).strip() for _ in range(10)}
        assert name in found


def test_names(net):
    addresses = set(backends(net).values())
    headless = shell(net, "nslookup -type=a echo-headless.t-net.svc.cluster.local")
    assert addresses <= set(re.findall(r"Address: (10\.42\.0\.\d+)", headless))
    srv = shell(net, "nslookup -type=srv _web._tcp.echo-headless.t-net.svc.cluster.local")
    assert "8080 fixed.echo-headless.t-net.svc.cluster.local" in srv
    address = net.get("service", "echo")["spec"]["clusterIP"]
    assert f"Address: {address}" in shell(net, "nslookup -type=a alias.t-net.svc.cluster.local")
    assert "name = echo.t-net.svc.cluster.local" in shell(net, f"nslookup {address}")
    assert "NXDOMAIN" in shell(net, "nslookup -type=a nothing.t-net.svc.cluster.local || true")


def test_only_ready_pods_get_traffic(net):
    net.apply(
        pod(
            "unready",
            "while true; do nc -l -p 8080 -e echo unready; done",
            container="readinessProbe: {exec: {command: [test, -f, /tmp/ok]}, periodSeconds: 1}",
        )
    )
    net.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: unready}\nspec: {selector: {app: unready}, ports: [{port: 80, targetPort: 8080}]}\n"
    )
    wait_until(lambda: net.get("pod", "unready")["status"].get("phase") == "Running")
    assert "refused" in shell(net, "nc -w 2 unready 80 2>&1 || true")
    net.kubectl("exec", "unready", "--", "touch", "/tmp/ok")
    net.kubectl("wait", "--for=condition=Ready", "pod/unready", "--timeout=30s")
    assert wait_until(lambda: shell(net, "nc -w 2 unready 80 2>/dev/null || true").strip()) == "unready"


def test_a_host_port_leads_to_its_pod_and_goes_with_it(net):
    serve = "mkdir -p /www && echo here > /www/index.html && exec httpd -f -p 8080 -h /www"
    probe = "readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}"
    net.apply(pod("host-port", serve, container=f"ports: [{{containerPort: 8080, hostPort: 18888}}]\n    {probe}"))
    net.kubectl("wait", "--for=condition=Ready", "pod/host-port", "--timeout=30s")
    for address in ("127.0.0.1", "10.42.0.1"):
        assert net.cluster.fetch(f"http://{address}:18888") == "here"
    net.kubectl("delete", "pod", "host-port")
    wait_until(lambda: "18888" not in net.cluster.inside("nft", "list", "ruleset"))


def test_a_flushed_ruleset_is_back_at_once(net):
    net.cluster.inside("nft", "flush", "ruleset")
    assert wait_until(lambda: shell(net, "nc -w 1 echo 80 2>/dev/null || true").strip(), seconds=10) in backends(net)
