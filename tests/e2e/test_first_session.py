"""What the README promises, with the real kubectl: an ordinary Deployment and Service, and every command a user tries in the first hour."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from tests.e2e.manifests import pod, web
from tests.kit.cluster import wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")


@pytest.fixture(scope="module")
def app(shared):
    """The README's Deployment, rolled out once for this module."""
    shared.kubectl("create", "namespace", "session")
    from tests.e2e.conftest import Space

    space = Space(shared, "session")
    space.apply(web())
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    yield space
    shared.kubectl("delete", "namespace", "session", "--timeout=60s")


def first_pod(space):
    return space.get("pods", "-l", "app=web")["items"][0]["metadata"]["name"]


def test_pods_run_and_are_counted(app):
    line = app.kubectl("get", "deployment", "web", "--no-headers").split()
    assert line[:4] == ["web", "3/3", "3", "3"]
    pods = app.kubectl("get", "pods", "--no-headers").splitlines()
    assert [entry.split()[1:4] for entry in pods] == [["1/1", "Running", "0"]] * 3


def test_node_is_ready(app):
    line = app.kubectl("get", "nodes", "--no-headers").split()
    assert line[:2] == ["node-1", "Ready"]
    assert "Ready            True" in re.sub(r" +Ready +True", " Ready            True", app.kubectl("describe", "node", "node-1"))


