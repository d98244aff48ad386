"""Services through IPVS, on a kernel that has it: a server with --proxy-mode=ipvs, and every promise of the packet suite.

Takes some ten minutes, so it runs only when asked for: `tests/run.sh --vm -k ipvs`, or EDGEKUBE_VM=1.
"""

import json
import os
import tempfile
from pathlib import Path

import pytest

from tests.kit.requires import needs
from tests.vm.installed import ROOT, eventually, install
from tests.vm.lab import machine

pytestmark = [
    needs("root", "qemu", "kubectl", "busybox"),
    pytest.mark.skipif(os.environ.get("EDGEKUBE_VM") != "1", reason="NOT TESTED HERE: takes minutes; run tests/run.sh --vm"),
    pytest.mark.timeout(1800),
]

SUITE = ("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis")
WEB = {"name": "web", "image": "docker.io/library/busybox:test", "imagePullPolicy": "Never",
       "command": ["sh", "-c", "trap 'exit 0' TERM; hostname > /www/index.html; httpd -f -p 8080 -h /www & wait"],
       "readinessProbe": {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 2, "timeoutSeconds": 5}}  # fmt: skip


def service(name, node_port, **more):
    ports = [{"port": 80, "targetPort": 8080, "nodePort": node_port}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": ports, **more}}  # fmt: skip


OBJECTS = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
         "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                  "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [WEB]}}}},
        service("spread", 30080),
        service("loyal", 30081, sessionAffinity="ClientIP"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def vm():
    with tempfile.TemporaryDirectory(prefix="ekvm") as name, machine(Path(name)) as made:
        install(made, Path(name), *SUITE)
        made.run("cp -r /usr/local/lib/edgekube /root/python")  # which uninstalling leaves
        (Path(name) / "objects.json").write_text(json.dumps(OBJECTS))
        made.put(Path(name) / "objects.json", "/root/objects.json")
        for part in ("tests", "pyproject.toml"):
            made.put(ROOT / part, f"/root/suite/{part}")
        yield made


def _answers(vm, where, times=20):
    """Pods that answered; one that does not counts as ''."""
    found = vm.run(f"for i in $(seq {times}); do curl -sS -m 5 {where}; done", check=False)
    return set(found.split())


def test_a_server_with_ipvs_serves_cluster_addresses_and_node_ports_with_and_without_affinity(vm):
    folder = "/etc/systemd/system/edgekube.service.d"
    vm.run(f"mkdir -p {folder}; printf '[Service]\\nEnvironment=EDGEKUBE_PROXY_MODE=ipvs\\n' > {folder}/mode.conf; systemctl daemon-reload")
    vm.run("systemctl start edgekube")
    vm.run("edgekube images import /root/busybox.tar; kubectl apply -f /root/objects.json")
    vm.run("kubectl rollout status deployment/web --timeout=200s")
    pods = set(vm.run("kubectl get pods -l app=web -o name").replace("pod/", "").split())
    spread, loyal = (vm.run(f"kubectl get service {name} -o 'jsonpath={{.spec.clusterIP}}'") for name in ("spread", "loyal"))
    pod = sorted(pods)[0]
    eventually(lambda: _answers(vm, f"http://{spread}/") == pods)
    assert _answers(vm, "http://10.0.2.15:30080/") == pods
    assert len(_answers(vm, f"http://{loyal}/")) == 1
    assert len(_answers(vm, "http://10.0.2.15:30081/")) == 1
    inside = vm.run(f"kubectl exec {pod} -- sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do wget -qO- http://spread/; done'")
    assert set(inside.split()) == pods  # by name, and itself among them
    vm.run("systemd-run -q --unit=foreign python3 -m http.server 2222")
    eventually(lambda: "foreign" not in vm.run("curl -sSf -m 5 http://10.0.2.15:2222/ >/dev/null || echo foreign", check=False))
    assert "curl: (7)" in vm.run(f"curl -sS -m 5 http://{spread}:2222/", check=False)  # refused: only the Service is at its address
    table = vm.run("cat /proc/net/ip_vs")
    assert f"TCP  {''.join(f'{int(part):02X}' for part in spread.split('.'))}:0050 rr" in table
    assert "FWM" in table
    assert "persistent" in table
    vm.run("edgekube uninstall --yes")
    assert "rr" not in vm.run("cat /proc/net/ip_vs")
    assert vm.run("ip route show table local proto 231; nft list tables") == ""


def test_the_packet_suite(vm):
    command = "PYTHONPATH=/root/python EDGEKUBE_REQUIRE=ipvs python3 -m pytest -q -p no:cacheprovider"
    found = vm.run(f"cd /root/suite && {command} tests/unit/proxy -k 'ipvs' 2>&1 | tail -30", check=False, patience=1200)
    assert " passed" in found, found
    assert "failed" not in found, found
    assert "error" not in found, found
