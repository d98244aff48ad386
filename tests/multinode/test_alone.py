"""A node lives without its server: rebooted alone it starts its pods, their services and names; when the server is back nothing restarts."""

import json
import time
from pathlib import Path

import pytest

from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

PODS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: "hello from the shed"}
---
apiVersion: v1
kind: Secret
metadata: {name: db}
stringData: {password: "correct-horse-battery"}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.43.7.7, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeName: agent-1
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: docker.io/library/busybox:test
        command: [sh, -c, 'test "$PASSWORD" = correct-horse-battery && test -s /secret/password && cp /var/run/secrets/kubernetes.io/serviceaccount/token /tmp && exec httpd -f -p 8080 -h /www']
        env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: www, mountPath: /www}, {name: secret, mountPath: /secret}]
      volumes:
      - {name: www, configMap: {name: page}}
      - {name: secret, secret: {secretName: db}}
"""


def statuses(f):
    """Pod -> (uid, containerID, restartCount) of all that have a container."""
    found = {}
    for pod in f.get("pods", "-l", "app=web")["items"]:
        entries = pod["status"].get("containerStatuses") or [{}]
        found[pod["metadata"]["name"]] = (pod["metadata"]["uid"], entries[0].get("containerID", ""), entries[0].get("restartCount"))
    return found


def answers(node):
    try:
        return node.machine.fetch("http://10.43.7.7/", timeout=1) == "hello from the shed"
    except AssertionError:
        return False


def resolves(node):
    """Asked from inside a pod."""
    asked = "for pid in $(busybox pidof httpd); do nsenter -t $pid -n busybox nslookup -type=a web.default.svc.cluster.local 10.43.0.10; break; done 2>&1"
    return "Address: 10.43.7.7" in node.machine.sh(asked, check=False)


def serves(node, seconds=20):
    """Wait until Service and name answer on this node; how long it took."""
    started = time.monotonic()
    try:
        wait_until(lambda: answers(node) and resolves(node), seconds=seconds, what="service and name answer without the server")
    except AssertionError as error:
        seen = node.machine.sh("nft list ruleset | grep -c 10.43.7.7; ip route; busybox nslookup web.default.svc.cluster.local 10.43.0.10 2>&1", check=False)
        raise AssertionError(f"{error}\n{node.log_text()[-4000:]}\n{seen}") from None
    return time.monotonic() - started


@pytest.fixture(scope="module")
def pair():
    with fleet(agents=1) as f:
        f.apply(PODS)
        f.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        wait_until(lambda: answers(f.agents[0]), what="the service answers")
        yield f


def test_rebooted_alone_and_back(pair):
    f, agent = pair, pair.agents[0]
    before = statuses(f)
    time.sleep(3)  # what is gathered is written
    f.server.kill()
    agent.power_off()
    files = [path for path in (agent.data / "agent").rglob("*") if path.is_file()]
    assert not [path for path in files if b"correct-horse" in path.read_bytes()]
    assert {path.stat().st_mode & 0o077 for path in files if path.name.startswith("state")} == {0}
    agent.machine.boot()
    offset = len(agent.log_text())
    started = time.monotonic()
    agent.start()
    serves(agent)
    took = time.monotonic() - started
    print(f"alone after {took:.1f} s")
    f.server.start()
    wait_until(lambda: {r for _, _, r in statuses(f).values()} == {1}, what="the server hears of the one restart")
    after = statuses(f)
    assert {name: uid for name, (uid, _, _) in after.items()} == {name: uid for name, (uid, _, _) in before.items()}
    f.ready(agent)
    time.sleep(2)
    assert statuses(f) == after
    log = agent.log_text()[offset:]
    assert log.count("contact with the server") == 2  # none yet; back
    assert took < 20


def test_killed_and_its_containers_removed(pair):
    """The server is away, somebody wipes the containers, the agent starts again; then the server comes back to other wishes."""
    f, agent = pair, pair.agents[0]
    gone = sorted(statuses(f))[0]
    f.server.stop()
    agent.kill()
    for line in agent.machine.sh("ps -eo pid,args 2>/dev/null || busybox ps -o pid,args").splitlines():
        pid, _, args = line.strip().partition(" ")
        if "conmon" in args and str(agent.data) in args:
            agent.machine.sh(f"kill -9 {pid}", check=False)
    agent.machine.sh("for pid in $(busybox pidof httpd); do kill -9 $pid; done", check=False)
    agent.start()
    serves(agent)
    f.server.start()
    f.kubectl("delete", "pod", gone, "--wait=true", "--timeout=30s")
    f.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    wait_until(lambda: answers(agent))


def rss(node):
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def written(node):
    return int(Path(f"/proc/{node.process.pid}/io").read_text().partition("\nwrite_bytes: ")[2].split()[0])


STATIC = """
apiVersion: v1
kind: Pod
metadata: {name: fixed}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "docker.io/library/busybox:test", command: [sleep, "100000"]}]
"""


def test_a_static_pod_of_an_agent(pair):
    """Its mirror is made by the node itself, with the few rights that a node has; it runs again after a reboot without a server."""
    f, agent = pair, pair.agents[0]
    file = agent.data / "manifests" / "static" / "fixed.yaml"
    file.write_text(STATIC)
    name = f"fixed-{agent.name}"
    wait_until(lambda: f.kubectl("get", "pods", name, "--ignore-not-found", "-o", "name"), what="the mirror is there")
    f.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")
    owner = f.get("pod", name)["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner.get("controller")) == ("Node", agent.name, True)
    assert f.kubectl("exec", name, "--", "hostname").strip() == name
    before = f.get("pod", name)
    f.kubectl("delete", "pod", name, "--wait=false")
    wait_until(lambda: uid_of(f, name) not in ("", before["metadata"]["uid"]), what="the mirror is made again")
    f.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")
    after = f.get("pod", name)["status"]["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["status"]["containerStatuses"][0]["containerID"], 0)
    f.server.stop()
    agent.power_off()
    agent.machine.boot()
    agent.start()
    wait_until(lambda: "sleep 100000" in agent.machine.sh("busybox ps -o args"), seconds=20, what="the static pod runs without the server")
    f.server.start()
    wait_until(lambda: f.get("pod", name)["status"]["containerStatuses"][0]["restartCount"] == 1, what="the server hears of it")
    file.unlink()
    wait_until(lambda: not f.kubectl("get", "pods", name, "--ignore-not-found", "-o", "name"), what="the mirror is gone")


def uid_of(f, name):
    return f.kubectl("get", "pods", name, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")


def test_a_pod_that_does_not_answer_gets_no_traffic_although_nobody_says_so(pair):
    """Alone, the node's own readiness decides."""
    f, agent = pair, pair.agents[0]
    f.ready(agent)
    serves(agent)
    f.server.stop()
    pid = agent.machine.sh("busybox pidof httpd").split()[0]
    agent.machine.sh(f"kill -STOP {pid}")
    try:
        wait_until(lambda: all(answers(agent) for _ in range(14)), seconds=20, what="only the pod that answers is asked")
    finally:
        agent.machine.sh(f"kill -CONT {pid}")
    f.server.start()
    f.ready(agent)


def test_a_long_time_alone_costs_nothing(pair):
    """Memory flat, no writes, two lines in the log."""
    f, agent = pair, pair.agents[0]
    f.ready(agent)
    f.server.stop()
    wait_until(lambda: "contact with the server lost" in agent.log_text()[-3000:])
    time.sleep(5)
    lines, memory, disk = agent.log_text().count("\n"), rss(agent), written(agent)
    state = (agent.data / "agent" / "state").stat().st_size
    time.sleep(40)
    figures = {"lines": agent.log_text().count("\n") - lines, "rss_kb": rss(agent) - memory, "written": written(agent) - disk}
    print(json.dumps(figures))
    assert figures["lines"] <= 2
    assert figures["rss_kb"] < 3000
    assert (agent.data / "agent" / "state").stat().st_size == state
    f.server.start()
    f.ready(agent)