def test_answers_on_cluster_ip_node_port_and_name(app):
    service = app.get("service", "web")
    address, port = service["spec"]["clusterIP"], service["spec"]["ports"][0]["nodePort"]
    names = {entry["metadata"]["name"] for entry in app.get("pods", "-l", "app=web")["items"]}
    assert {app.cluster.fetch(f"http://{address}/") for _ in range(20)} == names
    assert app.cluster.fetch(f"http://127.0.0.1:{port}/") in names
    for name in ("web", "web.session", "web.session.svc.cluster.local"):
        answer = app.kubectl("exec", first_pod(app), "--", "sh", "-c", f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {name} 80")
        assert answer.split()[-1] in names


def test_describe_tells_the_story(app):
    text = app.kubectl("describe", "pod", first_pod(app))
    for expected in (
        "Successfully assigned session/web-",
        "Container created",
        "Container started",
        "Readiness:",
        "ConfigMap (a volume populated",
    ):
        assert expected in text
    assert "Scaled up replica set web-" in app.kubectl("describe", "deployment", "web")


def test_exec_with_stdin_tty_and_exit_code(app):
    name = first_pod(app)
    assert app.kubectl("exec", name, "--", "cat", "/settings/greeting") == "hello"
    assert app.kubectl("exec", "-i", name, "--", "sh", "-c", "cat; echo done", stdin="one\ntwo\n") == "one\ntwo\ndone\n"
    assert "exit code 7" in app.fails("exec", name, "--", "sh", "-c", "exit 7")
    assert "executable file not found" in app.fails("exec", name, "--", "no-such-program")
    import pty

    child, terminal = pty.fork()
    if child == 0:
        argv = app.cluster.kubectl_argv("-n", app.name, "exec", "-it", name, "--", "sh", "-c", "tty; stty size; echo bye")
        os.execvp(argv[0], argv)
    output = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break
        if not data:
            break
        output += data
    os.waitpid(child, 0)
    assert b"/dev/pts/0" in output
    assert b"bye" in output


def test_copy_both_ways(app, tmp_path):
    name = first_pod(app)
    blob = os.urandom(300_000)
    (tmp_path / "blob").write_bytes(blob)
    app.kubectl("cp", str(tmp_path / "blob"), f"session/{name}:/tmp/blob")
    app.kubectl("cp", f"session/{name}:/tmp/blob", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == blob


def test_port_forward(app):
    process = subprocess.Popen(
        app.cluster.kubectl_argv("-n", app.name, "port-forward", "deployment/web", "18080:8080"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert b"Forwarding from 127.0.0.1:18080" in process.stdout.readline()
        names = {entry["metadata"]["name"] for entry in app.get("pods", "-l", "app=web")["items"]}
        for _ in range(3):
            assert app.cluster.fetch("http://127.0.0.1:18080/") in names
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def test_logs_with_their_options(space):
    space.apply(pod("talker", "for i in 1 2 3 4 5; do echo line $i; done; echo to stderr >&2; sleep 600"))
    space.kubectl("wait", "--for=condition=Ready", "pod/talker", "--timeout=60s")
    wait_until(lambda: "to stderr" in space.kubectl("logs", "talker"))
    assert space.kubectl("logs", "talker").splitlines() == [f"line {n}" for n in range(1, 6)] + ["to stderr"]
    assert space.kubectl("logs", "talker", "--tail=2").splitlines() == ["line 5", "to stderr"]
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00) line 5", space.kubectl("logs", "talker", "--tail=2", "--timestamps"))
    assert space.kubectl("logs", "talker", "--since=1h", "--limit-bytes=6") == "line 1"
    assert "previous terminated container" in space.fails("logs", "talker", "--previous")


def test_logs_follow_until_the_end(space):
    space.apply(pod("counter", "for i in 1 2 3; do echo $i; sleep 0.3; done", spec="restartPolicy: Never"))
    wait_until(lambda: space.get("pod", "counter")["status"].get("phase") in ("Running", "Succeeded"))
    assert space.kubectl("logs", "-f", "counter", timeout=30).split() == ["1", "2", "3"]


@needs("kubectl>=1.27")
def test_scale_edit_diff_wait_delete(space):
    space.apply(web(1))
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    space.kubectl("scale", "deployment/web", "--replicas=2")
    space.kubectl("wait", "--for=jsonpath={.status.readyReplicas}=2", "deployment/web", "--timeout=60s")
    done = subprocess.run(
        space.cluster.kubectl_argv("-n", space.name, "diff", "-f", "-"), input=web(5), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "+  replicas: 5" in done.stdout
    environment = os.environ | {"KUBE_EDITOR": "sed -i s/greeting:.*/greeting:\\ bonjour/"}
    subprocess.run(
        space.cluster.kubectl_argv("-n", space.name, "edit", "configmap", "settings"), env=environment, check=True, capture_output=True
    )
    assert space.get("configmap", "settings")["data"] == {"greeting": "bonjour"}
    wait_until(lambda: space.kubectl("exec", "deployment/web", "--", "cat", "/settings/greeting") == "bonjour", what="the volume follows")
    space.kubectl("delete", "deployment", "web", "--timeout=60s")
    wait_until(lambda: space.get("pods")["items"] == [], what="pods of the deleted Deployment")


class Traffic:
    """Requests one after another from the host until told to stop; counts what failed."""

    PROGRAM = """
import http.client, signal, sys, json
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
good, bad, why = 0, 0, ""
while not stop:
    try:
        c = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=5)
        c.request("GET", "/")
        good += c.getresponse().status == 200
    except Exception as error:
        bad += 1
        why = repr(error)
    finally:
        c.close()
print(json.dumps([good, bad, why]))
"""

    def __init__(self, cluster, address, port):
        import sys

        argv = [*cluster.kubectl_argv()[:3], sys.executable, "-c", self.PROGRAM, address, str(port)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        good, bad, why = json.loads(self.process.communicate(timeout=30)[0])
        assert good > 0
        assert bad == 0, f"{bad} of {good + bad} requests failed, the last with {why}"
        return good


def test_a_rolling_update_loses_no_request(space):
    space.apply(web(3))
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    service = space.get("service", "web")
    traffic = Traffic(space.cluster, service["spec"]["clusterIP"], 80)
    space.apply(web(3, version="2"))
    space.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    traffic.stop()
    assert "deployment.apps/web rolled back" in space.kubectl("rollout", "undo", "deployment/web")
    space.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    assert space.get("deployment", "web")["spec"]["template"]["metadata"]["annotations"]["version"] == "1"
    history = space.kubectl("rollout", "history", "deployment/web").split()
    assert history[-4:] == ["2", "<none>", "3", "<none>"]


def test_kill_9_under_traffic_loses_no_request_and_restarts_nothing(space):
    space.apply(web(2))
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    before = containers(space)
    traffic = Traffic(space.cluster, space.get("service", "web")["spec"]["clusterIP"], 80)
    for _ in range(2):
        space.cluster.kill()
        space.cluster.start()
        space.kubectl("create", "configmap", f"after-{time.time_ns()}")
    traffic.stop()
    space.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=30s")
    assert containers(space) == before
    space.kubectl("scale", "deployment/web", "--replicas=3")
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")


def containers(space):
    return sorted(
        (status["containerID"], status["restartCount"])
        for entry in space.get("pods")["items"]
        for status in entry["status"]["containerStatuses"]
    )
