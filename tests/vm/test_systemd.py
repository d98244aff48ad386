"""edgekube as a systemd service on a machine with cgroup v2: start, limits, restarts, a stuck process, shutdown, reboot, removal."""

import json
import shutil
from pathlib import Path

import pytest

from tests.kit.requires import kubectl
from tests.vm.lab import lab, short_folder
from tests.vm.product import IMAGE, Site, eventually

WEB = {"name": "web", "image": IMAGE, "imagePullPolicy": "Never",
       "command": ["sh", "-c", "trap 'exit 0' TERM; hostname > /www/index.html; httpd -f -p 8080 -h /www & wait"],
       "readinessProbe": {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 2, "timeoutSeconds": 5},
       "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "32Mi"}}}  # fmt: skip
HOG = {"name": "hog", "image": WEB["image"], "imagePullPolicy": "Never", "command": ["sh", "-c", "sleep 1; tail -c 100m /dev/zero"],
       "resources": {"limits": {"cpu": "100m", "memory": "16Mi"}}}  # fmt: skip
OBJECTS = (
    {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
     "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
              "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [WEB]}}}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
     "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30080}]}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hog"}, "spec": {"restartPolicy": "Never", "containers": [HOG]}},
)  # fmt: skip
LEFT = """
ps -eo args --no-headers | grep -E 'edgekube|conmon|podman' | grep -v -e 'sh -c' -e grep ; ip -br link | grep ek ; ip -4 -br addr show lo | grep 10[.]4
nft list tables ; grep -E 'edgekube|libpod' /proc/self/mountinfo ; ls -d /sys/fs/cgroup/kubepods /sys/fs/cgroup/edgekube 2>/dev/null
systemctl list-unit-files --no-legend '*edgekube*' ; ls -d /var/log/pods /var/log/containers /var/lib/edgekube /run/edgekube 2>/dev/null ; true
"""


@pytest.fixture(scope="module")
def vm():
    """A machine on which edgekube is installed and started, with its objects applied."""
    with short_folder() as folder, lab(folder, 1) as machines:
        site = Site(folder, machines)
        site.server.put(Path(shutil.which(kubectl())).resolve(), "/usr/local/bin/kubectl")
        site.install_server()
        site.apply(*OBJECTS)
        site.kubectl("rollout", "status", "deployment/web", "--timeout=200s", patience=300)
        yield site.server


def containers(vm):
    """What would change if a container had been started anew."""
    pods = json.loads(vm.run("kubectl get pods -l app=web -o json"))["items"]
    states = [status for pod in pods for status in pod["status"]["containerStatuses"]]
    return sorted((state.get("containerID", ""), state["restartCount"], state["ready"]) for state in states)


def answers(vm):
    return "web-" in vm.run("curl -sS -m 5 http://10.0.2.15:30080/", check=False)


def test_systemd_is_told_when_it_is_ready_and_services_answer(vm):
    assert vm.run("systemctl is-active edgekube") == "active"
    assert vm.run("systemctl show -p Type --value edgekube") == "notify"
    eventually(lambda: answers(vm))
    pod = vm.run("kubectl get pods -l app=web -o name | head -1")
    assert "10.43." in vm.run(f"kubectl exec {pod} -- nslookup web.default.svc.cluster.local")
    assert "web-" in vm.run(f"kubectl exec {pod} -- wget -qO- http://web/")


def test_limits_are_those_of_cgroup_v2(vm):
    pod = vm.run("echo /sys/fs/cgroup/kubepods/burstable/pod*/libpod-*").split()[0]
    found = vm.run(f"cd {pod}; cat memory.max cpu.max memory.oom.group; cat ../memory.max ../cpu.max ../../cpu.weight")
    assert found.splitlines() == ["33554432", "50000 100000", "1", "33554432", "50000 100000", "29"]


def test_a_container_over_its_memory_is_reported_as_such(vm):
    path = "jsonpath={.status.phase}{.status.containerStatuses[0].state.terminated['reason','exitCode']}"
    eventually(lambda: vm.run(f'kubectl get pod hog -o "{path}"') == "FailedOOMKilled 137")


@pytest.mark.parametrize("line", ["systemctl restart edgekube", "kill -9 $(systemctl show -p MainPID --value edgekube)"])
def test_pods_outlive_the_process(vm, line):
    before = containers(vm)
    main = vm.run("systemctl show -p MainPID --value edgekube")
    vm.run(line)
    eventually(lambda: vm.run("systemctl show -p MainPID --value edgekube") not in ("0", main))
    vm.run("edgekube status --quiet --wait 120")
    eventually(lambda: "pods adopted" in vm.run("journalctl -u edgekube _PID=$(systemctl show -p MainPID --value edgekube)"))
    assert containers(vm) == before
    eventually(lambda: answers(vm))


def test_a_process_that_is_stuck_is_started_anew_and_pods_do_not_notice(vm):
    before = containers(vm)
    main = vm.run("systemctl show -p MainPID --value edgekube")
    vm.run(f"kill -STOP {main}")  # as an event loop that does not come round
    eventually(lambda: vm.run("systemctl show -p MainPID --value edgekube") not in ("0", main))
    assert "watchdog" in vm.run("journalctl -u edgekube --no-pager").lower()
    vm.run("edgekube status --quiet --wait 120")
    assert containers(vm) == before


def test_at_shutdown_pods_end_in_order_and_a_restart_of_the_service_ends_none(vm):
    vm.write("/root/order.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": [ending("plain"), ending("vital", "system-node-critical")]}))
    vm.run("kubectl apply -f /root/order.json; kubectl wait --for=condition=Ready pod/plain -n kube-system --timeout=120s; "
           "kubectl wait --for=condition=Ready pod/vital -n kube-system --timeout=120s; systemctl restart edgekube; edgekube status --quiet --wait 120")  # fmt: skip
    assert vm.run("cat /var/tmp/ended", check=False).startswith("cat:"), "a restart is no end"
    vm.reboot()
    assert vm.run("cut -d' ' -f1 /var/tmp/ended").split() == ["plain", "vital"]
    vm.run("edgekube status --quiet --wait 120")
    vm.run("kubectl delete -f /root/order.json; rm -f /var/tmp/ended /root/order.json")


def ending(name, priority=""):
    """A pod that notes on the host when it is told to end, and takes two seconds to."""
    on_term = f"trap 'sleep 2; echo {name} $(date +%s.%N) >> /host/ended; sync; exit 0' TERM; while :; do sleep 1; done"
    container = {"name": "c", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", on_term],
                 "volumeMounts": [{"name": "host", "mountPath": "/host"}]}  # fmt: skip
    spec = {"containers": [container], "volumes": [{"name": "host", "hostPath": {"path": "/var/tmp"}}], "terminationGracePeriodSeconds": 10}
    metadata = {"name": name, "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, **({"priorityClassName": priority} if priority else {})}}


def test_a_reboot_is_quick_and_brings_the_pods_back(vm):
    before = containers(vm)
    vm.reboot()
    vm.run("edgekube status --quiet --wait 120")
    eventually(lambda: [entry[1:] for entry in containers(vm)] == [(count + 1, True) for _, count, _ in before])
    eventually(lambda: answers(vm))
    assert "Sending SIGKILL to PID" not in vm.run("journalctl -b -1 --no-pager", check=False)


def test_uninstall_leaves_nothing(vm):
    vm.run("edgekube uninstall --yes")
    assert vm.run(LEFT) == ""
